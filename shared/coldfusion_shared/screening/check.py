"""What a check is: it sees the header, then every chunk of values once, then it concludes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from coldfusion_shared.schemas.contributions import Finding
from coldfusion_shared.weights.header import TensorSpan

if TYPE_CHECKING:
    import numpy.typing as npt

Spans = Mapping[str, TensorSpan]


class Check:
    """
    One question to a contribution; a new one is made for each contribution.

    A check overrides what it needs: `header` costs nothing and may stop the screening before any
    value is read, `observe` is called for all values in one pass that all checks share.
    """

    name: str

    def header(self, candidate: Spans, base: Spans) -> Finding | None:
        """Return a finding if names, shapes and dtypes alone already decide."""
        return None

    def observe(self, tensor: str, values: npt.NDArray[Any], base: npt.NDArray[Any]) -> None:
        """Look at one chunk, (n,), of a tensor of the body, beside the base's same chunk."""

    def conclude(self) -> Finding:
        """Return the verdict after all values were seen."""
        return self.passed("nothing to object")

    def passed(self, message: str) -> Finding:
        """Return a finding that lets the contribution pass."""
        return Finding(check=self.name, verdict="pass", message=message)

    def rejected(self, message: str, tensors: list[str] | None = None) -> Finding:
        """Return a finding that rejects the contribution, with at most ten tensors named."""
        return Finding(
            check=self.name, verdict="reject", message=message, tensors=(tensors or [])[:10]
        )
