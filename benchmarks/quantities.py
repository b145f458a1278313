"""The numbers that screening has limits for: what each is, on which side, with what margin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import log
from typing import Any

from coldfusion_shared.parameters import validated
from coldfusion_shared.schemas.contributions import Finding
from coldfusion_shared.screening import discover
from coldfusion_shared.screening.check import Subject
from coldfusion_shared.screening.history import Past
from coldfusion_shared.screening.measures import Measures

MOST, LEAST = "at most", "at least"


@dataclass(frozen=True)
class Quantity:
    """
    One limit of one check.

    Attributes:
        check: its name.
        parameter: that is the limit.
        side: whether honest ones are at most, or at least, at the limit.
        margin: the limit that a worst honest value asks for.
        value: of a contribution; null where there is nothing to compare with.
        logarithmic: how it is drawn.
    """

    check: str
    parameter: str
    side: str
    margin: Callable[[float], float]
    value: Callable[[Measures, Past], float | None]
    logarithmic: bool = True

    @property
    def name(self) -> str:
        """The parameter, as a policy names it."""
        return f"{self.check}.{self.parameter}"

    @property
    def limit(self) -> float:
        """The default in force."""
        return float(getattr(discover()[self.check].parameters_type(), self.parameter))

    def is_beyond(self, value: float, limit: float) -> bool:
        """Return whether a value is on the wrong side of a limit."""
        return value > limit if self.side == MOST else value < limit

    def worst(self, values: list[float]) -> float:
        """Return the value that is nearest to the wrong side, or farthest on it."""
        return max(values) if self.side == MOST else min(values)


def _finding(measures: Measures, past: Past, check: str, **parameters: Any) -> Finding:
    """Return what a check says with parameters of which only the measured number is wanted."""
    kind = discover()[check]
    chosen = validated("a check", kind.parameters_type, parameters)
    return kind(Subject("full", (), (), {}), chosen).conclude(measures, past)


def _measured(check: str, **parameters: Any) -> Callable[[Measures, Past], float | None]:
    def value(measures: Measures, past: Past) -> float | None:
        return _finding(measures, past, check, **parameters).measured

    return value


def _deviations(measures: Measures, past: Past) -> float | None:
    """Return how many standard deviations of the history a norm is from its median."""
    # One deviation is the limit then, and the ratio is beside it.
    found = _finding(measures, past, "norm", deviations=1, factor=1)
    if found.measured is None or found.limit is None or found.limit <= 1:
        return None
    return log(found.measured) / log(found.limit)


def _excess(measures: Measures, past: Past) -> float | None:
    """Return by how much the tensor that sticks out most does so beside the others' updates."""
    found = _finding(measures, past, "tensor_outliers", relative_norm=1e30, factor=1.0001)
    # With too few others the check tells another number.
    return found.measured if found.limit == 1.0001 else None


def _farthest_tensor(measures: Measures, past: Past) -> float | None:
    return max(measures.tensor_norms.values(), default=None)


def _largest(measures: Measures, past: Past) -> float | None:
    return measures.largest


QUANTITIES = (
    Quantity("magnitude", "largest", MOST, lambda worst: 10 * worst, _largest),
    Quantity(
        "magnitude",
        "relative_norm",
        MOST,
        lambda worst: 3 * worst,
        lambda measures, past: measures.relative_norm,
    ),
    Quantity(
        "unrelated",
        "cosine",
        LEAST,
        lambda worst: 1 - 10 * (1 - worst),
        lambda measures, past: measures.cosine_to_base,
        logarithmic=False,
    ),
    Quantity(
        "sparsity",
        "least",
        LEAST,
        lambda worst: worst / 10,
        lambda measures, past: measures.changed_share,
    ),
    Quantity(
        "copies",
        "cosine",
        MOST,
        lambda worst: worst + (1 - worst) / 2,
        _measured("copies"),
        logarithmic=False,
    ),
    Quantity(
        "direction",
        "cosine",
        LEAST,
        lambda worst: worst - 0.025,
        _measured("direction", cosine=-1),
        logarithmic=False,
    ),
    Quantity("norm", "factor", MOST, lambda worst: 1.5 * worst, _measured("norm", factor=1)),
    Quantity("norm", "deviations", MOST, lambda worst: 1.5 * worst, _deviations),
    Quantity("tensor_outliers", "relative_norm", MOST, lambda worst: 3 * worst, _farthest_tensor),
    Quantity("tensor_outliers", "factor", MOST, lambda worst: 2 * worst, _excess),
)


def values_of(measures: Measures, past: Past) -> Mapping[str, float]:
    """Return all quantities of a contribution that can be told, by name."""
    found = {one.name: one.value(measures, past) for one in QUANTITIES}
    return {name: value for name, value in found.items() if value is not None}
