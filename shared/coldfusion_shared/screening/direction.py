"""Does the update pull the way that its round does?"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import median_high
from typing import Annotated

import numpy as np
from pydantic import Field

from coldfusion_shared.schemas.contributions import Finding
from coldfusion_shared.screening import checks
from coldfusion_shared.screening.check import Check, Tunable
from coldfusion_shared.screening.history import Past
from coldfusion_shared.screening.measures import Measures
from coldfusion_shared.screening.sketch import Sketch


class DirectionParameters(Tunable):
    """Parameters of `direction`; the limit is measured in docs/explanation/screening.md."""

    others: Annotated[int, Field(ge=1)] = Field(
        default=3, description="contributions of the round that there have to be at least"
    )
    cosine: Annotated[float, Field(ge=-1, le=1)] = Field(
        default=-0.06,
        description="the least cosine between the update and the direction of most others of its "
        "round",
    )


@checks.register("direction")
class DirectionCheck(Check):
    """
    An update with its sign turned undoes what the others do.

    Updates of different tasks are all but at right angles; training pulls them a little the same
    way, and never clearly against each other. The others count with the same length each, and by
    the median: whom a minority is turned against, that minority does not turn against the rest.
    """

    name = "direction"
    summary = "the update does not point against the others of its round"
    parameters_type = DirectionParameters
    compares = True
    hindsight = True

    def conclude(self, measures: Measures, past: Past) -> Finding:
        """Compare with the direction of most of the round's others."""
        known: list[Sketch] = [
            other.sketch for other in past.of_round() if other.sketch is not None
        ]
        if len(known) < self.parameters.others:
            return self.passed("nothing to compare with yet")
        found, least = _cosine(measures.sketch, known), self.parameters.cosine
        told = f"the cosine to the direction of most others of the round is {found:.3f}"
        if found < least:
            told = f"{told}, and {least:g} is the least"
            return self.flagged(told, found, least, by="cosine")
        return self.passed(told, found, least)


def _cosine(sketch: Sketch, others: Sequence[Sketch]) -> float:
    """
    Return the cosine to the mean direction of `others`, if all lay to it as the median one does.

    The mean itself would follow a few who send the opposite of the others' mean: beside them
    everybody points the wrong way.
    """
    values = np.array([other.values for other in others])
    norms = np.sqrt(np.einsum("ij,ij->i", values, values))
    norms[norms == 0] = 1
    middle = median_high(values @ sketch.values / norms) / (sketch.norm or 1.0)
    # Those at right angles to each other have a mean as long as this, or a few make it shorter.
    shortest = 1 / sqrt(len(others))
    mean = float(np.linalg.norm((1 / norms) @ values)) / len(others)
    return float(max(-1.0, min(1.0, middle / max(shortest, mean))))
