"""Is the update about as long as the model's others?"""

from __future__ import annotations

from math import exp, log
from statistics import median
from typing import Annotated

from pydantic import Field

from coldfusion_shared.schemas.contributions import Finding
from coldfusion_shared.screening import checks
from coldfusion_shared.screening.check import Check, Tunable, shown
from coldfusion_shared.screening.history import Past
from coldfusion_shared.screening.measures import Measures

# What exp() still gives as a float, and a policy may exceed.
_MOST = 700.0
# The median absolute deviation of a normal distribution, by its standard deviation, inverted.
_PER_DEVIATION = 1.4826


class NormParameters(Tunable):
    """Parameters of `norm`; the limits are measured in docs/explanation/screening.md."""

    others: Annotated[int, Field(ge=2)] = Field(
        default=8, description="contributions to compare with that there have to be at least"
    )
    deviations: Annotated[float, Field(gt=0)] = Field(
        default=5.0,
        description="how far the logarithm of its norm may be from the others' median, in their "
        "standard deviations as their median absolute deviation tells them",
    )
    factor: Annotated[float, Field(ge=1)] = Field(
        default=100.0,
        description="what is within this factor of the median passes, however alike the others are",
    )


@checks.register("norm")
class NormCheck(Check):
    """
    A short history says how long honest updates are; one that is far longer would outvote them.

    Norms are relative to the base's, and compared on a logarithmic scale by median and median
    absolute deviation, which a minority of others cannot move far. One that is far shorter is
    flagged, too: it says nothing, and would count as much as those that do.
    """

    name = "norm"
    summary = "the update is about as long as the model's others"
    parameters_type = NormParameters
    compares = True
    hindsight = True

    def conclude(self, measures: Measures, past: Past) -> Finding:
        """Compare with what was let in before."""
        known = [log(other.relative_norm) for other in past.trusted if other.relative_norm > 0]
        if len(known) < self.parameters.others or not measures.relative_norm:
            return self.passed("nothing to compare with yet")
        middle = median(known)
        spread = _PER_DEVIATION * median(abs(one - middle) for one in known)
        limit = max(self.parameters.deviations * spread, log(self.parameters.factor))
        distance = log(measures.relative_norm) - middle
        ratio, most = exp(abs(distance)), shown(exp(min(limit, _MOST)))
        told = f"{ratio:.3g} times as {'long' if distance > 0 else 'short'} as the median update"
        if abs(distance) > limit:
            told = f"{told}, and {most:.3g} is the most"
            return self.flagged(told, ratio, most, by="factor")
        return self.passed(told, ratio, most)
