"""What a model under evaluation says: responses and surprises at texts, kept on disk so that they are made once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefloop.console import say
from prefloop.evaluate.config import EvaluateRunConfig
from prefloop.evaluate.texts import Surprise, surprises
from prefloop.models.load import load_policy
from prefloop.reward.scorer import Response
from prefloop.rollout.respond import plain_prompt, respond
from prefloop.rundir import write_rows
from prefloop.types import Prompt

Asked = Mapping[str, Sequence[Prompt]]
"""Name of a set -> its prompts."""
Texts = Mapping[str, Sequence[str]]
"""Name of a file -> its texts."""


@dataclass(frozen=True)
class Answers:
    """Everything one model was asked, by set and by file, in their order."""

    responses: Mapping[str, Sequence[Response]]
    surprises: Mapping[str, Sequence[Surprise]]

    @property
    def truncated_fraction(self) -> float:
        """Share of the responses that the length limit cut off; 0 without responses."""
        every = [response for each in self.responses.values() for response in each]
        return sum(not response.finished for response in every) / len(every) if every else 0.0


def answers_of(
    config: EvaluateRunConfig, directory: Path, field: str, *, asked: Asked, texts: Texts, folder: Path
) -> Answers:
    """The answers of the model in `directory`: those under `folder`, or made now and kept there."""
    responses, surprised = folder / f"{field}-responses.jsonl", folder / f"{field}-texts.jsonl"
    if not (responses.exists() and surprised.exists()):
        say(f"{field}: {sum(map(len, asked.values()))} prompts, {sum(map(len, texts.values()))} texts")
        folder.mkdir(exist_ok=True)
        model, chat = load_policy(directory, field=field)
        prompts = [prompt for each in asked.values() for prompt in each]
        sets = [name for name, each in asked.items() for _ in each]
        said = (
            respond(
                model,
                chat,
                prompts,
                max_new_tokens=config.max_new_tokens,
                temperature=config.temperature,
                seed=config.seed,
                batch_size=config.batch_size,
            )
            if prompts
            else []
        )
        write_rows(
            responses,
            [
                {
                    "set": name,
                    "prompt_id": prompt.prompt_id,
                    "prompt": plain_prompt(prompt.messages),
                    "response": response.text,
                    "finish_reason": response.finish_reason,
                }
                for name, prompt, response in zip(sets, prompts, said, strict=True)
            ],
        )
        write_rows(
            surprised,
            [
                {"file": name, "nats": each.nats, "tokens": each.tokens}
                for name, part in texts.items()
                for each in surprises(model, chat, part, token_budget=config.token_budget)
            ],
        )
    rows, read = _read(responses), _read(surprised)
    return Answers(
        {
            name: [Response(row["response"], row["finish_reason"] == "stop") for row in rows if row["set"] == name]
            for name in asked
        },
        {name: [Surprise(row["nats"], row["tokens"]) for row in read if row["file"] == name] for name in texts},
    )


def _read(path: Path) -> list[dict[str, Any]]:
    with path.open("rb") as file:
        return [json.loads(line) for line in file]
