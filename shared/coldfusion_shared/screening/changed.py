"""Did the finetuning change anything?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from coldfusion_shared.schemas.contributions import Finding
from coldfusion_shared.screening import checks
from coldfusion_shared.screening.check import Check, Subject
from coldfusion_shared.weights.body import body

if TYPE_CHECKING:
    import numpy.typing as npt

    from coldfusion_shared.screening.check import Floats


@checks.register("changed")
class ChangedCheck(Check):
    """Weights identical to the base say nothing and would only dilute the others."""

    name = "changed"

    def __init__(self, subject: Subject) -> None:
        """Count from zero."""
        super().__init__(subject)
        self.changed = 0
        self.total = sum(span.elements for span in body(subject.base).values())

    def observe(self, tensor: str, update: Floats, base: npt.NDArray[Any]) -> None:
        """Count the values that differ from the base."""
        import numpy as np

        self.changed += int(np.count_nonzero(update))

    def conclude(self) -> Finding:
        """Reject if nothing differs."""
        if not self.changed:
            return self.rejected("the weights are identical to the base they were made from")
        return self.passed(f"{100 * self.changed / self.total:.1f}% of the values changed")
