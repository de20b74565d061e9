"""Text to tokens and back: one place that knows chat templates, pad and stop tokens.

A response is tokenised apart from its prompt, exactly as a sampler sees it: prompt tokens first, then what the policy
adds, up to and including the stop token. So the prompt is a token prefix of prompt + response by construction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast

from prefloop.console import say
from prefloop.types import InputError, Message, Messages

PAD, END = "<|pad|>", "<|end|>"
MAX_CHARS = 4_000_000
"""Longer texts are refused before they are tokenised, which takes 200 bytes of memory for each character."""
ROLES = ("system", "user", "assistant")
SCRATCH_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
PLAIN_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '\n\nHuman: ' }}{{ m['content'] }}"
    "{% elif m['role'] == 'assistant' %}{{ '\n\nAssistant: ' }}{{ m['content'] }}{{ eos_token }}"
    "{% else %}{{ m['content'] }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '\n\nAssistant:' }}{% endif %}"
)
"""For tokenizers that bring no template of their own. Newlines stand in quotes: the first after a tag is trimmed."""


@dataclass(frozen=True)
class Encoded:
    """Token ids of a dialogue; `mask` is True on the tokens of the answers (content and stop token)."""

    ids: list[int]
    mask: list[bool]

    @property
    def prompt_length(self) -> int:
        """Tokens before the first answer token; 0 where there is no answer."""
        return self.mask.index(True) if True in self.mask else 0


class Chat:
    """A tokenizer with its chat template, as every stage uses it."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, extra_stop_ids: Iterable[int] = ()) -> None:
        self.tokenizer = tokenizer
        if tokenizer.chat_template is None:
            adds_bos = tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
            tokenizer.chat_template = ("{{ bos_token }}" if adds_bos else "") + PLAIN_TEMPLATE
        if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
            _choose_pad(tokenizer)
        self.pad_id: int = tokenizer.pad_token_id
        probe = [Message("user", "a"), Message("assistant", "b")]
        after = self._ids(self._render(probe, False).removeprefix(self._render(probe[:1], True)))
        special = [token for token in after if token in set(tokenizer.all_special_ids)]
        stops = {*extra_stop_ids, *special[:1]}
        if tokenizer.eos_token_id is not None:
            stops.add(tokenizer.eos_token_id)
        self.stop_ids: frozenset[int] = frozenset(stops - {self.pad_id})
        if not self.stop_ids:
            raise InputError("the tokenizer has no end-of-sequence token", remedy="set eos_token in its config")

    def _render(self, messages: Sequence[Message], generation_prompt: bool) -> str:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        try:
            text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=generation_prompt)
        except TemplateError as error:
            # Templates also refuse dialogues by raising: many allow no system turn, or no two turns of one role.
            raise InputError(
                f"the model's chat template fails on this dialogue: {error}",
                remedy="correct the template, or leave such rows out",
            ) from error
        return str(text)

    def _ids(self, text: str) -> list[int]:
        if len(text) > MAX_CHARS:
            raise InputError(f"a text of {len(text):,} characters", remedy=f"at most {MAX_CHARS:,} can be read at once")
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def plain_ids(self, text: str) -> list[int]:
        """Tokens of text that is no dialogue: no template, no special tokens."""
        return self._ids(text)

    def encode_prompt(self, messages: Messages) -> list[int]:
        """Tokens up to where the assistant begins to speak."""
        return self._ids(self._render(messages, True))

    def encode(self, messages: Sequence[Message], *, num_context: int) -> Encoded:
        """Tokens of a dialogue that ends with an assistant turn; assistant turns from `num_context` on are answers.

        Raises InputError if the template rewrites earlier turns when a later one is added.
        """
        ids: list[int] = []
        mask: list[bool] = []
        done = ""
        for index in range(num_context, len(messages)):
            if messages[index].role != "assistant":
                continue
            before = self._render(messages[:index], True)
            through = self._render(messages[: index + 1], False)
            if not before.startswith(done) or not through.startswith(before):
                raise InputError(
                    f"the chat template rewrites earlier turns of a dialogue when turn {index + 1} is added",
                    remedy="use a template that only appends, or single-turn data",
                )
            context, answer = self._ids(before[len(done) :]), self._ids(through[len(before) :])
            stop = next((place + 1 for place, token in enumerate(answer) if token in self.stop_ids), len(answer))
            ids += context + answer
            mask += [False] * len(context) + [place < stop for place in range(len(answer))]
            done = through
        last = max((place for place, counts in enumerate(mask) if counts), default=-1)
        return Encoded(ids[: last + 1], mask[: last + 1])

    def encode_response(self, prompt: Messages, response: str, *, finished: bool = True) -> Encoded:
        """Prompt + one response. `finished=False` (cut off by the length limit) leaves the stop token out."""
        encoded = self.encode((*prompt, Message("assistant", response)), num_context=len(prompt))
        if finished or not encoded.ids or encoded.ids[-1] not in self.stop_ids:
            return encoded
        return Encoded(encoded.ids[:-1], encoded.mask[:-1])

    def decode(self, ids: Sequence[int]) -> str:
        """Text of response tokens, special tokens left out."""
        return str(
            self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        ).strip()

    def decode_with_special(self, ids: Sequence[int]) -> str:
        """Text of tokens as the model sees them."""
        return str(self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    def same_tokens(self, other: Chat) -> bool:
        """Whether both turn every dialogue into the same tokens."""
        mine, theirs = self.tokenizer, other.tokenizer
        return (
            mine.chat_template == theirs.chat_template
            and mine.backend_tokenizer.to_str() == theirs.backend_tokenizer.to_str()
        )


def _choose_pad(tokenizer: PreTrainedTokenizerFast) -> None:
    reserved = sorted(token for token in tokenizer.get_vocab() if "reserved" in token or "finetune_right_pad" in token)
    tokenizer.add_special_tokens({"pad_token": reserved[0] if reserved else PAD})
    how = f"the reserved token {reserved[0]}" if reserved else f"a new token {PAD}"
    say(f"the tokenizer has no pad token of its own: {how} is used for padding")


def load_chat(directory: Path, field: str = "model") -> Chat:
    """The tokenizer of a model directory. Raises InputError if there is none."""
    if not any((directory / name).exists() for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")):
        raise InputError(
            "this model directory has no tokenizer",
            path=directory,
            field=field,
            remedy="copy tokenizer.json and tokenizer_config.json of the model into it",
        )
    stops: Any = None
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        if (directory / "generation_config.json").exists():
            stops = GenerationConfig.from_pretrained(directory, local_files_only=True).eos_token_id
    except Exception as error:
        raise unreadable("transformers cannot load this tokenizer", error, directory, field) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise InputError("only fast tokenizers are supported (no tokenizer.json)", path=directory, field=field)
    try:
        return Chat(tokenizer, [] if stops is None else stops if isinstance(stops, list) else [stops])
    except InputError as error:
        raise InputError(error.problem, path=directory, field=field, remedy=error.remedy) from error


def unreadable(problem: str, error: Exception, directory: Path, field: str) -> InputError:
    """The error for a directory that transformers fails to read, with the first line of its reason.

    What it raises for a broken file is of any type, from JSONDecodeError to TypeError and its own.
    """
    reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    return InputError(f"{problem}: {reason}", path=directory, field=field)


def train_chat(texts: Iterable[str], *, vocab_size: int) -> Chat:
    """A byte-level BPE tokenizer trained on `texts`, with special tokens for the roles, padding and end of turn."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    special = [PAD, END, *(f"<|{role}|>" for role in ROLES)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=END)
    fast.add_special_tokens({"additional_special_tokens": [f"<|{role}|>" for role in ROLES]})
    fast.chat_template = SCRATCH_TEMPLATE
    return Chat(fast)
