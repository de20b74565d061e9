"""Start-up checks: what a run's first round shows at once if sampler, trainer and scorer do not agree.

Each check is a measurement with a limit, and names what is likely wrong where it fails. They cost a few short forward
passes. `prefloop doctor --model DIR` runs them on a model before anything is trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prefloop.console import say
from prefloop.functional.masked import masked_mean, zero_outside
from prefloop.models.batching import TokenBatch, collate
from prefloop.models.chat import Chat, Encoded
from prefloop.models.forward import compare_to_reference, head_scores, response_logprobs
from prefloop.models.load import default_device
from prefloop.models.lora import nudged
from prefloop.models.precision import compute_dtype
from prefloop.reward.model import RewardModel
from prefloop.reward.scorer import Response, Scorer
from prefloop.reward.scoring import reward_models
from prefloop.train.config import PolicyConfig
from prefloop.train.rollouts import Players, Round
from prefloop.types import InputError, Prompt

SAMPLER_GAP_LIMIT = 1e-4
"""Largest mean |log p(sampler) - log p(trainer)| of the first round, fp32. A correct one is near 4e-7."""
START_KL_LIMIT = 1e-5
"""Largest mean |log ratio| per token of the first round where policy and reference are the same weights."""
RATIO_LIMIT = 1e-6
"""Largest |pi / pi - 1| between two passes of the same path."""
PADDING_LIMIT = 1e-4
"""Largest difference in a log-probability or a normalised score that padding may make, fp32."""
NUM_ROWS = 4
"""Rows that are run again."""
EXTRA_PADDING = 13
BF16_LIMIT = 0.1
"""What stands for the fp32 limits of sampler and padding in bf16, where a logprob near -8 has a resolution of 0.03."""


@dataclass(frozen=True)
class Measured:
    """One start-up check: what was measured, and what is likely wrong if it is above the limit."""

    name: str
    observed: float
    limit: float
    says: str
    """What the number is."""
    cause: str
    field: str = "model"

    @property
    def passed(self) -> bool:
        """Whether the number is inside the limit; one that is no number is not."""
        return self.observed <= self.limit

    def require(self) -> None:
        """Raise InputError, naming the likely cause, unless passed."""
        if not self.passed:
            cause = "weights that are not finite" if math.isnan(self.observed) else self.cause
            raise InputError(
                f"start-up check {self.name}: {self.says} {self.observed:.2g} (limit {self.limit:.0e})",
                field=self.field,
                remedy=f"likely {cause}",
            )


def _limit(in_full: float, device: torch.device) -> float:
    """A limit for what the context computes in: `in_full` in fp32."""
    return in_full if compute_dtype(device) == torch.float32 else BF16_LIMIT


def check_first_round(players: Players, rollouts: Round, config: PolicyConfig, *, same_start: bool) -> bool:
    """Check a run's first round; `same_start`: policy and reference are the same weights.

    Answers whether the sampler's gap asks for importance weights. Raises InputError for the first check that fails.
    """
    batch, chat = rollouts.batch, players.chat
    tokens = TokenBatch(batch.input_ids, batch.lengths, batch.response_mask)
    few = tokens.rows(torch.arange(min(NUM_ROWS, len(batch.lengths)), device=batch.lengths.device))
    pad_token(players.policy, chat).require()
    ratio(players.policy, few, temperature=config.temperature).require()
    padding(players.policy, chat, few, temperature=config.temperature).require()
    width = few.input_ids.shape[1]
    logprobs = response_logprobs(players.policy, few, temperature=config.temperature).detach()
    gap = sampler_gap(batch.sampler_logprobs[: len(few.lengths), :width], logprobs, few.response_mask)
    gap.require()
    if players.reference is players.policy:
        adapters(players.policy, few, temperature=config.temperature).require()
    if same_start:
        start_kl(batch.old_logprobs, batch.ref_logprobs, batch.response_mask).require()
    responses = [Response(*each) for each in zip(rollouts.texts, rollouts.finished, strict=True)]
    for measured in scorer_checks(players.scorer, rollouts.prompts[:NUM_ROWS], responses[:NUM_ROWS]):
        measured.require()
    if gap.observed > SAMPLER_GAP_LIMIT / 2:
        say(f"warning: sampler and trainer differ by {gap.observed:.2g} per token: advantages get importance weights")
        return True
    return False


def pad_token(model: PreTrainedModel, chat: Chat, field: str = "model") -> Measured:
    """Whether the pad token is one of its own: no stop token, inside the vocabulary, the one that the config names."""
    wrong = (
        chat.pad_id in chat.stop_ids
        or chat.pad_id >= model.config.vocab_size
        or model.config.pad_token_id != chat.pad_id
    )
    return Measured(
        "pad_token",
        float(wrong),
        0.0,
        f"pad token {chat.pad_id}, in the config {model.config.pad_token_id}: faults",
        "a pad token that is also a stop token, or another one than the model's config names",
        field,
    )


def ratio(model: PreTrainedModel, tokens: TokenBatch, *, temperature: float) -> Measured:
    """Two passes of the trainer over the same rows."""
    first, second = (response_logprobs(model, tokens, temperature=temperature).detach() for _ in range(2))
    return Measured(
        "ratio",
        float((zero_outside(first - second, tokens.response_mask).exp() - 1).abs().max()),
        RATIO_LIMIT,
        "the ratio of two passes over the same tokens is off 1 by",
        "dropout left on",
    )


@torch.no_grad()
def padding(model: PreTrainedModel, chat: Chat, tokens: TokenBatch, *, temperature: float) -> Measured:
    """Rows as they stand in the batch, with more padding, and each alone."""
    mask = tokens.response_mask
    wide_ids = torch.nn.functional.pad(tokens.input_ids, (0, EXTRA_PADDING), value=chat.pad_id)
    wide = TokenBatch(wide_ids, tokens.lengths, torch.nn.functional.pad(mask, (0, EXTRA_PADDING)))
    padded = response_logprobs(model, wide, temperature=temperature)
    largest = 0.0
    for row in range(len(tokens.lengths)):
        alone = tokens.rows(torch.tensor([row], device=mask.device))
        found = response_logprobs(model, alone, temperature=temperature)
        width = found.shape[1]
        largest = max(largest, float((padded[row : row + 1, :width] - found).abs().max()))
    return Measured(
        "padding",
        largest,
        _limit(PADDING_LIMIT, tokens.input_ids.device),
        "padding changes a log-probability by",
        "a model that attends to padding, or counts positions from it",
    )


def sampler_gap(sampler_logprobs: Tensor, logprobs: Tensor, response_mask: Tensor) -> Measured:
    """Log-probabilities as the sampler drew, against the trainer's."""
    return Measured(
        "sampler",
        float(masked_mean((sampler_logprobs - logprobs).abs(), response_mask)),
        _limit(SAMPLER_GAP_LIMIT, logprobs.device),
        "sampler and trainer log-probabilities differ per token by",
        "a temperature that one of the two forgot, position ids that the sampler leaves out, dropout left on, "
        "or a cached forward that differs from the full one",
    )


