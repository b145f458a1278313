"""A contribution's way: its states and who may follow whom. Data, no effects."""

from __future__ import annotations

from enum import StrEnum

from coldfusion_shared.errors import InvalidTransition


class ContributionState(StrEnum):
    """Where a contribution is between its declaration and its outcome."""

    DECLARED = "declared"
    COMPLETED = "completed"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    QUARANTINED = "quarantined"
    SET_ASIDE = "set_aside"
    FUSED = "fused"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"


TRANSITIONS: dict[ContributionState, frozenset[ContributionState]] = {
    # Declared: bytes are arriving. Completed: they are all here and verified, screening is next.
    ContributionState.DECLARED: frozenset(
        {
            ContributionState.COMPLETED,
            ContributionState.REJECTED,
            ContributionState.WITHDRAWN,
            ContributionState.EXPIRED,
        }
    ),
    ContributionState.COMPLETED: frozenset(
        {
            ContributionState.ACCEPTED,
            ContributionState.REJECTED,
            ContributionState.QUARANTINED,
            ContributionState.WITHDRAWN,
        }
    ),
    ContributionState.QUARANTINED: frozenset(
        {ContributionState.ACCEPTED, ContributionState.REJECTED, ContributionState.WITHDRAWN}
    ),
    ContributionState.ACCEPTED: frozenset(
        {
            ContributionState.FUSED,
            ContributionState.SET_ASIDE,
            ContributionState.REJECTED,
            # Those that came later show that it sticks out of its round.
            ContributionState.QUARANTINED,
            ContributionState.WITHDRAWN,
        }
    ),
    # Its round was rejected by the gate; a maintainer may have it fused again.
    ContributionState.SET_ASIDE: frozenset(
        {ContributionState.ACCEPTED, ContributionState.REJECTED, ContributionState.WITHDRAWN}
    ),
    # What was fused stays part of the bases that it went into; a replay makes others without it.
    ContributionState.FUSED: frozenset({ContributionState.WITHDRAWN}),
    ContributionState.REJECTED: frozenset(),
    ContributionState.WITHDRAWN: frozenset(),
    ContributionState.EXPIRED: frozenset(),
}


def check_transition(current: ContributionState, target: ContributionState) -> None:
    """Raise `InvalidTransition` unless `TRANSITIONS` allows going from `current` to `target`."""
    if target not in TRANSITIONS[current]:
        raise InvalidTransition(f"A contribution cannot go from {current} to {target}.")
