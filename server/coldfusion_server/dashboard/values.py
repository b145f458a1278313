"""Scores with their errors, and what is made of them. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean, median

# Of a normal distribution: so many standard errors to each side hold 95 % of it.
CERTAIN = 1.96


@dataclass(frozen=True)
class Value:
    """
    A score, an average or a difference.

    Attributes:
        score: in percent; a difference in points.
        error: one standard error, in points; null: not known.
    """

    score: float
    error: float | None = None

    @property
    def low(self) -> float:
        """One standard error less; the score itself where none is known."""
        return self.score - (self.error or 0.0)

    @property
    def high(self) -> float:
        """One standard error more; the score itself where none is known."""
        return self.score + (self.error or 0.0)

    @property
    def clear(self) -> bool:
        """Whether it differs from nothing by more than its error explains, as far as known."""
        return self.error is None or abs(self.score) >= CERTAIN * self.error


def average(values: Iterable[Value]) -> Value:
    """Return the plain mean of the scores of different data sets, at least one."""
    given = list(values)
    errors = _all_known(given)
    # Data sets are independent of each other: the variance of a sum is the sum of theirs.
    error = None if errors is None else math.hypot(*errors) / len(given)
    return Value(fmean(value.score for value in given), error)


def difference(new: Value, old: Value) -> Value:
    """
    Return by how many points `new` is above `old`.

    The error holds for independent scores. Two bases that are measured on the same examples err
    alike, so that the true one is rather smaller: what this calls a difference is one.
    """
    errors = _all_known([new, old])
    return Value(new.score - old.score, None if errors is None else math.hypot(*errors))


def middle(values: Iterable[Value]) -> Value:
    """
    Return the median of what several measured of the same thing, at least one.

    They measure on the same examples: many of them are not more certain than one.
    """
    given = list(values)
    if len(given) == 1:
        return given[0]
    errors = _all_known(given)
    score = median(value.score for value in given)
    return Value(score, None if errors is None else median(errors))


def _all_known(values: list[Value]) -> list[float] | None:
    errors = [value.error for value in values if value.error is not None]
    return errors if len(errors) == len(values) else None
