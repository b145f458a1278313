"""What became of one contribution, line by line: findings with numbers, its part in the fuse."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coldfusion_shared.schemas.contributions import Contribution, Effect, Finding


def receipt_lines(one: Contribution) -> Iterator[str]:
    """Yield the lines behind the contribution's state and reason."""
    yield from _lateness(one)
    if one.decided_by is not None:
        yield f"decided: by {one.decided_by}: {one.decision}"
    yield from (_finding(finding) for finding in one.findings)
    yield from _in_the_fuse(one)
    if one.hint:
        yield one.hint


def _lateness(one: Contribution) -> Iterator[str]:
    if one.staleness and one.factor is not None:
        bases = "base" if one.staleness == 1 else "bases"
        yield f"late: {one.staleness} {bases} behind, counts {one.factor:.2f} times"
    if one.carried:
        times = "once" if one.carried == 1 else f"{one.carried} times"
        yield f"kept: moved on to a later round {times}"


def _finding(found: Finding) -> str:
    numbers = []
    if found.measured is not None:
        numbers.append(f"measured {found.measured:.4g}")
    if found.limit is not None:
        numbers.append(f"limit {found.limit:.4g}")
    within = f" ({', '.join(numbers)})" if numbers else ""
    return f"{found.check}: {found.verdict}{within}: {found.message}"


def _in_the_fuse(one: Contribution) -> Iterator[str]:
    if one.weight is not None:
        yield f"weight: {one.weight:.4g}"
    if one.cosine is not None:
        yield f"cosine with the round's mean: {one.cosine:.2f}"
    if one.norm_ratio is not None:
        yield f"length: {one.norm_ratio:.2f} times the round's median"
    if one.own_effect is not None:
        yield f"score alone: {_score(one.own_effect)}"
    if one.round_effect is not None:
        yield f"score of the round: {_score(one.round_effect)}"


def _score(found: Effect) -> str:
    error = "" if found.standard_error is None else f" ± {found.standard_error:.2f}"
    points = f"{found.difference:+.2f}{error} points on {found.suite}"
    return f"{found.base:.2f} -> {found.score:.2f} ({points})"
