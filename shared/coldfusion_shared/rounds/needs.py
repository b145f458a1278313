"""What an open round still waits for, in numbers and in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from coldfusion_shared.rounds.choosing import Pool, pool_of
from coldfusion_shared.rounds.limits import KINDS, Kind, Limit, Waiting, fewest, limits

if TYPE_CHECKING:
    from coldfusion_shared.schemas.models import Policy

# With hundreds of contributions that wait, each try takes a few hundredths of a second.
_MOST_TRIES = 20


@dataclass(frozen=True)
class Missing:
    """
    What a round needs before it closes by itself, by hand, or at a time that is set.

    Attributes:
        contributions: how many more have to be accepted, at the least.
        contributors: for the smallest such round, how many contributors there have to be besides
            those whose contributions count.
        datasets: likewise.
        tasks: likewise.
        by_hand: whether only a maintainer closes it.
        at_set_time: whether it closes with what it has at a time that a maintainer has set.
    """

    contributions: int
    contributors: int
    datasets: int = 0
    tasks: int = 0
    by_hand: bool = False
    at_set_time: bool = False

    @property
    def text(self) -> str:
        """The same in a sentence."""
        if not self.contributions:
            return self._enough
        more = f"Needs {_counted(self.contributions, 'more accepted contribution')}"
        parts = [
            f"{word} {_counted(count, f'further {KINDS[kind]}')}{self._at_least(count)}"
            for word, kind, count in self._groups()
            if count
        ]
        return ", ".join([more, *parts]) + (
            "; then a maintainer closes it by hand." if self.by_hand else "."
        )

    @property
    def _enough(self) -> str:
        if self.at_set_time:
            return "Has enough for the time that a maintainer has set."
        return "A maintainer closes it by hand." if self.by_hand else "Has all that it needs."

    def _groups(self) -> list[tuple[str, Kind, int]]:
        return [
            ("from", "contributor", self.contributors),
            ("on", "dataset", self.datasets),
            ("for", "task", self.tasks),
        ]

    def _at_least(self, count: int) -> str:
        return " at least" if count < self.contributions else ""


@dataclass(frozen=True)
class _Outlook:
    """What a round of `size` can take now, and how many `more` it needs if those are the best."""

    size: int
    chosen: list[Waiting]
    more: int


def needed_to_close(policy: Policy) -> int:
    """Return with how many contributions, at the least, a round closes by itself or by hand."""
    return max(_needed(policy), _quorum(policy), fewest(limits(policy)))


def enough(policy: Policy, chosen: Sequence[Waiting]) -> bool:
    """Return whether what a round would take is enough to close."""
    contributors = _distinct(chosen, "contributor")
    return len(chosen) >= needed_to_close(policy) and contributors >= _quorum(policy)


def enough_left(policy: Policy, left: Sequence[Waiting]) -> bool:
    """Return whether what withdrawals left of a closed round is enough: it need not be full."""
    return enough(policy.model_copy(update={"max_contributions": None}), left)


def missing(
    policy: Policy, waiting: Iterable[Waiting], *, least: int = 1, at_set_time: bool = False
) -> Missing:
    """
    Return what a round still needs.

    Contributions are counted as if each one to come were the best for the round: where a data set
    has all that it may have, say, not on that one.

    Args:
        policy: the model's.
        waiting: the contributions that it has accepted.
        least: how many its fusion method needs.
        at_set_time: whether a maintainer has set when it closes with what it has; then the policy's
            minimum and quorum are not asked for.
    """
    if at_set_time:
        policy = policy.model_copy(update={"by_hand": True})
    by_hand = policy.by_hand and not at_set_time
    pool, needed = pool_of(policy, waiting), max(needed_to_close(policy), least)
    chosen = pool.largest(policy.max_contributions)
    if len(chosen) >= needed and enough(policy, chosen):
        return Missing(0, 0, by_hand=by_hand, at_set_time=at_set_time)
    outlook = _best(policy, pool, needed)
    groups = {limit.kind: _groups_missing(limit, outlook) for limit in pool.limits}
    quorum = _quorum(policy) - _distinct(outlook.chosen, "contributor")
    return Missing(
        contributions=max(1, outlook.more),
        contributors=max(0, quorum, groups.get("contributor", 0)),
        datasets=groups.get("dataset", 0),
        tasks=groups.get("task", 0),
        by_hand=by_hand,
        at_set_time=at_set_time,
    )


def _needed(policy: Policy) -> int:
    if policy.by_hand:
        return 1
    if policy.max_contributions is not None and policy.deadline_seconds is None:
        return policy.max_contributions
    return policy.min_contributions


def _quorum(policy: Policy) -> int:
    """Return how many distinct contributors a round needs; by hand it is closed without them."""
    return 0 if policy.by_hand else policy.min_contributors


def _best(policy: Policy, pool: Pool, needed: int) -> _Outlook:
    """
    Return the size of round that needs the fewest more, among `_MOST_TRIES` that look best.

    That need not be the smallest: of 6 contributions, a share of a third is 2; of 5 it is only 1.
    """
    quorum = _quorum(policy)
    best = _outlook(pool, needed, quorum)
    # Of a larger round more is missing even if it takes all that waits.
    last = min(policy.max_contributions or inf, len(pool.waiting) + best.more - 1)
    fewest = quorum - _distinct(pool.waiting, "contributor")
    promising = sorted(
        (max(size - pool.bound(size), fewest), size) for size in range(best.size + 1, int(last) + 1)
    )
    for least, size in promising[:_MOST_TRIES]:
        if least < best.more:
            best = min(best, _outlook(pool, size, quorum), key=lambda one: one.more)
    return best


def _outlook(pool: Pool, size: int, quorum: int) -> _Outlook:
    chosen = pool.picked(size)
    more = max(size - len(chosen), quorum - _distinct(chosen, "contributor"))
    return _Outlook(size, chosen, more)


def _groups_missing(limit: Limit, outlook: _Outlook) -> int:
    # Rounded up.
    needed = -(-outlook.size // limit.most(outlook.size))
    return max(0, needed - _distinct(outlook.chosen, limit.kind))


def _distinct(waiting: Iterable[Waiting], kind: Kind) -> int:
    return len({one.group(kind) for one in waiting})


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s'[: count != 1]}"
