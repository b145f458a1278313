"""Do the finetuned tensors still hold anything?"""

from __future__ import annotations

from dataclasses import dataclass
from math import isclose, sqrt
from typing import TYPE_CHECKING, Any

from coldfusion_shared.schemas.contributions import Finding
from coldfusion_shared.screening import checks
from coldfusion_shared.screening.check import Check, Subject, Tunable, listed
from coldfusion_shared.screening.history import Past
from coldfusion_shared.screening.measures import Measures

if TYPE_CHECKING:
    from coldfusion_shared.screening.chunk import Chunk

# What base and update lose when they are added up, by the larger of the two, and then some.
_ROUNDING = 1e-4


@dataclass
class _Tensor:
    """What was seen of one tensor: the one value that it has, and whether the base has only one."""

    value: float | None
    base_constant: bool


@checks.register("constant")
class ConstantCheck(Check):
    """A tensor of one value, where the base's has many, was wiped out and not trained."""

    name = "constant"
    summary = "no tensor is one value over and over that was not before"
    parameters_type = Tunable

    def __init__(self, subject: Subject, parameters: Any = None) -> None:
        """Start with nothing seen."""
        super().__init__(subject, parameters)
        self.tensors: dict[str, _Tensor] = {}

    def observe(self, chunk: Chunk) -> None:
        """Keep the value of a tensor as long as all its chunks have the same one."""
        seen = self.tensors.setdefault(
            chunk.span.name, _Tensor(chunk.constant, chunk.base_constant)
        )
        if not _same(seen.value, chunk):
            seen.value = None
        seen.base_constant &= chunk.base_constant

    def conclude(self, measures: Measures, past: Past) -> Finding:
        """Flag tensors that have become constant."""
        wiped = [
            name
            for name, seen in self.tensors.items()
            if seen.value is not None and not seen.base_constant
        ]
        if wiped:
            return self.flagged(f"all values are the same in {listed(wiped)}", tensors=wiped)
        return self.passed("no tensor has become constant")


def _same(value: float | None, chunk: Chunk) -> bool:
    """Return whether a chunk has one value, which is `value` up to the rounding of the base's."""
    if value is None or chunk.constant is None:
        return False
    size = sqrt(chunk.base_squares / chunk.elements)
    return isclose(value, chunk.constant, rel_tol=_ROUNDING, abs_tol=_ROUNDING * size)
