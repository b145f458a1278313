"""Did the weights move no further than any training moves them?"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from coldfusion_shared.schemas.contributions import Finding
from coldfusion_shared.screening import checks
from coldfusion_shared.screening.check import Check, Tunable
from coldfusion_shared.screening.history import Past
from coldfusion_shared.screening.measures import Measures


class MagnitudeParameters(Tunable):
    """Parameters of `magnitude`; the limits are measured in docs/explanation/screening.md."""

    largest: Annotated[float, Field(gt=0)] = Field(
        default=0.5, description="the most that any one value may have moved"
    )
    relative_norm: Annotated[float, Field(gt=0)] = Field(
        default=0.3, description="the longest that the update may be, by the base's norm"
    )


@checks.register("magnitude")
class MagnitudeCheck(Check):
    """An update of a size that no training has: scaled by a thousand, or full of noise."""

    name = "magnitude"
    summary = "no value moved further, and the update is no longer, than training makes it"
    parameters_type = MagnitudeParameters

    def conclude(self, measures: Measures, past: Past) -> Finding:
        """Compare the largest value and the norm with absolute limits."""
        most, longest = self.parameters.largest, self.parameters.relative_norm
        if measures.largest > most:
            told = f"a value moved by {measures.largest:.3g}, and {most:g} is the most"
            return self.flagged(told, measures.largest, most, by="largest")
        told = f"the update is {measures.relative_norm:.3g} times as long as the base"
        if measures.relative_norm > longest:
            told = f"{told}, and {longest:g} is the most"
            return self.flagged(told, measures.relative_norm, longest, by="relative_norm")
        return self.passed(told, measures.relative_norm, longest)
