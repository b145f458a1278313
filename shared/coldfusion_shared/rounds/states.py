"""A round's way: its states, and who may follow whom. Data, no effects."""

from __future__ import annotations

from enum import StrEnum

from coldfusion_shared.errors import InvalidTransition


class RoundState(StrEnum):
    """Where a round is between opening and publishing its fused base."""

    OPEN = "open"
    CLOSED = "closed"
    FUSING = "fusing"
    EVALUATING = "evaluating"
    PUBLISHED = "published"
    REJECTED = "rejected"
    FAILED = "failed"
    CANCELLED = "cancelled"


_S = RoundState

TRANSITIONS: dict[RoundState, frozenset[RoundState]] = {
    # Takes contributions.
    _S.OPEN: frozenset({_S.CLOSED, _S.CANCELLED}),
    # What it fuses is fixed. Back to here goes what lost an input: it was withdrawn.
    _S.CLOSED: frozenset({_S.FUSING, _S.CANCELLED}),
    _S.FUSING: frozenset({_S.EVALUATING, _S.FAILED, _S.CLOSED, _S.CANCELLED}),
    # Its candidates are stored; the gate decides.
    _S.EVALUATING: frozenset({_S.PUBLISHED, _S.REJECTED, _S.FAILED, _S.CLOSED, _S.CANCELLED}),
    # A failure lies in the surroundings (a full disk, a lost store), so the round is tried again,
    # from its last durable step.
    _S.FAILED: frozenset({_S.FUSING, _S.EVALUATING, _S.CLOSED, _S.CANCELLED}),
    _S.PUBLISHED: frozenset(),
    _S.REJECTED: frozenset(),
    _S.CANCELLED: frozenset(),
}
# From here a round goes nowhere.
ENDS = frozenset(state for state, followers in TRANSITIONS.items() if not followers)
# Between its closing and its end.
UNDER_WAY = frozenset(TRANSITIONS) - ENDS - {RoundState.OPEN}


def check_transition(current: RoundState, target: RoundState) -> None:
    """Raise `InvalidTransition` unless `TRANSITIONS` allows going from `current` to `target`."""
    if target not in TRANSITIONS[current]:
        raise InvalidTransition(f"A round cannot go from {current} to {target}.")
