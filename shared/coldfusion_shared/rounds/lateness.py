"""How late a contribution is, and by which factor its update counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coldfusion_shared.schemas.models import Policy


@dataclass(frozen=True)
class Lateness:
    """
    What a contribution's base means for it.

    Attributes:
        staleness: how many steps its base is away from the head; 0: it is the head.
        factor: of its update in the fuse, above 0 and at most 1.
    """

    staleness: int
    factor: float


def too_old(policy: Policy, staleness: int) -> bool:
    """Return whether the policy refuses contributions that are so late."""
    return staleness > policy.max_staleness


def distance(parents: Mapping[int, int | None], base: int, head: int) -> int:
    """
    Return how many steps two bases are apart in the tree of bases.

    From base to parent, up to the first base that both come from, and down again: after a rollback
    a base may be on another line than the head. Two without a common one are as far apart as if
    what both began with were one step below a base of its own.
    """
    above = {number: steps for steps, number in enumerate(_line(parents, base))}
    line = _line(parents, head)
    for steps, number in enumerate(line):
        if number in above:
            return steps + above[number]
    return len(line) + len(above)


def factor(staleness: int, exponent: float) -> float:
    """Return ``(1 + staleness) ** -exponent``."""
    return float((1 + staleness) ** -exponent)


def _line(parents: Mapping[int, int | None], base: int) -> list[int]:
    """Return a base and all that it comes from, nearest first."""
    found: dict[int, None] = {}
    number: int | None = base
    while number is not None and number not in found:
        found[number] = None
        number = parents.get(number)
    return list(found)
