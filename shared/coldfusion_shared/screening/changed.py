"""Did the finetuning change anything?"""

from __future__ import annotations

from coldfusion_shared.schemas.contributions import Finding
from coldfusion_shared.screening import checks
from coldfusion_shared.screening.check import Check
from coldfusion_shared.screening.history import Past
from coldfusion_shared.screening.measures import Measures


@checks.register("changed")
class ChangedCheck(Check):
    """Weights identical to the base say nothing and would only dilute the others."""

    name = "changed"
    summary = "the weights are not the base's own"
    hint = "Train longer, or with a larger learning rate: heads alone are not contributed."

    def conclude(self, measures: Measures, past: Past) -> Finding:
        """Reject if nothing differs."""
        if not measures.changed_share:
            return self.rejected("the weights are identical to the base they were made from")
        share = f"{100 * measures.changed_share:.1f}% of the values changed"
        return self.passed(share, measures.changed_share)
