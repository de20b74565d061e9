"""Prompts in, text responses out; and the command `sample`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedModel

from prefloop.data.read import read_prompts
from prefloop.models.chat import Chat
from prefloop.models.load import load_policy, max_positions
from prefloop.rollout.config import SampleConfig
from prefloop.rollout.engine import sample
from prefloop.rundir import atomic_file, resolve_model
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
    encoded = [chat.encode_prompt(prompt.messages) for prompt in prompts]
    limit = max_positions(model)
    for prompt, ids in zip(prompts, encoded, strict=True):
        if limit is not None and len(ids) + max_new_tokens > limit:
            raise InputError(
                f"prompt {prompt.prompt_id} has {len(ids)} tokens; with {max_new_tokens} new ones it exceeds the "
                f"model's {limit} positions",
                field="max_new_tokens",
            )
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


def plain_prompt(messages: Messages) -> str | list[dict[str, str]]:
    """A single user turn as a string, anything else as a list of messages."""
    if len(messages) == 1 and messages[0].role == "user":
        return messages[0].content
    return [{"role": message.role, "content": message.content} for message in messages]


def run(config: SampleConfig) -> dict[str, Any]:
    """The command `sample`: writes the responses atomically and answers how many."""
    model, chat = load_policy(resolve_model(config.model, "model"))
    prompts = read_prompts([config.prompts], skip_bad=config.skip_bad).records[: config.limit]
    repeated = [prompt for prompt in prompts for _ in range(config.num_samples)]
    responses = respond(
        model,
        chat,
        repeated,
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        seed=config.seed,
        batch_size=config.batch_size,
    )
    target = Path(config.out)
    if not target.parent.is_dir():
        raise InputError("no such directory", path=target.parent, field="out")
    with atomic_file(target) as file:
        for prompt, response in zip(repeated, responses, strict=True):
            row = {
                "prompt_id": prompt.prompt_id,
                "prompt": plain_prompt(prompt.messages),
                "response": response.text,
                "finish_reason": response.finish_reason,
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    truncated = sum(response.finish_reason == "length" for response in responses) / len(responses)
    return {"out": str(target), "num_responses": len(responses), "truncated_fraction": truncated}
