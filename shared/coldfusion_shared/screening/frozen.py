"""Did what was said to be frozen stay as it was?"""

from __future__ import annotations

from coldfusion_shared.schemas.contributions import Finding
from coldfusion_shared.screening import checks
from coldfusion_shared.screening.check import Check, listed
from coldfusion_shared.screening.history import Past
from coldfusion_shared.screening.measures import Measures
from coldfusion_shared.weights.frozen import is_frozen


@checks.register("frozen")
class FrozenCheck(Check):
    """Layers that were declared as not trained did not change."""

    name = "frozen"
    summary = "what was declared as not trained did not change"
    hint = "Declare as not trained only what was not, and send it once more."

    def conclude(self, measures: Measures, past: Past) -> Finding:
        """Reject if one changed."""
        frozen = self.subject.frozen
        changed = [name for name in measures.tensor_norms if is_frozen(name, frozen)]
        if changed:
            told = f"{listed(changed)} changed, but was declared as not trained"
            return self.rejected(told, changed)
        return self.passed("what was not trained did not change")
