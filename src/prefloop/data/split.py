"""Which side of a split a record is on: a function of how its conversation opens and of the seed alone.

So no prompt is on two sides, nor are two turns of one conversation (a later prompt contains the earlier one and an
answer to it), and a row's side depends neither on the order of the file nor on the other rows. The shares are
therefore met on average, not exactly.
"""

from __future__ import annotations

import hashlib
from typing import Literal

from prefloop.data.dialogue import prompt_id_of
from prefloop.types import Demonstration, LabelledResponse, Messages, PreferencePair, Prompt

Record = PreferencePair | Demonstration | LabelledResponse | Prompt
Side = Literal["train", "eval"]

_RESOLUTION = 2**64


def split_of(key: str, *, eval_fraction: float, seed: int) -> Side:
    """ "eval" for the share `eval_fraction` of all keys (`conversation_key`), else "train". The eval side of a smaller
    share is part of that of a larger one."""
    assert 0 <= eval_fraction <= 1, "a share"
    return "eval" if _uniform(f"split:{seed}:{key}") < eval_fraction * _RESOLUTION else "train"


def fold_of(key: str, *, num_folds: int, seed: int) -> int:
    """The fold 0 ... num_folds - 1 of a key (`conversation_key`), independent of `split_of` at the same seed."""
    assert num_folds >= 1, "at least one fold"
    return _uniform(f"fold:{seed}:{key}") * num_folds // _RESOLUTION


def prompt_key(record: Record) -> str:
    """The id of a record's prompt; of a demonstration given as a whole dialogue, that of its opening."""
    match record:
        case Prompt():
            return record.prompt_id
        case Demonstration():
            return prompt_id_of(record.prompt or _opening(record.completion))
        case _:
            return record.prompt.prompt_id


def conversation_key(record: Record) -> str:
    """The id of the turns before the assistant first answers: alike for all turns of a conversation.

    Equal to `prompt_key` where the prompt has a single turn.
    """
    match record:
        case Prompt():
            turns = record.messages
        case Demonstration():
            turns = (*record.prompt, *record.completion)
        case _:
            turns = record.prompt.messages
    return prompt_id_of(_opening(turns))


def _opening(turns: Messages) -> Messages:
    """The turns before the assistant's first answer to a user; a greeting of the assistant's is no answer."""
    asked = False
    for place, message in enumerate(turns):
        if message.role == "assistant" and asked:
            return turns[:place]
        asked = asked or message.role == "user"
    return turns


def _uniform(text: str) -> int:
    """A uniform number in 0 ... 2^64 - 1."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big")
