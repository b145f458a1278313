"""A round's way: its states, who may follow whom, and when it closes. Data and pure decisions."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from coldfusion_shared.errors import InvalidTransition

if TYPE_CHECKING:
    from coldfusion_shared.schemas.models import Policy


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


TRANSITIONS: dict[RoundState, frozenset[RoundState]] = {
    RoundState.OPEN: frozenset({RoundState.CLOSED, RoundState.CANCELLED}),
    RoundState.CLOSED: frozenset({RoundState.FUSING, RoundState.CANCELLED}),
    RoundState.FUSING: frozenset({RoundState.EVALUATING, RoundState.FAILED, RoundState.CANCELLED}),
    RoundState.EVALUATING: frozenset(
        {RoundState.PUBLISHED, RoundState.REJECTED, RoundState.FAILED, RoundState.CANCELLED}
    ),
    # A failure lies in the surroundings (a full disk, a lost store), so the round is tried again.
    RoundState.FAILED: frozenset({RoundState.FUSING, RoundState.CANCELLED}),
    RoundState.PUBLISHED: frozenset(),
    RoundState.REJECTED: frozenset(),
    RoundState.CANCELLED: frozenset(),
}


def check_transition(current: RoundState, target: RoundState) -> None:
    """Raise `InvalidTransition` unless `TRANSITIONS` allows going from `current` to `target`."""
    if target not in TRANSITIONS[current]:
        raise InvalidTransition(f"A round cannot go from {current} to {target}.")


def needed_to_close(policy: Policy) -> int:
    """Return how many accepted contributions a round needs before it closes by itself."""
    if policy.max_contributions is not None and policy.deadline_seconds is None:
        return policy.max_contributions
    return policy.min_contributions


def missing_to_close(policy: Policy, accepted: int) -> int:
    """Return how many more accepted contributions a round needs before it closes by itself."""
    return max(0, needed_to_close(policy) - accepted)


def deadline(policy: Policy, opened_at: datetime) -> datetime | None:
    """Return when a round closes if it has its minimum by then; null if it has no deadline."""
    if policy.deadline_seconds is None:
        return None
    return opened_at + timedelta(seconds=policy.deadline_seconds)


def is_due(policy: Policy, accepted: int, opened_at: datetime, now: datetime) -> bool:
    """Return whether a round closes now by its policy."""
    if missing_to_close(policy, accepted):
        return False
    latest = deadline(policy, opened_at)
    if latest is None or now >= latest:
        return True
    return policy.max_contributions is not None and accepted >= policy.max_contributions
