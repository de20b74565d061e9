"""A reward model as a scorer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prefloop.models.batching import TokenBatch, collate, micro_batches, runs_of
from prefloop.models.chat import Chat, Encoded
from prefloop.models.forward import sequence_scores, shares_prompts
from prefloop.models.load import load_reward_model, max_positions, score_head
from prefloop.reward.scorer import Response, finite_scores
from prefloop.rundir import sha256_of
from prefloop.types import InputError, Prompt


class RewardModel:
    """A sequence classifier as a scorer. Scores are normalised by `reward_mean` and `reward_std` of its config."""

    def __init__(
        self, model: PreTrainedModel, chat: Chat, *, version: str, token_budget: int = 2048, path: Path | None = None
    ) -> None:
        self.model, self.chat, self.version, self.token_budget = model.eval(), chat, version, token_budget
        self.path = path
        self.temperature: float | None = model.config.reward_temperature
        self.max_tokens = max_positions(model)

    def encode(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> list[Encoded]:
        """The tokens that the model sees: a finished response ends with its stop token, as in training."""
        return [
            self.chat.encode_response(prompt.messages, response.text, finished=response.finished)
            for prompt, response in zip(prompts, responses, strict=True)
        ]

    def fits(self, prompt: Prompt, response: Response) -> bool:
        """Whether prompt and response are within the model's positions."""
        return self.max_tokens is None or len(self.encode([prompt], [response])[0].ids) <= self.max_tokens

    def _require_fit(self, prompts: Sequence[Prompt], rows: Sequence[Encoded]) -> None:
        for prompt, row in zip(prompts, rows, strict=True):
            if self.max_tokens is not None and len(row.ids) > self.max_tokens:
                raise InputError(
                    f"prompt {prompt.place or prompt.prompt_id} and its response have {len(row.ids)} tokens, more than "
                    f"the reward model's {self.max_tokens} positions",
                    path=self.path,
                    field="reward",
                    remedy="leave it out, or take a reward model with more positions",
                )

    @torch.no_grad()
    def raw_scores(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> list[float]:
        """Scores as plain transformers gives them."""
        scores = [0.0] * len(prompts)
        for index, batch in self._batches(prompts, responses):
            for row, score in zip(index, sequence_scores(self.model, batch).tolist(), strict=True):
                scores[row] = score
        return scores

    def _batches(
        self, prompts: Sequence[Prompt], responses: Sequence[Response]
    ) -> Iterator[tuple[list[int], TokenBatch]]:
        """Micro-batches, each with the places of its rows."""
        rows = self.encode(prompts, responses)
        self._require_fit(prompts, rows)
        shares = shares_prompts(self.model)
        for index in micro_batches(
            [len(row.ids) for row in rows],
            token_budget=self.token_budget,
            runs=runs_of(rows) if shares else None,
            prompt_lengths=[row.prompt_length for row in rows] if shares else None,
        ):
            yield index, collate([rows[row] for row in index], pad_id=self.chat.pad_id, device=self.model.device)

    @torch.no_grad()
    def states(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> Tensor:
        """[n, d] the last hidden states that the scalar head reads, on the CPU, in order."""
        seen: list[Tensor] = []
        places: list[int] = []
        head = score_head(self.model)
        hook = head.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach().double().cpu()))
        try:
            for index, batch in self._batches(prompts, responses):
                sequence_scores(self.model, batch)
                places += index
        finally:
            hook.remove()
        return torch.cat(seen)[torch.tensor(places).argsort()]

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> list[float]:
        """Normalised scores. Raises InputError if the model gives one that is no number."""
        mean, std = self.model.config.reward_mean, self.model.config.reward_std
        scores = [(score - mean) / std for score in self.raw_scores(prompts, responses)]
        return finite_scores(scores, prompts, path=self.path, remedy="train this reward model again")

    def score_with_spread(
        self, prompts: Sequence[Prompt], responses: Sequence[Response]
    ) -> tuple[list[float], list[float] | None]:
        """Scores, and no spread: one model cannot disagree with itself."""
        return self.score(prompts, responses), None


def load_model_scorer(directory: Path, *, device: torch.device, token_budget: int) -> RewardModel:
    """The reward model in `directory`, which scores in batches of `token_budget` tokens."""
    model, chat = load_reward_model(directory, device=device)
    return RewardModel(model, chat, version=sha256_of(directory)[:12], token_budget=token_budget, path=directory)
