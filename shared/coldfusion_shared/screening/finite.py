"""Is every value a number that can be computed with?"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from coldfusion_shared.schemas.contributions import Finding
from coldfusion_shared.screening import checks
from coldfusion_shared.screening.check import Check, Subject

if TYPE_CHECKING:
    import numpy.typing as npt

    from coldfusion_shared.screening.check import Floats


# No training moves a weight so far. What is larger may leave float32 when methods scale it.
FARTHEST = 2.0**32


@checks.register("finite")
class FiniteCheck(Check):
    """No NaN, no infinity, nothing near it, alone or on the base: one would destroy the base."""

    name = "finite"

    def __init__(self, subject: Subject) -> None:
        """Start with no faulty tensor."""
        super().__init__(subject)
        self.faulty: dict[str, None] = {}
        self.far: dict[str, None] = {}

    def observe(self, tensor: str, update: Floats, base: npt.NDArray[Any]) -> None:
        """Remember the tensor if one of its values is not finite, or not in the base's dtype."""
        import numpy as np

        with np.errstate(over="ignore", invalid="ignore"):
            moved = (base + update).astype(base.dtype)
        if not np.isfinite(moved).all():
            self.faulty[tensor] = None
        elif update.max(initial=0) > FARTHEST or update.min(initial=0) < -FARTHEST:
            self.far[tensor] = None

    def conclude(self) -> Finding:
        """Reject if a value is not finite, or near it."""
        if self.faulty:
            return self.rejected(f"NaN or infinity in {_listed(self.faulty)}", list(self.faulty))
        if self.far:
            moved = f"values moved by more than {FARTHEST:.0f} in {_listed(self.far)}"
            return self.rejected(moved, list(self.far))
        return self.passed("all values are finite")


def _listed(names: Collection[str]) -> str:
    others = f" and {len(names) - 1} others" if len(names) > 1 else ""
    return f"{next(iter(names))}{others}"
