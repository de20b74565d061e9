"""One round of the on-policy loop: sample, score, compare with the reference, shape rewards; its metrics."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from prefloop.console import say
from prefloop.functional.advantages import flat_groups, shape_rewards
from prefloop.functional.batch import RolloutBatch
from prefloop.functional.kl import k1
from prefloop.functional.masked import masked_mean
from prefloop.models.batching import TokenBatch, collate, micro_batches
from prefloop.models.chat import Chat, Encoded
from prefloop.models.forward import compare_to_reference, logprobs_and_values, shares_prompts, token_values
from prefloop.models.lora import adapters_off, merged
from prefloop.reward.remote import prompt_text
from prefloop.reward.scorer import Response, Scorer
from prefloop.reward.shaping import shape_scores
from prefloop.rollout.engine import keeps_hidden, sample
from prefloop.rollout.respond import respond
from prefloop.rollout.steps import Sampled
from prefloop.train.algorithms import Algorithm
from prefloop.train.config import PolicyConfig
from prefloop.train.examiner import Examined
from prefloop.train.loop import TrainState, stream_of_step
from prefloop.types import Prompt, Rollout


@dataclass(eq=False)
class Players:
    """The models of one run."""

    policy: PreTrainedModel
    reference: PreTrainedModel
    """The policy itself stands for what it is without its adapters."""
    value: PreTrainedModel | nn.Linear | None
    """A model of its own, or a head on the policy's trunk."""
    scorer: Scorer
    chat: Chat


@dataclass(frozen=True, eq=False)
class Round:
    """One round of rollouts with what is logged about it."""

    batch: RolloutBatch
    prompts: list[Prompt]
    texts: list[str]
    finished: list[bool]
    raw: list[float]
    """What the scorer said."""
    spreads: list[float | None]
    full_kl: Tensor
    """[B] exact sequence KL of each response, in nats."""
    metrics: dict[str, float]


@dataclass(frozen=True)
class Seen:
    """What an observer of a run says after a round."""

    metrics: Mapping[str, float]
    """To be logged with the step."""
    rewind: int | None = None
    """End the run; its result is the newest checkpoint before this step."""


Observe = Callable[[Path, int], Seen]
"""Told after each round, before the update, where its responses were added and the number of the step."""


@dataclass(frozen=True)
class Drawn:
    """Sampled and scored responses, the ones to a prompt adjacent."""

    prompts: list[Prompt]
    encoded: list[list[int]]
    """Tokens of the prompts."""
    sampled: list[Sampled]
    texts: list[str]
    raw: list[float]
    """What the scorer said."""
    spreads: list[float | None]
    """Disagreement of an ensemble."""
    scores: list[float]
    """Shaped scores."""

    @property
    def finished(self) -> list[bool]:
        return [row.finish_reason == "stop" for row in self.sampled]

    def rows(self, index: Sequence[int]) -> Drawn:
        """Some of them."""
        columns = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return Drawn(**{name: [column[row] for row in index] for name, column in columns.items()})

    def __add__(self, other: Drawn) -> Drawn:
        columns = [field.name for field in dataclasses.fields(self)]
        return Drawn(**{name: getattr(self, name) + getattr(other, name) for name in columns})


