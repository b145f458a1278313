"""Why a round does not take a contribution that it has accepted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from coldfusion_shared.rounds.limits import KINDS, Limit, Waiting


def reasons(
    waiting: Sequence[Waiting],
    chosen: Sequence[Waiting],
    limits: Sequence[Limit],
    most: int | None,
) -> dict[str, str]:
    """
    Return a sentence for each contribution that is not taken.

    Args:
        waiting: all, in the order in which the sentences are wanted.
        chosen: those that are taken.
        limits: why others may not be.
        most: how many a round takes; null: any number.
    """
    taken = {one.id for one in chosen}
    counts = {limit.kind: Counter(one.group(limit.kind) for one in chosen) for limit in limits}
    found = {}
    for one in waiting:
        if one.id not in taken:
            own = [(limit, counts[limit.kind][one.group(limit.kind)]) for limit in limits]
            found[one.id] = _reason(one, own, len(chosen), most)
    return found


def _reason(one: Waiting, own: Sequence[tuple[Limit, int]], size: int, most: int | None) -> str:
    """`own`: how many of its contributor, data set and task are taken, of `size` in all."""
    for limit, count in own:
        if limit.number is not None and count >= limit.number:
            return (
                f"{_has(one, limit)} {_contributions(count)} in this round already, the most that "
                f"one {KINDS[limit.kind]} may have."
            )
    if size == most:
        return f"The round has {_contributions(size)} already, the most that it takes."
    for limit, count in own:
        if limit.share is not None and count >= limit.most(size):
            return _too_much(one, limit, limit.share, count, size)
    return "It does not fit beside what was accepted before it: the limits of the round exclude it."


def _too_much(one: Waiting, limit: Limit, share: float, count: int, size: int) -> str:
    kind, percent = KINDS[limit.kind], f"{100 * share:.4g} percent"
    if not size:
        return (
            f"One {kind} may have {percent} of a round at most, so that a round needs "
            f"contributions of {limit.fewest()} {kind}s at least."
        )
    return (
        f"{_has(one, limit)} {count} of the {_contributions(size)} in this round, and one {kind} "
        f"may have {percent} at most."
    )


def _has(one: Waiting, limit: Limit) -> str:
    group = one.group(limit.kind)
    if limit.kind == "contributor":
        return f"{group} has"
    if group is None:
        return f"Undeclared {KINDS[limit.kind]}s, which count as one, have"
    return f"The {KINDS[limit.kind]} {group!r} has"


def _contributions(count: int) -> str:
    return f"{count} contribution{'s'[: count != 1]}"
