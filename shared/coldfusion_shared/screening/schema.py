"""Is every tensor of the base's body there, or announced as not trained?"""

from __future__ import annotations

from coldfusion_shared.schemas.contributions import Finding
from coldfusion_shared.screening import checks
from coldfusion_shared.screening.check import Check
from coldfusion_shared.weights.body import body
from coldfusion_shared.weights.frozen import is_frozen


@checks.register("schema")
class SchemaCheck(Check):
    """
    Weights that came whole have every tensor of the body that was not frozen.

    A model of fewer layers would otherwise pass for one whose other layers did not change. Whoever
    sends differences leaves out what did not change.
    """

    name = "schema"

    def header(self) -> Finding | None:
        """Reject weights that lack tensors."""
        subject = self.subject
        if subject.encoding != "full":
            return None
        missing = [
            name
            for name in body(subject.base)
            if name not in subject.names and not is_frozen(name, subject.frozen)
        ]
        if not missing:
            return None
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        return self.rejected(f"{len(missing)} tensors of the base are missing ({shown})", missing)

    def conclude(self) -> Finding:
        """Nothing is left to see in the values."""
        sent = sum(name in self.subject.names for name in body(self.subject.base))
        return self.passed(f"names, shapes and dtypes are the base's; {sent} tensors were sent")
