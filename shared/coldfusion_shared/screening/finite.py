"""Is every value a number?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from coldfusion_shared.schemas.contributions import Finding
from coldfusion_shared.screening import checks
from coldfusion_shared.screening.check import Check, Subject

if TYPE_CHECKING:
    import numpy.typing as npt

    from coldfusion_shared.screening.check import Floats


@checks.register("finite")
class FiniteCheck(Check):
    """No NaN and no infinity, alone or put onto the base: one of them would destroy it."""

    name = "finite"

    def __init__(self, subject: Subject) -> None:
        """Start with no faulty tensor."""
        super().__init__(subject)
        self.faulty: dict[str, None] = {}

    def observe(self, tensor: str, update: Floats, base: npt.NDArray[Any]) -> None:
        """Remember the tensor if one of its values is not finite, or not in the base's dtype."""
        import numpy as np

        with np.errstate(over="ignore", invalid="ignore"):
            moved = (base + update).astype(base.dtype)
        if not np.isfinite(moved).all():
            self.faulty[tensor] = None

    def conclude(self) -> Finding:
        """Reject if a value is not finite."""
        if self.faulty:
            names = list(self.faulty)
            others = f" and {len(names) - 1} others" if len(names) > 1 else ""
            return self.rejected(f"NaN or infinity in {names[0]}{others}", names)
        return self.passed("all values are finite")
