"""Are counters and positions the base's own?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coldfusion_shared.schemas.contributions import Finding
from coldfusion_shared.screening import checks
from coldfusion_shared.screening.check import Check, listed
from coldfusion_shared.screening.history import Past
from coldfusion_shared.screening.measures import Measures

if TYPE_CHECKING:
    from coldfusion_shared.weights.checkpoint import StoredTensor


@checks.register("integers")
class IntegersCheck(Check):
    """
    Tensors that are not floats are not trained; a model in which they differ is another model.

    None of them is ever fused, but weights that were trained beside other positions fit no base.
    """

    name = "integers"
    summary = "tensors of integers are the base's own"
    hint = "Finetune the base as it is: coldfusion-client pull gets it."

    def header(self) -> Finding | None:
        """Reject integers that differ; they are few, and read before all else."""
        different = [
            name
            for name, tensor in self.subject.outside.items()
            if name in self.subject.stored and self._differs(tensor, self.subject.stored[name])
        ]
        if not different:
            return None
        return self.rejected(f"{listed(different)} is not the base's", different)

    def _differs(self, tensor: StoredTensor, base: StoredTensor) -> bool:
        from coldfusion_shared.weights.tied import same_values

        return not (tensor.span.is_float and base.span.is_float) and not same_values(tensor, base)

    def conclude(self, measures: Measures, past: Past) -> Finding:
        """Nothing is left to see in the values."""
        return self.passed("tensors of integers are the base's own")
