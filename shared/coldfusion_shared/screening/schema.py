"""Are the tensors those of the base's body?"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from coldfusion_shared.parameters import Parameters
from coldfusion_shared.schemas.contributions import Finding
from coldfusion_shared.screening import checks
from coldfusion_shared.screening.check import Check, listed
from coldfusion_shared.screening.history import Past
from coldfusion_shared.screening.measures import Measures
from coldfusion_shared.weights.body import OPTIONAL_MODULE, body
from coldfusion_shared.weights.frozen import is_frozen


class SchemaParameters(Parameters):
    """Parameters of `schema`."""

    heads: Literal["ignore", "refuse"] = Field(
        default="ignore",
        description="what becomes of a contribution that brings its task's head: the head is "
        "passed over, or the contribution refused",
    )


@checks.register("schema")
class SchemaCheck(Check):
    """
    Weights that came whole have every tensor of the body that was not frozen.

    A model of fewer layers would otherwise pass for one whose other layers did not change. Whoever
    sends differences leaves out what did not change. Names, shapes and dtypes of what is there
    were compared with the base's when the update was opened.
    """

    name = "schema"
    summary = "names, shapes and dtypes are the base's"
    hint = (
        "Contribute the whole body of a model that was finetuned from this base, and nothing that "
        "the model's policy does not take."
    )
    parameters_type = SchemaParameters

    def header(self) -> Finding | None:
        """Reject weights that lack tensors, and heads where the model refuses them."""
        missing = self._missing()
        if missing:
            shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
            told = f"{len(missing)} tensors of the base are missing ({shown})"
            return self.rejected(told, missing)
        heads = [name for name, tensor in self.subject.outside.items() if tensor.span.is_float]
        if heads and self.parameters.heads == "refuse":
            return self.rejected(f"the model takes no heads, and {listed(heads)} is one", heads)
        return None

    def _missing(self) -> list[str]:
        subject = self.subject
        if subject.encoding != "full":
            return []
        return [
            name
            for name in body(subject.base)
            if name not in subject.names
            and not is_frozen(name, subject.frozen)
            and OPTIONAL_MODULE not in name.split(".")
        ]

    def conclude(self, measures: Measures, past: Past) -> Finding:
        """Nothing is left to see in the values."""
        sent = sum(name in self.subject.names for name in body(self.subject.base))
        return self.passed(f"names, shapes and dtypes are the base's; {sent} tensors were sent")
