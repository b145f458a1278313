"""Dropping values of an update before it is fused: what the sparse methods have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from coldfusion_shared.fusion.updates import Floats, Scratch, Term, UpdateReader
from coldfusion_shared.weights.header import TensorSpan


class Sparsifier(Protocol):
    """Drops values of one update, and rescales others, tensor by tensor."""

    def prepare(self, reader: UpdateReader, span: TensorSpan, scratch: Scratch) -> Any:
        """Return what `read` needs to know of the whole tensor, such as a threshold."""

    def read(
        self,
        reader: UpdateReader,
        prepared: Any,
        span: TensorSpan,
        start: int,
        stop: int,
        out: Floats,
        scratch: Scratch,
    ) -> None:
        """Write elements `start` to `stop` of what is left of the update into `out`, (n,)."""


@dataclass(frozen=True)
class Sparse:
    """
    An update of which values were dropped.

    Attributes:
        reader: the update before.
        sparsifier: drops the values.
        prepared: what it found out beforehand, by tensor.
    """

    reader: UpdateReader
    sparsifier: Sparsifier
    prepared: Mapping[str, Any]

    def read(self, span: TensorSpan, start: int, stop: int, out: Floats, scratch: Scratch) -> None:
        """Read what is left."""
        found = self.prepared.get(span.name)
        self.sparsifier.read(self.reader, found, span, start, stop, out, scratch)

    def terms(self, span: TensorSpan) -> list[Term] | None:
        """No sum of stored tensors any more."""
        return None
