"""Did what was said to be frozen stay as it was?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from coldfusion_shared.schemas.contributions import Finding
from coldfusion_shared.screening import checks
from coldfusion_shared.screening.check import Check, Subject
from coldfusion_shared.weights.frozen import is_frozen

if TYPE_CHECKING:
    import numpy.typing as npt

    from coldfusion_shared.screening.check import Floats


@checks.register("frozen")
class FrozenCheck(Check):
    """Layers that were declared as not trained did not change."""

    name = "frozen"

    def __init__(self, subject: Subject) -> None:
        """Start with no changed tensor."""
        super().__init__(subject)
        self.changed: dict[str, None] = {}

    def observe(self, tensor: str, update: Floats, base: npt.NDArray[Any]) -> None:
        """Remember a frozen tensor that differs from the base."""
        if self.subject.frozen and update.any() and is_frozen(tensor, self.subject.frozen):
            self.changed[tensor] = None

    def conclude(self) -> Finding:
        """Reject if one changed."""
        if self.changed:
            names = list(self.changed)
            others = f" and {len(names) - 1} others" if len(names) > 1 else ""
            return self.rejected(
                f"{names[0]}{others} changed, but was declared as not trained", names
            )
        return self.passed("what was not trained did not change")
