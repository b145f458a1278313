"""Are these the tensors of the base's body, by name, shape and dtype?"""

from __future__ import annotations

from coldfusion_shared.errors import IncompatibleWeights
from coldfusion_shared.schemas.contributions import Finding
from coldfusion_shared.screening import checks
from coldfusion_shared.screening.check import Check, Spans
from coldfusion_shared.weights.body import check_body


@checks.register("schema")
class SchemaCheck(Check):
    """Names, shapes and dtypes are those of the base."""

    name = "schema"

    def header(self, candidate: Spans, base: Spans) -> Finding | None:
        """Reject what does not fit the base."""
        try:
            check_body(base, candidate)
        except IncompatibleWeights as error:
            return self.rejected(error.message, list(error.tensors))
        return None

    def conclude(self) -> Finding:
        """Nothing is left to see in the values."""
        return self.passed("names, shapes and dtypes are the base's")