def start_kl(logprobs: Tensor, ref_logprobs: Tensor, response_mask: Tensor) -> Measured:
    """Policy against reference where both are the same weights."""
    return Measured(
        "start_kl",
        float(masked_mean((logprobs - ref_logprobs).abs(), response_mask)),
        START_KL_LIMIT,
        "policy and reference are the same weights, and yet differ per token by",
        "adapters swapped or not switched off for the reference, weights that were not loaded, or dropout left on",
        "reference",
    )


def adapters(model: PreTrainedModel, tokens: TokenBatch, *, temperature: float) -> Measured:
    """Whether the reference is the model without its adapters: adapters that change must move the policy alone."""
    policy, reference, *_ = compare_to_reference(model, model, tokens, temperature=temperature)
    with nudged(model):
        moved_policy, moved_reference, *_ = compare_to_reference(model, model, tokens, temperature=temperature)
    swapped = torch.equal(moved_policy, policy)
    return Measured(
        "adapters",
        float((moved_reference - reference).abs().max()) if not swapped else float("inf"),
        0.0,
        "a change of the adapters moves a log-probability of the reference by",
        "adapters swapped, or not switched off for the reference",
        "reference",
    )


def scorer_checks(scorer: Scorer, prompts: Sequence[Prompt], responses: Sequence[Response]) -> list[Measured]:
    """What a reward model sees and whether padding changes its scores; nothing for scorers of other kinds."""
    return [measured for model in reward_models(scorer) for measured in _model_checks(model, prompts, responses)]


