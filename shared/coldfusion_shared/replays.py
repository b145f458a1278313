"""A replay's way: its states and who may follow whom. Data, no effects."""

from __future__ import annotations

from enum import StrEnum

from coldfusion_shared.errors import InvalidTransition


class ReplayState(StrEnum):
    """Where a replay is between being asked for and its outcome."""

    QUEUED = "queued"
    RUNNING = "running"
    READY = "ready"
    FAILED = "failed"
    PUBLISHED = "published"
    DISCARDED = "discarded"


_S = ReplayState

TRANSITIONS: dict[ReplayState, frozenset[ReplayState]] = {
    _S.QUEUED: frozenset({_S.RUNNING, _S.DISCARDED}),
    # Round after round is fused again; each is kept, so that another worker goes on from there.
    _S.RUNNING: frozenset({_S.READY, _S.FAILED, _S.DISCARDED}),
    # The surroundings failed: it is tried again.
    _S.FAILED: frozenset({_S.RUNNING, _S.DISCARDED}),
    # Its bases wait for a maintainer, who compares them with the old ones.
    _S.READY: frozenset({_S.PUBLISHED, _S.DISCARDED}),
    _S.PUBLISHED: frozenset(),
    _S.DISCARDED: frozenset(),
}

# Nobody has decided on those, and from the others a replay goes nowhere.
OPEN = frozenset(state for state, followers in TRANSITIONS.items() if followers)
ENDS = frozenset(ReplayState) - OPEN


def check_transition(current: ReplayState, target: ReplayState) -> None:
    """Raise `InvalidTransition` unless `TRANSITIONS` allows going from `current` to `target`."""
    if target not in TRANSITIONS[current]:
        raise InvalidTransition(f"A replay cannot go from {current} to {target}.")
