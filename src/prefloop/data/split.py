"""Which side of a split a prompt is on: a function of the prompt's id and the seed alone.

So no prompt is on two sides, and a row's side depends neither on the order of the file nor on the other rows. The
shares are therefore met on average, not exactly.
"""

from __future__ import annotations

import hashlib
from typing import Literal

from prefloop.data.dialogue import prompt_id_of
from prefloop.types import Demonstration, LabelledResponse, PreferencePair, Prompt

Record = PreferencePair | Demonstration | LabelledResponse | Prompt
Side = Literal["train", "eval"]

_RESOLUTION = 2**64


def split_of(prompt_id: str, *, eval_fraction: float, seed: int) -> Side:
    """ "eval" for the share `eval_fraction` of all prompts, else "train". The eval side of a smaller share is part of
    that of a larger one."""
    assert 0 <= eval_fraction <= 1, "a share"
    return "eval" if _uniform(f"split:{seed}:{prompt_id}") < eval_fraction * _RESOLUTION else "train"


def fold_of(prompt_id: str, *, num_folds: int, seed: int) -> int:
    """The fold 0 ... num_folds - 1 of a prompt, independent of `split_of` at the same seed."""
    assert num_folds >= 1, "at least one fold"
    return _uniform(f"fold:{seed}:{prompt_id}") * num_folds // _RESOLUTION


def prompt_key(record: Record) -> str:
    """The id of the prompt that decides the side of a record.

    For a demonstration given as a whole dialogue: that of the turns before the assistant's first.
    """
    match record:
        case Prompt():
            return record.prompt_id
        case Demonstration():
            opening = record.prompt
            for message in () if opening else record.completion:
                if message.role == "assistant":
                    break
                opening = (*opening, message)
            return prompt_id_of(opening)
        case _:
            return record.prompt.prompt_id


def _uniform(text: str) -> int:
    """A uniform number in 0 ... 2^64 - 1."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big")