def _model_checks(model: RewardModel, prompts: Sequence[Prompt], responses: Sequence[Response]) -> list[Measured]:
    def score(index: Sequence[int]) -> list[float]:
        return model.score([prompts[row] for row in index], [responses[row] for row in index])

    finished = [response.finished for response in responses]
    return [
        pad_token(model.model, model.chat, "reward"),
        end_of_response(model.encode(prompts, responses), model.chat, finished),
        score_padding(score, len(responses)),
    ]


def end_of_response(rows: Sequence[Encoded], chat: Chat, finished: Sequence[bool]) -> Measured:
    """How many finished responses reach the reward model without the stop token."""
    missing = sum(done and row.ids[-1] not in chat.stop_ids for row, done in zip(rows, finished, strict=True))
    return Measured(
        "end_of_response",
        float(missing),
        0.0,
        "finished responses that reach the reward model without their stop token:",
        "a stop token that is cut off before scoring, or a chat template that ends turns in another way",
        "reward",
    )


def score_padding(score: Callable[[Sequence[int]], list[float]], number: int) -> Measured:
    """Scores of rows that stand together against those of each alone; `score` takes the places of rows."""
    together = score(range(number))
    alone = [score([row])[0] for row in range(number)]
    return Measured(
        "score_padding",
        max(abs(a - b) for a, b in zip(together, alone, strict=True)),
        _limit(PADDING_LIMIT, default_device()),
        "padding changes a score by",
        "a reward model that reads its score at a pad token, or attends to padding",
        "reward",
    )


def check_rows(model: PreTrainedModel, chat: Chat, rows: Sequence[Encoded]) -> None:
    """Check a policy on the first rows of a data set. Raises InputError for the first check that fails."""
    tokens = collate(rows[:NUM_ROWS], pad_id=chat.pad_id, device=model.device)
    pad_token(model, chat).require()
    ratio(model, tokens, temperature=1.0).require()
    padding(model, chat, tokens, temperature=1.0).require()


def check_scored_rows(model: PreTrainedModel, chat: Chat, rows: Sequence[Encoded]) -> None:
    """Check a reward model on the first rows of a data set. Raises InputError for the first check that fails."""
    few = rows[:NUM_ROWS]

    @torch.no_grad()
    def score(index: Sequence[int]) -> list[float]:
        batch = collate([few[row] for row in index], pad_id=chat.pad_id, device=model.device)
        return list(head_scores(model, batch)[:, 0].tolist())

    pad_token(model, chat).require()
    end_of_response(few, chat, [True] * len(few)).require()
    score_padding(score, len(few)).require()


@torch.no_grad()
def check_reference_sums(model: PreTrainedModel, chat: Chat, rows: Sequence[Encoded], ref_sums: Tensor) -> None:
    """Check, where policy and reference are the same weights, that the reference's stored sums [N] are the policy's.

    Raises InputError if they are not.
    """
    tokens = collate(rows[:NUM_ROWS], pad_id=chat.pad_id, device=model.device)
    sums = response_logprobs(model, tokens).sum(1)
    lengths = tokens.response_mask.sum(1).clamp(min=1)
    gap = ((sums - ref_sums[: len(sums)]) / lengths).unsqueeze(1)
    start_kl(gap, torch.zeros_like(gap), torch.ones_like(gap, dtype=torch.bool)).require()
