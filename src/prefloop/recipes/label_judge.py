"""`label judge`: a model behind an endpoint as one more annotator, with the same tasks and the same statistics (RLAIF).

It gets the pairs that have fewer than two answers, and the gold questions among them; never a review, which is no
comparison, and never a repetition, which it would answer from what it said before. Each is asked in both orders. Where
both name the same response, that is the vote; where one order says tie, the side is "slightly" better; where the orders
contradict each other it is a tie, since what decided was the place and not the response; without a readable verdict
the item is skipped, and goes to others.
"""

from __future__ import annotations

import shlex
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefloop.console import say
from prefloop.evaluate.endpoint import endpoint_judge
from prefloop.evaluate.judge import Duel, EndpointJudge
from prefloop.evaluate.verdicts import Verdicts
from prefloop.label.commands import opened
from prefloop.label.config import Quotas
from prefloop.label.records import Item, Strength, Submission, Task
from prefloop.recipes.label_config import LabelJudgeConfig
from prefloop.reward.scorer import Response
from prefloop.rundir import output_file, user_name
from prefloop.types import InputError

if TYPE_CHECKING:
    from prefloop.label.store import Store

QUOTAS = Quotas(overlap=1.0, repeats=0.0, gold=0.5)
PREFIX = "judge "
"""Names of judges begin so: a model must not vote in a person's name."""
BATCH = 32
"""Items that are asked about at once, so that the endpoint is kept busy."""
MIN_READABLE = 0.5
"""Share of the answers that must hold a verdict, once there are `MIN_ANSWERS`; below it nothing is voted."""
MIN_ANSWERS = 10


@dataclass(frozen=True)
class Opinion:
    """What both orders say of an item: the vote, and why."""

    choice: str
    strength: Strength | None
    reason: str


@dataclass
class _Tally:
    """Answers so far, for what they say of the judge itself."""

    items: int = 0
    unread: int = 0
    agreeing: int = 0
    readable: int = 0
    for_first: float = 0.0

    def add(self, forth: float | None, back: float | None) -> None:
        self.items += 1
        self.unread += (forth is None) + (back is None)
        if forth is not None and back is not None:
            self.readable += 1
            self.agreeing += forth == 1 - back
            self.for_first += 1 - (forth + back) / 2


def judge(config: LabelJudgeConfig) -> dict[str, Any]:
    """Vote until nothing is left, or `limit` votes.

    Raises EnvironmentStop where the judge stays away: votes are stored, answers kept, the same command goes on.
    """
    if config.endpoint.model is None:
        raise InputError("is missing", field="endpoint.model", remedy="give the model's name there")
    name = config.name or f"{PREFIX}{config.endpoint.model}"
    if not name.startswith(PREFIX):
        raise InputError(f"does not begin with {PREFIX!r}", field="name", remedy="so that nobody's own votes mix in")
    model = endpoint_judge(config.judge, config.endpoint, Verdicts(output_file(config.answers, "answers")))
    tally, choices = _Tally(), dict.fromkeys(("a", "b", "tie", "skip"), 0)
    with opened(config) as store:
        annotator_id = _annotator(store, name)
        for task, opinion in _opinions(store, annotator_id, model, tally, config.limit):
            _vote(store, annotator_id, model.version, task, opinion)
            choices[opinion.choice] += 1
    if not any(choices.values()):
        say("nothing was left to vote on: a judge gets gold questions and items with fewer than two answers")
    return {
        "annotator_id": annotator_id,
        "name": name,
        "num_votes": sum(choices.values()),
        "choices": choices,
        "orders_agree": tally.agreeing / tally.readable if tally.readable else None,
        "shown_first_preferred": tally.for_first / tally.readable if tally.readable else None,
        "unread_answers": tally.unread,
        "answers": config.answers,
        "next": f"prefloop label stats --database {shlex.quote(config.database)}",
    }


def opinion_of(forth: float | None, back: float | None) -> Opinion:
    """The vote of both orders: how far the one shown second is preferred, b second (`forth`) and a second (`back`)."""
    if forth is None or back is None:
        return Opinion("skip", None, "no verdict in an answer")
    for_b = (forth + 1 - back) / 2
    if for_b == 0.5:
        return Opinion("tie", None, "both orders say tie" if forth == 0.5 else "the orders contradict each other")
    side = "b" if for_b > 0.5 else "a"
    if for_b in (0.0, 1.0):
        return Opinion(side, None, "both orders agree")
    return Opinion(side, "slightly", "one order says tie")


def _annotator(store: Store, name: str) -> str:
    """The id of the judge, who is made where it is not there yet."""
    from prefloop.label.people import end_session, invite, people, redeem

    for person in people(store):
        if person.name == name:
            return person.annotator_id
    redeemed = redeem(store, invite(store, name=name, role="annotator", by=user_name()))
    assert redeemed is not None, "an invitation that was just made lets in"
    person, session = redeemed
    end_session(store, session)
    return person.annotator_id


def _opinions(
    store: Store, annotator_id: str, model: EndpointJudge, tally: _Tally, limit: int | None
) -> Iterator[tuple[Task, Opinion]]:
    """Each task with what the judge says of it; the next ones in line are asked about along with it."""
    from prefloop.label.assign import next_task

    said: dict[str, Opinion] = {}
    given = 0
    while limit is None or given < limit:
        task = next_task(store, annotator_id, quotas=QUOTAS, kind="pair")
        if task is None:
            return
        if task.item.item_id not in said:
            size = BATCH if limit is None else min(BATCH, limit - given)
            batch = [task.item, *_waiting(store, annotator_id, {*said, task.item.item_id})[: size - 1]]
            for item, (forth, back) in zip(batch, model.answers(list(map(_duel, batch))), strict=True):
                tally.add(forth, back)
                said[item.item_id] = opinion_of(forth, back)
            _require_verdicts(tally)
        yield task, said[task.item.item_id]
        given += 1
        if given % 100 == 0:
            say(f"label judge: {given} votes")


def _require_verdicts(tally: _Tally) -> None:
    answers = 2 * tally.items
    if answers >= MIN_ANSWERS and tally.unread > (1 - MIN_READABLE) * answers:
        problem = f"{tally.unread} of {answers} answers of the judge hold no verdict"
        raise InputError(problem, field="endpoint.model", remedy="give another model, or a clearer endpoint.prompt")


def _waiting(store: Store, annotator_id: str, without: set[str]) -> list[Item]:
    """The items that the judge is likely to get next, in their order."""
    from prefloop.label.votes import items_of, votes_of

    votes = votes_of(store)
    mine = {vote.item_id for vote in votes if vote.annotator_id == annotator_id}
    people: dict[str, set[str]] = {}
    for vote in votes:
        if vote.choice != "skip":
            people.setdefault(vote.item_id, set()).add(vote.annotator_id)
    return [
        item
        for name, item in items_of(store, kind="pair").items()
        if name not in mine and name not in without and (item.gold is not None or len(people.get(name, ())) < 2)
    ]


def _duel(item: Item) -> Duel:
    from prefloop.label.votes import comparison_of

    comparison = comparison_of(item)
    return Duel(comparison.prompt, Response(comparison.response_a), Response(comparison.response_b))


def _vote(store: Store, annotator_id: str, version: str, task: Task, opinion: Opinion) -> None:
    from prefloop.label.votes import submit

    # Always the same for the same task, so that a run that was cut off after storing it stores nothing twice.
    submission_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{version}/{task.assignment_id}"))
    submission = Submission(
        submission_id, task.assignment_id, opinion.choice, strength=opinion.strength, reason=opinion.reason
    )
    submit(store, annotator_id, submission)
