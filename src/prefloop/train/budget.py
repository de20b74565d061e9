"""The hard limit on how far a policy may move: a run stops at the last checkpoint inside its KL budget."""

from __future__ import annotations

from collections.abc import Sequence

from prefloop.console import say
from prefloop.train.loop import TrainState
from prefloop.types import InputError

BUDGET_WINDOW = 256
"""The budget is tested on the mean KL of at least this many of the newest responses."""


def measured_kl(state: TrainState, full_kl: Sequence[float]) -> float:
    """What is held against the budget: the mean exact KL of this round or of the newest responses, if that is more."""
    recent = _recent(state, full_kl)
    return max(sum(recent) / len(recent), sum(full_kl) / len(full_kl))


def leaves_budget(state: TrainState, full_kl: Sequence[float], budget: float) -> bool:
    """Whether the policy of `state`, whose responses have the exact KLs `full_kl` [B] in nats, is outside the budget.

    Raises InputError if it is before its first update.
    """
    measured = measured_kl(state, full_kl)
    if measured > budget and state.step == 0:
        raise InputError(
            f"the policy starts {measured:.3g} nats per response from the reference, outside the budget",
            field="kl_budget",
            remedy="raise it, or give a reference that is nearer",
        )
    if measured > budget:
        say(
            f"KL {measured:.2f} is past the budget of {budget:g} nats: stopping at the last checkpoint inside it "
            "(a new run with a larger --kl-budget, or none, goes further)"
        )
    return measured > budget


def reaches_an_eighth(state: TrainState, full_kl: Sequence[float], budget: float) -> bool:
    """Whether another eighth of the budget is reached, which is the time for a checkpoint; noted in `state`."""
    eighth = int(8 * measured_kl(state, full_kl) / budget)
    reached = eighth > state.budget_eighth
    state.budget_eighth = max(eighth, state.budget_eighth)
    return reached


def remember(state: TrainState, full_kl: Sequence[float]) -> None:
    """Keep the KLs of a round whose policy is inside the budget."""
    state.recent_kl = _recent(state, full_kl)


def _recent(state: TrainState, full_kl: Sequence[float]) -> list[float]:
    return (state.recent_kl + list(full_kl))[-max(BUDGET_WINDOW, len(full_kl)) :]
