"""Who is better, the candidate or the incumbent? One answer a prompt, whoever is asked.

A judge that reads two responses is asked twice, with the places exchanged, and the two answers are averaged: a judge
that always takes the first one says 1/2. A scorer gives each response its score alone; the higher one wins.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from prefloop.console import Progress
from prefloop.data.dialogue import short_hash
from prefloop.evaluate.verdicts import Verdicts
from prefloop.reward.scorer import Response, Scorer, finite_scores
from prefloop.reward.user_code import file_of, load_user_object, user_error
from prefloop.rundir import sha256_of
from prefloop.types import InputError, Prompt

Question = tuple[Prompt, str, str]
"""A prompt and two responses, in the order in which they are shown."""


@dataclass(frozen=True)
class Duel:
    """A prompt with what the two models answered."""

    prompt: Prompt
    incumbent: Response
    candidate: Response


@dataclass(frozen=True)
class Judged:
    """What a judge said of duels, in their order."""

    wins: tuple[float, ...]
    """How far the candidate is preferred: 0, 1, or between; 1/2 is a tie."""
    first: float | None = None
    """How far the response shown first was preferred, on average; None where responses are scored alone."""
    consistent: float | None = None
    """Share of the duels in which both orders gave the same answer."""
    unread: int = 0
    """Answers of a judge in which no verdict was found; they count as ties."""
    margins: tuple[float, ...] | None = None
    """Score of the candidate's response minus that of the incumbent's, where responses are scored."""


class Judge(Protocol):
    """Anything that compares."""

    version: str
    """Identity of the judge with all its parts."""

    def judge(self, duels: Sequence[Duel]) -> Judged:
        """The verdict on each duel."""
        ...


class ScorerJudge:
    """A reward model, an ensemble, a scoring function or a reward server: the higher score wins."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer, self.version = scorer, scorer.version

    def judge(self, duels: Sequence[Duel]) -> Judged:
        """Scores of all responses, compared."""
        prompts = [duel.prompt for duel in duels]
        candidate = self.scorer.score(prompts, [duel.candidate for duel in duels])
        incumbent = self.scorer.score(prompts, [duel.incumbent for duel in duels])
        margins = np.array(candidate) - np.array(incumbent)
        return Judged(tuple(float(won) for won in (np.sign(margins) + 1) / 2), margins=tuple(margins.tolist()))


class PairJudge:
    """A judge that reads both responses. `prefers` gives, for lists of prompts, first and second responses, how
    probably each second one is the better."""

    def __init__(
        self, version: str, prefers: Callable[[list[Prompt], list[Response], list[Response]], list[float]]
    ) -> None:
        self.version, self._prefers = version, prefers

    def judge(self, duels: Sequence[Duel]) -> Judged:
        """Each duel in both orders."""
        prompts = [duel.prompt for duel in duels]
        candidates, incumbents = [duel.candidate for duel in duels], [duel.incumbent for duel in duels]
        forth = self._prefers(prompts, incumbents, candidates)
        back = self._prefers(prompts, candidates, incumbents)
        return swapped(forth, back)


def swapped(candidate_second: Sequence[float], candidate_first: Sequence[float], *, unread: int = 0) -> Judged:
    """From the preferences for the second response in both orders to verdicts on the candidate."""
    second, other = np.asarray(candidate_second, dtype=float), np.asarray(candidate_first, dtype=float)
    wins = (second + 1 - other) / 2
    return Judged(
        tuple(float(won) for won in wins),
        first=float(1 - (second + other).mean() / 2),
        consistent=float((np.sign(second - 0.5) == np.sign(0.5 - other)).mean()),
        unread=unread,
    )


def is_pair_function(spec: str) -> bool:
    """Whether a `file.py:function` compares two responses: it has parameters `first` and `second`."""
    function = load_user_object(spec, field="judge")
    return callable(function) and {"first", "second"} <= set(inspect.signature(function).parameters)


