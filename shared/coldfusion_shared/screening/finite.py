"""Is every value a number that can be computed with?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from coldfusion_shared.schemas.contributions import Finding
from coldfusion_shared.screening import checks
from coldfusion_shared.screening.check import Check, Subject, listed
from coldfusion_shared.screening.chunk import FARTHEST
from coldfusion_shared.screening.history import Past
from coldfusion_shared.screening.measures import Measures

if TYPE_CHECKING:
    from coldfusion_shared.screening.chunk import Chunk


@checks.register("finite")
class FiniteCheck(Check):
    """No NaN, no infinity, nothing near it, alone or on the base: one would destroy the base."""

    name = "finite"
    summary = "every value is finite, and not near infinity"
    hint = "The training diverged: try a smaller learning rate."

    def __init__(self, subject: Subject, parameters: Any = None) -> None:
        """Start with no faulty tensor."""
        super().__init__(subject, parameters)
        self.faulty: dict[str, None] = {}
        self.far: dict[str, None] = {}

    def observe(self, chunk: Chunk) -> None:
        """Remember the tensor if one of its values is not finite, or not in the base's dtype."""
        if not chunk.finite:
            self.faulty[chunk.span.name] = None
        elif chunk.largest > FARTHEST:
            self.far[chunk.span.name] = None

    def values(self) -> Finding | None:
        """Reject if a value is not finite, or near it."""
        if self.faulty:
            return self.rejected(f"NaN or infinity in {listed(self.faulty)}", self.faulty)
        if self.far:
            moved = f"values moved by more than {FARTHEST:.0f} in {listed(self.far)}"
            return self.rejected(moved, self.far)
        return None

    def conclude(self, measures: Measures, past: Past) -> Finding:
        """Nothing is left to say."""
        return self.passed("all values are finite")
