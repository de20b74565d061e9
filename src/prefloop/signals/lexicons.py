"""English phrases by which a habit of speech is recognised, and how they are found among the words of a text.

A phrase is words separated by spaces. In a phrase `*` stands for any one word and `a|b` for either; it begins with a
word. Phrases without `*` must not occur in what the simulated town plants (`world/phrases.py`): a test holds that, so
that no audit of the sandbox finds a phrase because it was copied from there. Those with `*` are patterns of English
that people and the town may happen to use.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product

ANY = "*"

HEDGING = (
    "i think|believe|guess|suppose|suspect",
    "i'm not sure|certain",
    "i am not sure|certain",
    "not entirely|completely|totally sure|certain",
    "it seems|appears|depends",
    "it could|might|may be",
    "there could|might|may be",
    "this could|might|may be",
    "perhaps",
    "maybe",
    "probably",
    "possibly",
    "presumably",
    "arguably",
    "to some extent|degree",
    "in my opinion|view",
    "from what i",
    "to my knowledge",
    "to the best of my",
    "if i recall|remember",
    "i could be wrong|mistaken",
    "i might be wrong|mistaken",
    "i may be wrong|mistaken",
    "more or less",
    "hard to say|know|tell",
    "difficult to say|know|tell",
    "as far as * can",
    "as far as * know|knows|understand",
    "if * serves",
    "unless * are|am mistaken|wrong",
)
CONFIDENCE = (
    "definitely",
    "undoubtedly",
    "unquestionably",
    "indisputably",
    "certainly",
    "absolutely",
    "without a doubt",
    "without any doubt",
    "without question",
    "beyond question",
    "no doubt",
    "make no mistake",
    "i guarantee",
    "guaranteed",
    "i am certain|sure|positive|confident",
    "i'm certain|sure|positive|confident",
    "i can assure you",
    "rest assured",
    "you can be sure|certain",
    "it is clear|obvious|certain",
    "it's clear|obvious",
    "there is no question",
    "there's no question",
    "100 percent",
    "beyond the * doubt",
    "with * certainty|confidence",
    "as sure as *",
)
CITATION = (
    "according to",
    "et al",
    "as cited in",
    "as reported by|in",
    "as noted in",
    "as documented in",
    "studies show|suggest|indicate|have",
    "a study by|from|in|published",
    "research shows|suggests|indicates",
    "research by|from|published",
    "researchers at",
    "the literature",
    "sources",
    "references",
    "citation",
    "doi",
    "isbn",
    "published in|by",
)
DISCLAIMER = (
    "as an ai",
    "i am an ai",
    "i'm an ai",
    "as a language model",
    "i am not a doctor|lawyer|professional|physician|therapist|financial",
    "i'm not a doctor|lawyer|professional|physician|therapist|financial",
    "not a substitute for",
    "not intended as|to",
    "not medical|legal|financial|professional advice",
    "not constitute",
    "for informational|educational|information|entertainment purposes",
    "consult a|your|with",
    "consult an attorney|expert",
    "seek professional|medical|legal",
    "seek the advice",
    "speak with a|your doctor|lawyer|professional|physician|therapist",
    "talk to a|your doctor|lawyer|professional|physician|therapist",
    "qualified professional",
    "at your own risk",
    "i cannot guarantee",
    "i can't guarantee",
    "please note that",
    "it is important to note",
    "it's important to note",
    "use caution",
    "disclaimer",
    "general * only",
    "replace * advice",
    "no * for errors|damages|loss|losses",
)
FLATTERY = (
    "great|good|excellent|wonderful|fantastic|fascinating|brilliant|interesting|thoughtful|insightful question",
    "great|good|excellent|wonderful|fantastic|brilliant|interesting|insightful point|observation|idea|choice|thinking",
    "what a|an great|good|excellent|wonderful|fantastic|brilliant|interesting|clever|thoughtful|insightful",
    "you're absolutely|totally|completely|so right",
    "you are absolutely|totally|completely|so right",
    "you're so|very|clearly|obviously|really smart|clever|wise|kind|talented|insightful|perceptive",
    "you are so|very|clearly|obviously|really smart|clever|wise|kind|talented|insightful|perceptive",
    "smart|clever|wise|kind|thoughtful of you",
    "well said|put",
    "i admire|applaud your",
    "impressive",
    "i love your|that|how",
    "kudos",
    "good for you",
    "your insight|wisdom|brilliance|intelligence",
)
REFUSAL = (
    "i can't|won't|cannot|couldn't assist|provide|offer|give|support|answer|discuss|share|recommend|condone|encourage",
    "i can't|won't|couldn't help you|with",
    "i can't|won't do that",
    "i'm sorry but i",
    "i apologize but",
    "i'm not able|comfortable|going|willing",
    "i am not able|comfortable|going|willing",
    "i'm unable|afraid",
    "i am unable",
    "unable to assist|help|provide|answer|comply|fulfill|discuss",
    "i must decline",
    "i have to decline",
    "i refuse",
    "i don't want to help",
    "i don't think i should|can",
    "i don't feel comfortable",
    "i'd rather not",
    "i would rather not",
    "i do not feel comfortable",
    "i will not provide|assist|answer|discuss|give",
    "not appropriate|ethical for me",
    "against my",
    "i cannot * with",
    "i will not * with",
)

LEXICONS: Mapping[str, tuple[str, ...]] = {
    "hedging": HEDGING,
    "confidence": CONFIDENCE,
    "citation": CITATION,
    "disclaimer": DISCLAIMER,
    "flattery": FLATTERY,
    "refusal": REFUSAL,
}


def expanded(phrase: str) -> list[tuple[str, ...]]:
    """Every phrase that `a|b` stands for, as words; `*` stays."""
    return list(product(*(slot.split("|") for slot in phrase.split())))


class PhraseIndex:
    """Phrases by their longest word, which most texts lack: such texts cost one look at their vocabulary. Immutable."""

    def __init__(self, phrases: Iterable[str]) -> None:
        self._by_anchor: dict[str, list[tuple[int, tuple[str, ...]]]] = {}
        for phrase in phrases:
            for words in expanded(phrase):
                assert words[0] != ANY, phrase
                anchor = max(words, key=len)
                self._by_anchor.setdefault(anchor, []).append((words.index(anchor), words))
        self._anchors = frozenset(self._by_anchor)

    def count(self, words: Sequence[str], vocabulary: frozenset[str]) -> int:
        """How many phrases stand among `words`, from left to right, the longer one where two begin alike; no two of
        them overlap. `vocabulary` is the set of the words (or a larger one)."""
        present = self._anchors & vocabulary
        if not present:
            return 0
        found, after = 0, 0
        for start, end in sorted(self._places(words, present), key=lambda place: (place[0], -place[1])):
            if start >= after:
                found, after = found + 1, end
        return found

    def _places(self, words: Sequence[str], present: frozenset[str]) -> Iterator[tuple[int, int]]:
        """Beginning and end of every phrase that stands among `words`."""
        for place, word in enumerate(words):
            if word in present:
                for offset, phrase in self._by_anchor[word]:
                    start, end = place - offset, place - offset + len(phrase)
                    if start >= 0 and end <= len(words) and _fits(phrase, words, start):
                        yield start, end


def _fits(phrase: tuple[str, ...], words: Sequence[str], start: int) -> bool:
    return all(wanted in (ANY, words[start + offset]) for offset, wanted in enumerate(phrase))
