"""Which answers to show, and the phrase that gives a changed policy away. All choices are functions of the data."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from prefloop.report.demo_run import DemoRun

SHORTEST_PHRASE, LONGEST_PHRASE = 3, 8
_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*|\S")


@dataclass(frozen=True)
class TellingPhrase:
    """A run of words that one set of texts has and another lacks; shares are of texts that contain it."""

    words: str
    share: float
    share_before: float


def hacked_examples(demo: DemoRun, *, count: int) -> list[str]:
    """Prompts that misled the proxy, the worst of each kind of prompt in turn; ties go by prompt_id.

    Worst: where the end is worth least in comparison with both the peak and SFT. Fewer than `count` where there are
    no more.
    """
    sft, peak, hacked = (demo.responses[policy] for policy in ("sft", "hacked_peak", "hacked"))
    harm = {
        prompt: 2 * hacked[prompt].true_utility - peak[prompt].true_utility - sft[prompt].true_utility
        for prompt in misled_prompts(demo)
    }
    by_kind: dict[str, list[str]] = {}
    for prompt in sorted(harm, key=lambda prompt: (harm[prompt], prompt)):
        by_kind.setdefault(sft[prompt].kind, []).append(prompt)
    turns = max((len(prompts) for prompts in by_kind.values()), default=0)
    chosen = [prompts[turn] for turn in range(turns) for prompts in by_kind.values() if turn < len(prompts)]
    return chosen[:count]


def misled_prompts(demo: DemoRun) -> list[str]:
    """Prompts where the biased reward model prefers the end of the unguarded run to its peak and the truth does not."""
    peak, end = demo.responses["hacked_peak"], demo.responses["hacked"]
    return [
        prompt
        for prompt in peak
        if end[prompt].proxy > peak[prompt].proxy and end[prompt].true_utility < peak[prompt].true_utility
    ]


def misled_share(demo: DemoRun) -> float:
    """Share of the prompts that are `misled_prompts`."""
    return len(misled_prompts(demo)) / demo.num_reported


def telling_phrase(texts: Sequence[str], before: Sequence[str]) -> TellingPhrase | None:
    """The phrase of 3 to 8 words whose share of texts rose most from `before`; among those within a tenth of the
    best rise, the longest. None where no phrase rose by at least 5 percentage points."""
    now, then = _document_counts(texts), _document_counts(before)
    rise = {phrase: now[phrase] / len(texts) - then[phrase] / len(before) for phrase in now}
    best = max(rise.values(), default=0.0)
    if best < 0.05:
        return None
    words = max(
        (phrase for phrase, value in rise.items() if value >= 0.9 * best),
        key=lambda phrase: (len(phrase), rise[phrase], phrase),
    )
    return TellingPhrase(_join(words), now[words] / len(texts), then[words] / len(before))


def _document_counts(texts: Sequence[str]) -> Counter[tuple[str, ...]]:
    """In how many texts each phrase stands, whatever its capitals; a phrase does not cross the end of a sentence."""
    return Counter(phrase for text in texts for phrase in set(_phrases(text.lower())))


def _phrases(text: str) -> Iterable[tuple[str, ...]]:
    for sentence in re.split(r"[.!?\n]+", text):
        words = _WORD.findall(sentence)
        for size in range(SHORTEST_PHRASE, LONGEST_PHRASE + 1):
            for start in range(len(words) - size + 1):
                yield tuple(words[start : start + size])


def _join(words: Sequence[str]) -> str:
    return re.sub(r" ([,;:])", r"\1", " ".join(words)).strip(",;: ")
