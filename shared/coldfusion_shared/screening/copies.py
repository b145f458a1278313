"""Was the same update contributed before, by whomever, in whatever form and length?"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from coldfusion_shared.schemas.contributions import Finding
from coldfusion_shared.screening import checks
from coldfusion_shared.screening.check import Check, Tunable
from coldfusion_shared.screening.history import Other, Past
from coldfusion_shared.screening.measures import Measures


class CopiesParameters(Tunable):
    """Parameters of `copies`; the limit is measured in docs/explanation/screening.md."""

    cosine: Annotated[float, Field(ge=0.5, lt=1)] = Field(
        default=0.999,
        description="updates with a larger cosine, or one below minus that, count as copies",
    )


@checks.register("copies")
class CopiesCheck(Check):
    """
    Nobody's weights count twice: not sent again, not by a second account, not scaled.

    Who sends his own again is told so, and nothing is lost. The same from somebody else is what the
    action is for: one of the two has taken it from the other, or they are one. Of others no more is
    said than that.
    """

    name = "copies"
    summary = "the same update, or one that differs in length alone, was not contributed before"
    parameters_type = CopiesParameters
    hint = "What was contributed counts once, whoever sends it: finetune anew to contribute more."
    compares = True

    def conclude(self, measures: Measures, past: Past) -> Finding:
        """Compare with all that are known, and with their contributor's own first."""
        if not past.others:
            return self.passed("nothing to compare with yet")
        limit = self.parameters.cosine
        found = [(self._likeness(measures, other), other) for other in past.others]
        own = [one for one in found if one[1].contributor == past.contributor]
        for likeness, other in own:
            if likeness > limit:
                told = f"you contributed this already, as {other.id}"
                return self._finding("reject", told, likeness, limit)
        likeness = max(one[0] for one in found)
        if likeness > limit:
            told = "somebody else has contributed the same update, up to its length"
            return self.flagged(told, likeness, limit, by="cosine")
        return self.passed("not contributed before", likeness, limit)

    def _likeness(self, measures: Measures, other: Other) -> float:
        if other.digest == measures.digest:
            return 1.0
        return 0.0 if other.sketch is None else abs(measures.sketch.cosine(other.sketch))
