"""When a round closes by its policy, what it still waits for, and what it takes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from coldfusion_shared.rounds.choosing import pool_of
from coldfusion_shared.rounds.keeping import reasons
from coldfusion_shared.rounds.limits import Waiting
from coldfusion_shared.rounds.needs import Missing, enough, missing, needed_to_close

if TYPE_CHECKING:
    from coldfusion_shared.schemas.models import Policy

__all__ = [
    "Choice",
    "Missing",
    "Waiting",
    "choose",
    "deadline",
    "is_due",
    "missing",
    "needed_to_close",
    "next_closing",
]


@dataclass(frozen=True)
class Choice:
    """
    What a round takes of the contributions that it has.

    Attributes:
        chosen: ids, in the order of acceptance.
        kept: ids of all others, in the same order, and a sentence each that tells why.
    """

    chosen: list[str]
    kept: dict[str, str]


def choose(policy: Policy, waiting: Iterable[Waiting]) -> Choice:
    """
    Return what a round that closes now takes, and why it does not take the others.

    The largest number that the policy's limits allow, the contributors taking turns; see `choosing`
    for how. It may be none, where shares ask for more contributors than there are.
    """
    pool = pool_of(policy, waiting)
    chosen = pool.largest(policy.max_contributions)
    kept = reasons(pool.waiting, chosen, pool.limits, policy.max_contributions)
    return Choice([one.id for one in chosen], kept)


def is_due(
    policy: Policy,
    waiting: Iterable[Waiting],
    opened_at: datetime,
    close_at: datetime | None,
    now: datetime,
) -> bool:
    """
    Return whether a round closes now.

    Args:
        policy: the model's.
        waiting: the contributions that it has accepted.
        opened_at: when it opened.
        close_at: when it is to close with what it has, at the latest, as a maintainer has set for
            this round; null: not set. Whether the fusion method has enough by then is not asked.
        now: the time.
    """
    chosen = pool_of(policy, waiting).largest(policy.max_contributions)
    if chosen and close_at is not None and now >= close_at:
        return True
    if policy.by_hand or not enough(policy, chosen):
        return False
    latest = deadline(policy, opened_at)
    if latest is None or now >= latest:
        return True
    return policy.max_contributions is not None and len(chosen) >= policy.max_contributions


def deadline(policy: Policy, opened_at: datetime) -> datetime | None:
    """Return when a round closes if it has its minimum by then; null if it has no deadline."""
    if policy.deadline_seconds is None:
        return None
    return opened_at + timedelta(seconds=policy.deadline_seconds)


def next_closing(
    policy: Policy,
    waiting: Iterable[Waiting],
    opened_at: datetime,
    close_at: datetime | None,
    now: datetime,
) -> datetime | None:
    """
    Return the time to come at which a round closes if it has enough by then; null: there is none.

    Of a deadline and a time that a maintainer has set it is the first that has not passed. Beside a
    set time, which asks for no minimum, the deadline counts only while the round has its minimum.
    The arguments are those of `is_due`.
    """
    latest = deadline(policy, opened_at)
    if latest is not None and close_at is not None:
        chosen = pool_of(policy, waiting).largest(policy.max_contributions)
        latest = latest if enough(policy, chosen) else None
    return min((at for at in (latest, close_at) if at is not None and at > now), default=None)
