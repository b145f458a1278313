"""Did as many values change as training changes?"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from coldfusion_shared.schemas.contributions import Finding
from coldfusion_shared.screening import checks
from coldfusion_shared.screening.check import Check, Tunable
from coldfusion_shared.screening.history import Past
from coldfusion_shared.screening.measures import Measures
from coldfusion_shared.weights.body import body

Share = Annotated[float, Field(ge=0, le=1)]

# What leaves out all but the largest values of an update.
SPARSE = frozenset({"delta-sparse"})


class SparsityParameters(Tunable):
    """Parameters of `sparsity`; the limits are measured in docs/explanation/screening.md."""

    least: Share = Field(
        default=1e-3, description="the least share of the body's values that has to have changed"
    )
    least_sparse: Share = Field(
        default=1e-4,
        description="the same of an encoding that keeps only the largest values; and, of every "
        "update, the least share of values that has to carry it",
    )


@checks.register("sparsity")
class SparsityCheck(Check):
    """
    Training moves nearly all of what it trains; an edit by hand moves a few values far.

    Dust on all the others hides no edit: an update has to be as long as so many values that all
    moved as far as the farthest one.
    """

    name = "sparsity"
    summary = "as many values changed as training changes"
    parameters_type = SparsityParameters

    def conclude(self, measures: Measures, past: Past) -> Finding:
        """Compare the share of changed values with what the encoding allows."""
        sparse = self.subject.encoding in SPARSE
        least = self.parameters.least_sparse if sparse else self.parameters.least
        told = f"{100 * measures.changed_share:.3g}% of the values changed"
        if measures.changed_share < least:
            told = f"{told}, and {100 * least:g}% is the least"
            by = "least_sparse" if sparse else "least"
            return self.flagged(told, measures.changed_share, least, by=by)
        carried, least = self._carried(measures), self.parameters.least_sparse
        if carried < least:
            told = f"{100 * carried:.2g}% of the values are nearly all of the update"
            told = f"{told}, and {100 * least:g}% is the least"
            return self.flagged(told, carried, least, by="least_sparse")
        return self.passed(told, measures.changed_share, least)

    def _carried(self, measures: Measures) -> float:
        """Return the share of values that would make up the norm, were all the largest one."""
        elements = sum(span.elements for span in body(self.subject.base).values())
        if not elements or not measures.largest:
            return 1.0
        return min(1.0, (measures.norm / measures.largest) ** 2 / elements)