class Collector:
    """Makes the rounds of a run: its prompts, its models, its settings."""

    def __init__(
        self,
        config: PolicyConfig,
        algorithm: Algorithm,
        players: Players,
        prompts: Sequence[Prompt],
        encoded: Sequence[list[int]],
    ) -> None:
        self.config, self.algorithm, self.players = config, algorithm, players
        self.prompts, self.encoded = prompts, encoded
        self.warned = False
        tokens = config.prompts_per_step * algorithm.group_size * config.max_new_tokens
        self.keeps_hidden = keeps_hidden(players.policy, tokens)
        """Whether the policy's own pass over a round is left out: the sampler has done it."""

    def collect(self, state: TrainState) -> Round:
        """Sample responses to the prompts of this step, score them, compare them to the reference, shape rewards."""
        config, size = self.config, self.algorithm.group_size
        index = stream_of_step(state.step, num_rows=len(self.prompts), size=config.prompts_per_step, seed=config.seed)
        drawn = self._draw(index, seed=config.seed * 1_000_003 + state.step)
        metrics = {"tokens/generated": _num_tokens(drawn)}
        if size > 1:
            flat = flat_groups(torch.tensor(drawn.scores), group_size=size)
            metrics["group/flat_fraction"] = float(flat.float().mean())
            if bool(flat.all()) and not self.warned:
                say(f"warning: in step {state.step + 1} no group has scores that differ: nothing to learn from")
                self.warned = True
        if self.algorithm.resamples():
            drawn = self._replace_flat_groups(drawn, state.step, metrics)
        return self._assemble(state, drawn, metrics)

    def _draw(self, index: Sequence[int], *, seed: int) -> Drawn:
        """`group_size` scored responses to each of the prompts `index`."""
        config, players = self.config, self.players
        rows = [row for row in index for _ in range(self.algorithm.group_size)]
        prompts, encoded = [self.prompts[row] for row in rows], [self.encoded[row] for row in rows]
        with merged(players.policy):
            sampled = sample(
                players.policy,
                encoded,
                max_new_tokens=config.max_new_tokens,
                temperature=config.temperature,
                stop_ids=players.chat.stop_ids,
                pad_id=players.chat.pad_id,
                seed=seed,
                keep_hidden=self.keeps_hidden,
            )
        texts = [players.chat.decode(row.ids) for row in sampled]
        finished = [row.finish_reason == "stop" for row in sampled]
        raw, spread = players.scorer.score_with_spread(
            prompts, [Response(*each) for each in zip(texts, finished, strict=True)]
        )
        scores = shape_scores(
            torch.tensor(raw),
            config=config.shaping,
            finished=torch.tensor(finished),
            lengths=torch.tensor([len(row.ids) for row in sampled]),
            max_new_tokens=config.max_new_tokens,
            reference_scores=self._reference_scores(index, seed=seed) if config.shaping.relative_to_reference else None,
        )
        spreads: list[float | None] = [None] * len(raw) if spread is None else list(spread)
        return Drawn(prompts, encoded, sampled, texts, raw, spreads, scores.tolist())

    def _reference_scores(self, index: Sequence[int], *, seed: int) -> Tensor:
        """[len(index) x group_size, num_reference_samples] raw scores of the reference's own responses; those to one
        prompt serve its whole group."""
        config, players = self.config, self.players
        number = config.shaping.num_reference_samples
        prompts = [self.prompts[row] for row in index for _ in range(number)]
        with adapters_off(players.policy) if players.reference is players.policy else contextlib.nullcontext():
            responses = respond(
                players.reference,
                players.chat,
                prompts,
                max_new_tokens=config.max_new_tokens,
                temperature=config.temperature,
                seed=_seed(seed, number),
            )
        answers = [Response(each.text, each.finish_reason == "stop") for each in responses]
        scores = players.scorer.score(prompts, answers)
        return torch.tensor(scores).view(-1, number).repeat_interleave(self.algorithm.group_size, dim=0)

    def _replace_flat_groups(self, drawn: Drawn, step: int, metrics: dict[str, float]) -> Drawn:
        """Dynamic sampling: groups without spread give way to groups of further prompts, as far as such are found."""
        size, wanted = self.algorithm.group_size, len(drawn.texts)
        kept = _with_spread(drawn, size)
        attempts = 0
        while len(kept.texts) < wanted and attempts < self.algorithm.resamples():
            attempts += 1
            order = np.random.default_rng([self.config.seed, step, attempts]).permutation(len(self.prompts))
            more = self._draw(
                [int(row) for row in order[: (wanted - len(kept.texts)) // size]],
                seed=_seed(self.config.seed, step, attempts),
            )
            metrics["tokens/generated"] += _num_tokens(more)
            kept += _with_spread(more, size)
        metrics["group/resamples"] = attempts
        return kept if kept.texts else drawn

    def _assemble(self, state: TrainState, drawn: Drawn, metrics: dict[str, float]) -> Round:
        config, chat = self.config, self.players.chat
        rows = [
            Encoded(prompt + row.ids, [False] * len(prompt) + [True] * len(row.ids))
            for prompt, row in zip(drawn.encoded, drawn.sampled, strict=True)
        ]
        tokens = collate(rows, pad_id=chat.pad_id, device=self.players.policy.device)
        mask = tokens.response_mask
        sampler_logprobs = torch.zeros(mask.shape, device=mask.device)
        sampler_logprobs[mask] = torch.tensor(
            [value for row in drawn.sampled for value in row.logprobs], device=mask.device
        )
        hidden = [row.hidden for row in drawn.sampled if row.hidden is not None]
        old, reference, full, entropies, values = self._passes(tokens, hidden)
        estimate = k1(old, reference)
        scores = torch.tensor(drawn.scores, device=mask.device)
        in_reward = state.kl_coef if config.kl_penalty == "reward" else 0.0
        batch = RolloutBatch(
            input_ids=tokens.input_ids,
            lengths=tokens.lengths,
            response_mask=mask,
            sampler_logprobs=sampler_logprobs,
            old_logprobs=old,
            ref_logprobs=reference,
            scores=scores,
            rewards=shape_rewards(scores, estimate, mask, kl_coef=in_reward),
            group=torch.arange(len(rows), device=mask.device) // self.algorithm.group_size,
            values=values,
        )
        raw = torch.tensor(drawn.raw)
        finished = drawn.finished
        metrics |= {
            "score/mean": float(raw.mean()),
            "score/std": float(raw.std(correction=0)),
            "score/clipped_fraction": float((raw.abs() > config.shaping.score_clip).float().mean()),
            "reward/mean": float(batch.rewards.sum(1).mean()),
            "kl/sequence": float(estimate.sum(1).mean()),
            "kl/token": float(masked_mean(estimate, mask)),
            "kl/full": float(full.sum(1).mean()),
            "kl/coef": state.kl_coef,
            "policy/entropy": float(masked_mean(entropies, mask)),
            "response/length": float(mask.sum(1).float().mean()),
            "response/truncated_fraction": 1 - sum(finished) / len(finished),
        }
        spreads = [spread for spread in drawn.spreads if spread is not None]
        if spreads:
            metrics["score/spread"] = fmean(spreads)
        return Round(batch, drawn.prompts, drawn.texts, finished, drawn.raw, drawn.spreads, full.sum(1), metrics)

    @torch.no_grad()
    def _passes(
        self, tokens: TokenBatch, hidden: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
        """Policy and reference logprobs, exact KL, entropy and values, each [B, T], in micro-batches; with the last
        hidden states of each response, or none."""
        players, temperature = self.players, self.config.temperature
        columns = [torch.zeros(tokens.response_mask.shape, device=tokens.input_ids.device) for _ in range(5)]
        for members in grouped_batches(
            tokens.lengths,
            tokens.response_mask,
            group_size=self.algorithm.group_size,
            token_budget=self.config.token_budget,
            shares=shares_prompts(players.policy),
        ):
            index = torch.tensor(members, device=tokens.input_ids.device)
            part = tokens.rows(index)
            known = torch.cat([hidden[row] for row in members]) if hidden else None
            found = list(
                compare_to_reference(players.policy, players.reference, part, temperature=temperature, hidden=known)
            )
            if isinstance(players.value, nn.Linear):
                found.append(logprobs_and_values(players.policy, players.value, part, temperature=temperature)[1])
            elif players.value is not None:
                found.append(token_values(players.value, part))
            for column, values in zip(columns, found, strict=False):
                column[index, : values.shape[1]] = values
        old, reference, full, entropies, values = columns
        return old, reference, full, entropies, values if players.value is not None else None

    def record(self, state: TrainState, rollouts: Round, examined: Examined, path: Path) -> None:
        """Append the first responses of the round, which were examined, to `path`."""
        path.parent.mkdir(exist_ok=True)
        kl = (rollouts.batch.old_logprobs - rollouts.batch.ref_logprobs).sum(1).tolist()
        scores = rollouts.batch.scores.tolist()
        with path.open("a", encoding="utf-8") as file:
            for row in range(len(examined.held_out)):
                prompt = rollouts.prompts[row]
                record = Rollout(
                    rollout_id=f"{state.step:06d}-{row:04d}",
                    prompt_id=prompt.prompt_id,
                    prompt=prompt_text(prompt),
                    group=int(rollouts.batch.group[row]),
                    response=rollouts.texts[row],
                    score=scores[row],
                    score_spread=rollouts.spreads[row],
                    kl=kl[row],
                    finish_reason="stop" if rollouts.finished[row] else "length",
                    policy_version=f"step-{state.step:06d}",
                    reward_version=self.players.scorer.version,
                    step=state.step + 1,
                    raw_score=rollouts.raw[row],
                    shuffled_score=examined.shuffled[row],
                    out_of_distribution=examined.far[row],
                    held_out_score=examined.held_out[row],
                )
                file.write(json.dumps(dataclasses.asdict(record), ensure_ascii=False) + "\n")


def grouped_batches(
    lengths: Tensor,
    response_mask: Tensor,
    *,
    group_size: int,
    token_budget: int,
    shares: bool,
    keep_groups: bool = False,
) -> list[list[int]]:
    """Micro-batches of the rows of a round; where a model `shares` prompts, a group's responses stay together."""
    together = shares or keep_groups
    return micro_batches(
        lengths.tolist(),
        token_budget=token_budget,
        runs=torch.arange(len(lengths)).view(-1, group_size).tolist() if together else None,
        prompt_lengths=response_mask.int().argmax(1).tolist() if shares else None,
        keep_runs=keep_groups,
    )


def _num_tokens(drawn: Drawn) -> float:
    return float(sum(len(row.ids) for row in drawn.sampled))


def _with_spread(drawn: Drawn, group_size: int) -> Drawn:
    """The groups whose scores differ."""
    flat = flat_groups(torch.tensor(drawn.scores), group_size=group_size).tolist()
    return drawn.rows([row for row in range(len(drawn.texts)) if not flat[row // group_size]])


def _seed(*parts: int) -> int:
    """A sampling seed of its own for each tuple of numbers."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:6], "big")
