"""What a check is: it sees the header, then every chunk of values once, then it concludes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coldfusion_shared.schemas.contributions import Finding
from coldfusion_shared.weights.header import TensorSpan

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

Spans = Mapping[str, TensorSpan]


@dataclass(frozen=True)
class Subject:
    """
    What is screened.

    Attributes:
        encoding: the form it came in.
        names: tensors of the base that it may have changed.
        frozen: patterns of names that it says it has not changed.
        base: the tensors of the base that it was made from.
    """

    encoding: str
    names: Collection[str]
    frozen: Sequence[str]
    base: Spans


class Check:
    """
    One question to a contribution; a new one is made for each contribution.

    A check overrides what it needs: `header` costs nothing and may stop the screening before any
    value is read, `observe` is called for all values in one pass that all checks share.
    """

    name: str

    def __init__(self, subject: Subject) -> None:
        """Prepare for one contribution."""
        self.subject = subject

    def header(self) -> Finding | None:
        """Return a finding if what the subject says of itself already decides."""
        return None

    def observe(self, tensor: str, update: Floats, base: npt.NDArray[Any]) -> None:
        """
        Look at one chunk of a tensor of the body that the contribution has.

        Args:
            tensor: its name.
            update: the contribution less the base, decoded, (n,).
            base: the base's same chunk, (n,).
        """

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