def function_judge(spec: str) -> PairJudge:
    """`function(prompts, first, second) -> list[float]`: how probably each second response is the better, 0 to 1.

    Prompts are the last user turns, responses are texts. Raises InputError where it raises, or answers anything else.
    """
    function, path = load_user_object(spec, field="judge"), file_of(spec)
    remedy = "return a list with one number from 0 (the first is better) to 1 for each pair"

    def prefers(prompts: list[Prompt], first: list[Response], second: list[Response]) -> list[float]:
        texts: tuple[list[str], ...] = ([prompt.messages[-1].content for prompt in prompts],)
        texts += tuple([response.text for response in side] for side in (first, second))
        try:
            given: Any = function(*texts)
        except Exception as error:
            raise user_error(error, path, field="judge") from error
        values = finite_scores(given, prompts, path=spec, remedy=remedy, what="preferences", field="judge")
        for value in values:
            if not 0 <= value <= 1:
                raise InputError(f"returned {value!r}", path=spec, field="judge", remedy=remedy)
        return values

    version = hashlib.sha256(f"{sha256_of(Path(path))}:{spec.rpartition(':')[2]}".encode()).hexdigest()[:12]
    return PairJudge(version, prefers)


class EndpointJudge:
    """A judge model that answers one question at a time; verdicts that were given already are not asked for again."""

    def __init__(
        self, version: str, ask: Callable[[Prompt, str, str], float | None], verdicts: Verdicts, *, parallel: int = 1
    ) -> None:
        """`ask` answers how far the second response is preferred, None where it said nothing that can be read. It is
        called on so many threads at once."""
        self.version, self._ask, self._verdicts, self._parallel = version, ask, verdicts, parallel

    def judge(self, duels: Sequence[Duel]) -> Judged:
        """Each duel in both orders. Raises EnvironmentStop where the judge stays away; what it said so far is kept.

        Raises InputError where more than half of what it says is no verdict.
        """
        answers = [answer for both in self.answers(duels) for answer in both]
        unread = sum(answer is None for answer in answers)
        if unread > len(duels):
            problem = f"{unread} of {len(answers)} answers of the judge hold no verdict"
            raise InputError(problem, field="endpoint.model", remedy="give another model, or a clearer endpoint.prompt")
        read = [0.5 if answer is None else answer for answer in answers]
        return swapped(read[0::2], read[1::2], unread=unread)

    def answers(self, duels: Sequence[Duel]) -> list[tuple[float | None, float | None]]:
        """How far the response shown second is preferred: with the candidate there, and with the incumbent there; None
        where no verdict was found. Raises as `judge` where the judge stays away."""
        questions = [
            (duel.prompt, first.text, second.text)
            for duel in duels
            for first, second in ((duel.incumbent, duel.candidate), (duel.candidate, duel.incumbent))
        ]
        self._ask_all(questions)
        said = [self._verdicts[self._key(question)] for question in questions]
        return list(zip(said[0::2], said[1::2], strict=True))

    def _key(self, question: Question) -> str:
        prompt, first, second = question
        return short_hash(self.version, prompt.prompt_id, first, second)

    def _ask_all(self, questions: Sequence[Question]) -> None:
        """Have a verdict on every question. After a failure no further one is asked, and what was said is kept."""
        waiting = {self._key(question): question for question in questions}
        waiting = {key: question for key, question in waiting.items() if key not in self._verdicts}
        failures: list[Exception] = []

        def ask(question: Question) -> tuple[float | None] | None:
            """The verdict, or None where it was not had."""
            if failures:
                return None
            try:
                return (self._ask(*question),)
            except Exception as error:
                failures.append(error)
                return None

        with ThreadPoolExecutor(self._parallel) as pool, Progress("judge", total=len(waiting)) as progress:
            asked = {pool.submit(ask, question): key for key, question in waiting.items()}
            try:
                for number, done in enumerate(as_completed(asked), start=1):
                    if (said := done.result()) is not None:
                        self._verdicts.add(asked[done], *said)
                    progress.update(number, "")
            except BaseException:
                # Interrupted, or the disk is full: what has not begun never does.
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        if failures:
            raise failures[0]
