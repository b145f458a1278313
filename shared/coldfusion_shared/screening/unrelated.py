"""Were the weights made from this base at all?"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from coldfusion_shared.schemas.contributions import Finding
from coldfusion_shared.screening import checks
from coldfusion_shared.screening.check import Check, Tunable
from coldfusion_shared.screening.history import Past
from coldfusion_shared.screening.measures import Measures


class UnrelatedParameters(Tunable):
    """Parameters of `unrelated`; the limit is measured in docs/explanation/screening.md."""

    cosine: Annotated[float, Field(ge=-1, le=1)] = Field(
        default=0.9, description="the least cosine between the finetuned weights and the base's"
    )


@checks.register("unrelated")
class UnrelatedCheck(Check):
    """
    Finetuned weights lie close to their base; those of another model, or random ones, do not.

    Unrelated weights of the base's own size have a cosine near 0 to it, and an update that is about
    the root of two times as long as it.
    """

    name = "unrelated"
    summary = "the weights lie close to the base that they are said to be made from"
    parameters_type = UnrelatedParameters

    def conclude(self, measures: Measures, past: Past) -> Finding:
        """Compare the direction of the finetuned weights with the base's."""
        found, least = measures.cosine_to_base, self.parameters.cosine
        told = f"the cosine between the weights and the base's is {found:.3f}"
        if found < least:
            told = f"{told}, and {least:g} is the least: they seem to be of another model"
            return self.flagged(told, found, least, by="cosine")
        return self.passed(told, found, least)
