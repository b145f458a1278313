"""What a fuse writes: the weights in the model's dtype, a float32 master, an optimizer's state."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from coldfusion_shared.weights.header import ITEM_BYTES, TensorSpan, build_header

WEIGHTS, MASTER = "weights", "master"


@dataclass(frozen=True)
class View:
    """
    One of the forms in which the fused base is written.

    Attributes:
        name: ``weights``, ``master``, or that of a tensor of the optimizer's state.
        dtypes: names of the tensors that it has, and in which dtype.
    """

    name: str
    dtypes: Mapping[str, str]

    def has(self, tensors: Sequence[TensorSpan]) -> bool:
        """Return whether it has any of `tensors`, those of one file."""
        return any(span.name in self.dtypes for span in tensors)

    def header(self, tensors: Sequence[TensorSpan]) -> bytes:
        """Return the header of the file that has `tensors` in the base."""
        return build_header(
            (span.name, self.dtypes[span.name], span.shape)
            for span in tensors
            if span.name in self.dtypes
        )

    def size(self, tensors: Sequence[TensorSpan]) -> int:
        """Return the bytes of the file that has `tensors` in the base."""
        data = sum(
            span.elements * ITEM_BYTES[self.dtypes[span.name]]
            for span in tensors
            if span.name in self.dtypes
        )
        return len(self.header(tensors)) + data


def weights_view(published: Mapping[str, TensorSpan], dtype: str | None = None) -> View:
    """Return the weights in the dtypes of `published`, or all floats in `dtype`."""
    return View(
        WEIGHTS,
        {
            name: dtype if dtype is not None and span.is_float else span.dtype
            for name, span in published.items()
        },
    )


def master_view(published: Mapping[str, TensorSpan]) -> View:
    """Return the weights with nothing below float32, for the next round to be fused onto."""
    return View(
        MASTER,
        {
            name: "F32" if span.is_float and span.dtype != "F64" else span.dtype
            for name, span in published.items()
        },
    )


def needs_master(weights: View) -> bool:
    """Return whether `weights` is too coarse to be fused onto again."""
    return any(dtype in ("F16", "BF16") for dtype in weights.dtypes.values())


def state_views(names: Collection[str], body: Mapping[str, TensorSpan]) -> list[View]:
    """Return a view for each tensor of the optimizer's state: float32, of the body alone."""
    return [View(name, dict.fromkeys(body, "F32")) for name in names]
