"""What every comparison of speed runs on: a tokenizer, two sizes of model with random weights, pairs and prompts.

Everything is made in code from the docstrings of Python's standard library, so nothing is downloaded, and written under
one folder; prefloop and its peers read the same files. Texts are cut so that prompt and response are the same tokens
whether they are tokenised apart or together: a prompt ends with a full stop, a response begins with a letter.

Lengths of responses come in two regimes. *fixed*: the end-of-sequence token never ends one, so all have `NEW_TOKENS`.
*geometric*: `NUM_STOPS` of the vocabulary's `VOCAB` ids end a response. Fresh weights predict nearly uniformly, so each
token ends it with probability p = NUM_STOPS / VOCAB, and lengths are geometric, cut at `NEW_TOKENS`.
"""

from __future__ import annotations

import ast
import json
import random
import sysconfig
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Regime = Literal["offline", "fixed", "geometric"]

FOLDER = Path("build/peers/testbed")
VOCAB = 4096
SPECIAL = ("<pad>", "<bos>", "<eos>")
PAD_ID, BOS_ID, EOS_ID = range(3)
TEMPLATE = (
    "{% for m in messages %}{{ m['content'] }}{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)
"""No marks of roles: TRL puts none around plain text either."""
NEW_TOKENS = 64
"""Longest sampled response."""
PROMPT_TOKENS, RESPONSE_TOKENS = (16, 64), (8, 128)
"""Shortest and longest text, in tokens before it is cut to begin and end as it must."""
NUM_STOPS = 224
NUM_ROWS = 512
"""Rows of the data files."""


@dataclass(frozen=True)
class Size:
    """Shape of a Llama whose MLP is three times as wide as its stream."""

    hidden: int
    layers: int
    heads: int

    @property
    def body_weights(self) -> int:
        """Weights that every token is multiplied with, the head left out."""
        return self.layers * (4 * self.hidden**2 + 3 * self.hidden * 3 * self.hidden)

    @property
    def head_weights(self) -> int:
        """Weights of the language-model head, which is the embedding."""
        return VOCAB * self.hidden


SIZES = {"small": Size(256, 4, 4), "big": Size(512, 8, 8)}


def stop_ids(regime: Regime) -> list[int]:
    """Ids that end a sampled response; none in the fixed regime."""
    if regime != "geometric":
        return [] if regime == "fixed" else [EOS_ID]
    spread = (VOCAB - len(SPECIAL)) / (NUM_STOPS - 1)
    return [EOS_ID, *(len(SPECIAL) + int(place * spread) for place in range(NUM_STOPS - 1))]


def expected_length(num_stops: int = NUM_STOPS, longest: int = NEW_TOKENS) -> float:
    """Mean length of a response if each token ends it with p = num_stops / VOCAB: (1 - (1 - p)^longest) / p."""
    chance = num_stops / VOCAB
    return (1 - (1 - chance) ** longest) / chance


def prepare(folder: Path = FOLDER) -> Path:
    """Write whatever of the test bed is missing; where it is."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = corpus()
    _once(folder / "tokenizer", lambda target: _tokenizer(texts).save_pretrained(target))
    for size in SIZES:
        for kind, ends in (("policy", [EOS_ID]), ("policy-geometric", stop_ids("geometric")), ("reward", [EOS_ID])):
            _once(
                folder / f"{size}-{kind}", lambda target, s=size, k=kind, e=ends: _save_model(folder, target, s, k, e)
            )
    _once(folder / "pairs.jsonl", lambda target: write_rows(target, pairs(folder, texts, NUM_ROWS)))
    rows = read_rows(folder / "pairs.jsonl")
    for name, columns in (("demonstrations", ("prompt", "completion")), ("prompts", ("prompt",))):
        short = ({key: row["chosen" if key == "completion" else key] for key in columns} for row in rows)
        _once(folder / f"{name}.jsonl", lambda target, short=short: write_rows(target, short))
    return folder


def policy_folder(folder: Path, size: str, regime: Regime) -> Path:
    """The policy whose generation config has the regime's stop ids."""
    return folder / (f"{size}-policy-geometric" if regime == "geometric" else f"{size}-policy")


def corpus() -> list[str]:
    """Docstrings of the standard library's top-level modules, in a fixed order."""
    texts = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8", errors="ignore"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                texts.append(ast.get_docstring(node) or "")
    return [text for text in texts if len(text) > 40]


def pairs(folder: Path, texts: Iterable[str], count: int, *, seed: int = 0) -> list[dict[str, str]]:
    """Preference rows of mixed lengths."""
    from transformers import PreTrainedTokenizerFast

    tokenizer, draw = PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer"), random.Random(seed)
    stream: list[int] = tokenizer("\n".join(texts), add_special_tokens=False, verbose=False)["input_ids"]

    def piece(shortest: int, longest: int) -> str:
        length = draw.randint(shortest, longest)
        start = draw.randrange(len(stream) - length)
        return str(tokenizer.decode(stream[start : start + length]))

    return [
        {
            "prompt": as_prompt(piece(*PROMPT_TOKENS)),
            "chosen": as_response(piece(*RESPONSE_TOKENS)),
            "rejected": as_response(piece(*RESPONSE_TOKENS)),
        }
        for _ in range(count)
    ]


def as_prompt(text: str) -> str:
    """The text with a full stop at its end."""
    return text.strip().rstrip(".") + "."


def as_response(text: str) -> str:
    """The text from its first letter on, without white space at its end; one word where there is no letter."""
    first = next((place for place, char in enumerate(text) if char.isalpha()), None)
    return "nothing" if first is None else text[first:].rstrip()


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """What `write_rows` wrote."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _once(target: Path, write: Callable[[Path], object]) -> None:
    """Write under another name first, so that what exists is whole."""
    if not target.exists():
        half = target.with_name(f"{target.name}.tmp")
        write(half)
        half.rename(target)


def _tokenizer(texts: Iterable[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCAB, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
        ),
    )
    pad, begin, end = SPECIAL
    made = PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token=pad, bos_token=begin, eos_token=end, padding_side="left"
    )
    made.chat_template = TEMPLATE
    return made


def model_config(size: str) -> Any:
    """The LlamaConfig of one of SIZES."""
    from transformers import LlamaConfig

    shape = SIZES[size]
    return LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=shape.hidden,
        intermediate_size=3 * shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=PAD_ID,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        num_labels=1,
    )


def _save_model(folder: Path, target: Path, size: str, kind: str, ends: list[int]) -> None:
    """Random weights, the same for every kind of policy; a scalar head for "reward"."""
    import torch
    from transformers import LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast

    config = model_config(size)
    torch.manual_seed(0)
    if kind == "reward":
        LlamaForSequenceClassification(config).save_pretrained(target)
    else:
        model = LlamaForCausalLM(config)
        model.generation_config.eos_token_id = ends
        model.save_pretrained(target)
    PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer").save_pretrained(target)
