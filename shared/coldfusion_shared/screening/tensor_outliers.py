"""Did one tensor move far more than the others say that it should?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp
from typing import Annotated

from pydantic import Field

from coldfusion_shared.schemas.contributions import Finding
from coldfusion_shared.screening import checks
from coldfusion_shared.screening.check import Check, Tunable
from coldfusion_shared.screening.history import Past
from coldfusion_shared.screening.measures import Measures, profile

Norms = Mapping[str, float]
# As `profile` of `measures` makes them.
Profile = Mapping[str, float]


class TensorOutliersParameters(Tunable):
    """Parameters of `tensor_outliers`; the limits are measured in docs/explanation/screening.md."""

    relative_norm: Annotated[float, Field(gt=0)] = Field(
        default=0.97,
        description="the longest that the update of one tensor may be, by the base's tensor; one "
        "that is wiped out moves by 1",
    )
    others: Annotated[int, Field(ge=1)] = Field(
        default=5, description="contributions to compare with that there have to be at least"
    )
    factor: Annotated[float, Field(gt=1)] = Field(
        default=30.0,
        description="how much longer a tensor's update may be than those of the same tensor in the "
        "others, each beside the rest of its own update",
    )


@checks.register("tensor_outliers")
class TensorOutliersCheck(Check):
    """
    A layer replaced by noise, or by another model's, sticks out of its update.

    Some tensors always move more than others, and how far all of them move depends on the learning
    rate. So each is set beside the median tensor of its own update, and that ratio beside the
    same tensor's in the others: beside one that a majority of them does not exceed, counting those
    that left the tensor as it is as if they did. No minority can make that small.
    """

    name = "tensor_outliers"
    summary = "no tensor moved far more than the rest of the update"
    parameters_type = TensorOutliersParameters
    compares = True
    hindsight = True

    def conclude(self, measures: Measures, past: Past) -> Finding:
        """Compare each tensor with the base's, and with what the others make of it."""
        norms, longest = measures.tensor_norms, self.parameters.relative_norm
        if not norms:
            return self.passed("no tensor changed")
        name = max(norms, key=lambda one: norms[one])
        if norms[name] > longest:
            far = [one for one, norm in norms.items() if norm > longest]
            told = f"{name} moved by {norms[name]:.3g} of its length, and {longest:g} is the most"
            return self.flagged(told, norms[name], longest, far, by="relative_norm")
        known = [other.profile for other in past.trusted if other.profile]
        if len(known) < self.parameters.others:
            told = f"the most that a tensor moved is {norms[name]:.3g} of its length"
            return self.passed(told, norms[name], longest)
        return self._beside(norms, known)

    def _beside(self, norms: Norms, known: Sequence[Profile]) -> Finding:
        excess = _excess(norms, known, self.parameters.others)
        if not excess:
            return self.passed("nothing to compare with yet")
        name, most = max(excess, key=lambda one: excess[one]), self.parameters.factor
        told = f"{name} moved {excess[name]:.3g} times as far as the rest of the update suggests"
        if excess[name] > most:
            far = [one for one, ratio in excess.items() if ratio > most]
            told = f"{told}, and {most:g} is the most"
            return self.flagged(told, excess[name], most, far, by="factor")
        return self.passed(told, excess[name], most)


def _excess(norms: Norms, known: Sequence[Profile], fewest: int) -> dict[str, float]:
    """Return by tensor how many times further it moved than it would in the others' place."""
    middle, found = len(known) // 2, {}
    for name, moved in profile(norms).items():
        usual = sorted(one[name] for one in known if name in one)
        if len(usual) >= fewest and len(usual) > middle:
            found[name] = exp(moved - usual[middle])
    return found
