"""Configs of the commands that evaluate. Torch-free."""

from __future__ import annotations

from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from prefloop.config import Section

SHIPPED = ("refuse", "answer", "unknown", "citations", "habits")
"""The suites that come with the package, by name."""


class WinrateConfig(Section):
    """Win rate of a model over a baseline from judged rows, and what it would be at equal lengths."""

    file: str
    """Rows with instruction, preference (1 the baseline's, 2 the model's), and output_1, output_2 or their lengths:
    .jsonl, .json (a list) or .parquet."""
    num_resamples: PositiveInt = 1000
    """Bootstrap resamples of instructions behind the length-controlled interval."""
    skip_bad: bool = False
    """Leave unusable rows out (they are counted and named) instead of stopping."""
    seed: int = Field(0, ge=0, lt=10**9)
    """Seed of the bootstrap and of the folds."""


class OveroptimizationConfig(Section):
    """Whether what was meant still rises while the proxy is optimised: curve, laws, peak, alarm."""

    file: str
    """Rows with prompt_id, proxy, gold (many samples a prompt), or with step, kl, proxy, gold and perhaps prompt_id (a
    training run): .jsonl, .json or .parquet. In gold stands the truth, or a held-out reward model's score."""
    num_resamples: PositiveInt = 1000
    """Bootstrap resamples of prompts behind the intervals."""
    skip_bad: bool = False
    """Leave unusable rows out (they are counted and named) instead of stopping."""
    seed: int = Field(0, ge=0, lt=10**9)
    """Seed of the bootstrap, and of which prompts are in which half."""


class BudgetConfig(Section):
    """A KL budget from short policy runs and held-out evidence, without the truth."""

    file: str | None = None
    """Rows with step, kl, proxy, held_out, and where known run and prompt_id: .jsonl, .json or .parquet."""
    runs: tuple[str, ...] = ()
    """Short runs of `train policy` with --eval-reward, in place of a file; they may differ in seed and settings."""
    skip_bad: bool = False
    """Leave unusable rows out (they are counted and named) instead of stopping."""

    @model_validator(mode="after")
    def _one_source(self) -> BudgetConfig:
        if (self.file is None) == (not self.runs):
            raise ValueError("give a file of rows, or --runs")
        if self.runs and self.skip_bad:
            raise ValueError("skip_bad has no effect on runs; leave it out")
        return self


class EndpointConfig(Section):
    """A judge model behind an OpenAI-compatible endpoint: --judge http://host:port/v1 with --endpoint.model NAME."""

    model: str | None = None
    """Its name there. Without one, an address is that of a reward server."""
    prompt: str | None = None
    """Text file with {prompt}, {first} and {second} to ask with; the answer must end in [[A]], [[B]] or [[C]] (a
    tie)."""
    max_tokens: PositiveInt = 1024
    """Longest answer in tokens."""
    token_env: str | None = None
    """Environment variable that holds the bearer token."""
    parallel: PositiveInt = 4
    """Questions that are asked at once."""
    timeout_seconds: PositiveFloat = 120.0
    """Longest wait: to connect, and for each part of an answer."""
    retries: NonNegativeInt = 5
    """How often it is asked again where it is away, too slow or failing, before the run stops (resumable)."""
    retry_seconds: PositiveFloat = 1.0
    """Wait before the first repetition; it doubles each time."""

    @model_validator(mode="after")
    def _needs_a_model(self) -> EndpointConfig:
        if self.model is None:
            for name, info in EndpointConfig.model_fields.items():
                if getattr(self, name) != info.default:
                    raise ValueError(f"{name} has no effect without model; leave it out")
        return self


class EvaluateRunConfig(Section):
    """Evidence about a model beside the one in use: who wins, what it keeps, where it fails."""

    model_config = ConfigDict(allow_inf_nan=False)

    candidate: str
    """The model that might be promoted: directory or run."""
    against: str
    """The model in use: directory or run."""
    prompts: str | None = None
    """Prompts that both answer and the judge compares; also read for repetition and length."""
    judge: tuple[str, ...] = ()
    """Who compares: reward models, file.py:function, or an address; several are scored as one, as by --reward."""
    endpoint: EndpointConfig = EndpointConfig()
    """A judge model behind an address."""
    texts: tuple[str, ...] = ()
    """Held-out text whose perplexity must not rise: .txt (paragraphs), or .jsonl with a text a row."""
    suites: tuple[str, ...] = SHIPPED
    """Suites of prompts with what is expected: refuse, answer, unknown, citations, habits, or JSON Lines files of
    your own."""
    max_new_tokens: PositiveInt = 256
    """Longest response in tokens."""
    temperature: NonNegativeFloat = 0.0
    """Sampling temperature; 0 takes the most likely token."""
    batch_size: PositiveInt = 256
    """Prompts decoded together; results do not depend on it."""
    token_budget: PositiveInt = 2048
    """Padded tokens of a micro-batch that is scored; results do not depend on it."""
    num_resamples: PositiveInt = 2000
    """Bootstrap resamples behind the intervals."""
    out: str | None = None
    """Run directory; the evidence is its evaluations.jsonl."""
    seed: int = Field(0, ge=0, lt=10**9)
    """Seed of sampling, bootstrap and folds."""
    skip_bad: bool = False
    """Leave unusable prompts out (they are counted and named) instead of stopping."""

    @model_validator(mode="after")
    def _something_to_measure(self) -> EvaluateRunConfig:
        if (self.prompts is None) != (not self.judge):
            raise ValueError("prompts and judge belong together: give both or neither")
        if self.endpoint.model is not None and not self.judge:
            raise ValueError("endpoint.model has no effect without judge; leave it out")
        if self.prompts is None and not self.texts and not self.suites:
            raise ValueError("nothing to measure: give suites, texts, or prompts with a judge")
        return self
