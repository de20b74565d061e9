"""Prompts in, text responses out; and the command `sample`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from transformers import PreTrainedModel

from prefloop.console import say
from prefloop.data.read import read_prompts
from prefloop.models.chat import Chat
from prefloop.models.load import load_policy, max_positions
from prefloop.reward.scorer import Response
from prefloop.reward.scoring import load_scorer
from prefloop.rollout.config import SampleConfig
from prefloop.rollout.engine import sample
from prefloop.rundir import output_file, resolve_model, write_rows
from prefloop.types import InputError, Messages, Prompt


@dataclass(frozen=True)
class TextResponse:
    """A sampled response as text."""

    text: str
    finish_reason: Literal["stop", "length"]


def respond(
    model: PreTrainedModel,
    chat: Chat,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    batch_size: int = 256,
) -> list[TextResponse]:
    """One response to each prompt, in order. Raises InputError for a prompt that does not fit the model's context."""
    encoded = [_encode(chat, prompt) for prompt in prompts]
    for prompt, ids in zip(prompts, encoded, strict=True):
        problem = does_not_fit(model, prompt, ids, max_new_tokens)
        if problem is not None:
            raise InputError(problem, field="max_new_tokens", remedy="lower it, or shorten the prompt")
    sampled = sample(
        model,
        encoded,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        stop_ids=chat.stop_ids,
        pad_id=chat.pad_id,
        seed=seed,
        batch_size=batch_size,
    )
    return [TextResponse(chat.decode(row.ids), row.finish_reason) for row in sampled]


def _encode(chat: Chat, prompt: Prompt) -> list[int]:
    """The tokens of a prompt. Raises InputError that says where it stands if the chat template refuses it."""
    try:
        return chat.encode_prompt(prompt.messages)
    except InputError as error:
        raise InputError(error.problem, path=prompt.place or None, remedy=error.remedy) from error


def does_not_fit(model: PreTrainedModel, prompt: Prompt, ids: Sequence[int], max_new_tokens: int) -> str | None:
    """What is wrong if the model's positions end before the longest response to `prompt` (its tokens `ids`) does."""
    limit = max_positions(model)
    if limit is None or len(ids) + max_new_tokens <= limit:
        return None
    return (
        f"prompt {prompt.place or prompt.prompt_id} has {len(ids)} tokens; with {max_new_tokens} new ones "
        f"it exceeds the model's {limit} positions"
    )


def fitting_prompts(model: PreTrainedModel, chat: Chat, prompts: Sequence[Prompt], max_new_tokens: int) -> list[Prompt]:
    """The prompts that fit the model's context; the others are named. Raises InputError if none does."""
    problems = {
        index: does_not_fit(model, prompt, _encode(chat, prompt), max_new_tokens)
        for index, prompt in enumerate(prompts)
    }
    too_long = [problem for problem in problems.values() if problem is not None]
    if too_long:
        say(f"left out {len(too_long)} of {len(prompts)} prompts: {'; '.join(too_long[:3])}")
    if len(too_long) == len(prompts):
        raise InputError(f"none of the {len(prompts)} prompts fits", field="max_new_tokens", remedy="lower it")
    return [prompt for index, prompt in enumerate(prompts) if problems[index] is None]


def plain_prompt(messages: Messages) -> str | list[dict[str, str]]:
    """A single user turn as a string, anything else as a list of messages."""
    if len(messages) == 1 and messages[0].role == "user":
        return messages[0].content
    return [{"role": message.role, "content": message.content} for message in messages]


def run(config: SampleConfig) -> dict[str, Any]:
    """The command `sample`: writes the responses atomically and answers how many."""
    target = output_file(config.out)
    model, chat = load_policy(resolve_model(config.model, "model"))
    scorer = load_scorer(config.reward, device=model.device) if config.reward else None
    prompts = read_prompts([config.prompts], skip_bad=config.skip_bad).records[: config.limit]
    if config.skip_bad:
        prompts = fitting_prompts(model, chat, prompts, config.max_new_tokens)
    repeated = [prompt for prompt in prompts for _ in range(config.num_samples * (config.best_of or 1))]
    responses = respond(
        model,
        chat,
        repeated,
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        seed=config.seed,
        batch_size=config.batch_size,
    )
    rows: list[dict[str, Any]] = [
        {
            "prompt_id": prompt.prompt_id,
            "prompt": plain_prompt(prompt.messages),
            "response": response.text,
            "finish_reason": response.finish_reason,
        }
        for prompt, response in zip(repeated, responses, strict=True)
    ]
    if scorer is not None and config.best_of is not None:
        answers = [Response(each.text, each.finish_reason == "stop") for each in responses]
        scores = scorer.score(repeated, answers)
        rows = [
            {**rows[best], "score": scores[best], "best_of": config.best_of} for best in best_of(scores, config.best_of)
        ]
    write_rows(target, rows)
    truncated = sum(row["finish_reason"] == "length" for row in rows) / len(rows)
    answer = {"out": str(target), "num_responses": len(rows), "truncated_fraction": truncated}
    return answer if scorer is None else {**answer, "mean_score": fmean(row["score"] for row in rows)}


def best_of(scores: Sequence[float], group_size: int) -> list[int]:
    """The place of the highest score in each run of `group_size`, the first of equals."""
    starts = range(0, len(scores), group_size)
    return [max(range(start, start + group_size), key=lambda place: (scores[place], -place)) for start in starts]
