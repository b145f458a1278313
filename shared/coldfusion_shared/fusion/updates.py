"""
Updates: what each contribution did to its own base, wherever and in whatever form it is kept.

They are the engine's one currency. Full weights are one form; whatever can give the values of a
span of a tensor can be another, and no method sees the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import local
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from coldfusion_shared.errors import NonFiniteWeights
from coldfusion_shared.weights.body import body
from coldfusion_shared.weights.checkpoint import StoredTensor, chunks
from coldfusion_shared.weights.header import TensorSpan

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Term = tuple[float, StoredTensor]

# Small enough for the caches, large enough that threads seldom wait for the interpreter.
STACK_ELEMENTS = 2**19
MAX_BLOCK_ELEMENTS = 2**17
MIN_BLOCK_ELEMENTS = 2**11


class Scratch(local):
    """One thread's buffers, used again and again."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._raw = np.empty(0, np.uint8)
        self._stack = np.empty(0, np.float32)
        self._place: tuple[str, int, int] | None = None
        self._before: dict[int, npt.NDArray[Any]] = {}

    def raw(self, elements: int) -> npt.NDArray[np.uint8]:
        """Return a buffer for `elements` values of any dtype; the next call returns the same."""
        if self._raw.size < 8 * elements:
            self._raw = np.empty(8 * elements, np.uint8)
        return self._raw

    def stack(self, count: int, elements: int) -> Floats:
        """Return an array of shape (count, elements); the next call returns the same memory."""
        if self._stack.size < count * elements:
            self._stack = np.empty(count * elements, np.float32)
        return self._stack[: count * elements].reshape(count, elements)

    def before(self, tensor: StoredTensor, start: int, stop: int) -> npt.NDArray[Any]:
        """
        Return a span of a base, float32 or float64, (n,); read once for all that start from it.

        The values must not be changed.
        """
        place = (tensor.span.name, start, stop)
        if place != self._place:
            self._place = place
            self._before.clear()
        key = id(tensor)
        if key not in self._before:
            values = tensor.values(start, stop)
            narrow = values.dtype.itemsize < 4
            self._before[key] = values.astype(np.float32) if narrow else values
        return self._before[key]


class UpdateReader(Protocol):
    """Where the values of one update come from; used by several threads at once."""

    def read(self, span: TensorSpan, start: int, stop: int, out: Floats, scratch: Scratch) -> None:
        """
        Write elements `start` to `stop` of the flattened update of a tensor into `out`.

        Args:
            span: the tensor, as the base describes it.
            start: first element.
            stop: the element after the last one.
            out: shape (stop - start,), contiguous.
            scratch: this thread's buffers.
        """

    def terms(self, span: TensorSpan) -> list[Term] | None:
        """
        Return the update as a weighted sum of stored tensors; null where it is not one.

        The first is the contribution's own, the others may be those of several.
        """


class SentUpdate(UpdateReader, Protocol):
    """An update as a contributor sent it."""

    @property
    def names(self) -> Collection[str]:
        """The tensors that it may have changed; the update of every other is zero."""


@dataclass(frozen=True)
class FullUpdate:
    """
    The update of a model that was uploaded whole: its weights less those that it started from.

    Attributes:
        weights: its body, under the base's names.
        base: the base that it was finetuned from, which may be an older one.
    """

    weights: Mapping[str, StoredTensor]
    base: Mapping[str, StoredTensor]

    @property
    def names(self) -> Collection[str]:
        """The tensors that are not the base's own."""
        return [name for name, tensor in self.weights.items() if tensor is not self.base.get(name)]

    def read(self, span: TensorSpan, start: int, stop: int, out: Floats, scratch: Scratch) -> None:
        """Subtract, in float32, or in float64 where one of the two is float64."""
        self.read_both(span, start, stop, out, scratch)

    def read_both(
        self,
        span: TensorSpan,
        start: int,
        stop: int,
        out: Floats,
        scratch: Scratch,
        use: Callable[[npt.NDArray[Any]], None] = lambda values: None,
    ) -> None:
        """Do as `read`, and call `use` with the weights themselves, (n,), before."""
        before = scratch.before(self.base[span.name], start, stop)
        tensor = self.weights[span.name]
        whole = tensor.span.dtype == "F32"
        values = tensor.values(
            start, stop, out.view(np.uint8) if whole else scratch.raw(stop - start)
        )
        use(values)
        if values.dtype.itemsize < 4:
            out[:] = values
            values = out
        np.subtract(values, before, out=out, casting="same_kind")

    def terms(self, span: TensorSpan) -> list[Term]:
        """Weights less base."""
        return [(1.0, self.weights[span.name]), (-1.0, self.base[span.name])]


@dataclass(frozen=True)
class Update:
    """
    One contribution on its way into the fuse.

    Attributes:
        id: the contribution's name, for messages and reports.
        reader: gives the values of its update.
        prior: its weight before the method has looked, at least 0; set by maintainers.
        age: rounds that passed between its base and the one that is fused onto.
        discount: factor of the update, from its age.
        fisher: diagonal of its Fisher information, for the methods that use one.
    """

    id: str
    reader: UpdateReader
    prior: float = 1.0
    age: int = 0
    discount: float = 1.0
    fisher: Mapping[str, StoredTensor] | None = None

    def read(self, span: TensorSpan, start: int, stop: int, out: Floats, scratch: Scratch) -> None:
        """Write elements `start` to `stop` of the update, discounted, into `out`, (n,)."""
        self.reader.read(span, start, stop, out, scratch)
        if self.discount != 1:
            np.multiply(out, np.float32(self.discount), out=out)


def discounted(updates: Sequence[Update], exponent: float) -> list[Update]:
    """Return `updates` with the discount ``(1 + age) ** -exponent``."""
    return [replace(update, discount=(1 + update.age) ** -exponent) for update in updates]


def block_elements(count: int) -> int:
    """Return how many coordinates of `count` updates are worked on at a time, a power of two."""
    fitting = 2 ** ((STACK_ELEMENTS // max(1, count)).bit_length() - 1) if count else 0
    return max(MIN_BLOCK_ELEMENTS, min(MAX_BLOCK_ELEMENTS, fitting))


def load_stack(
    updates: Sequence[Update], span: TensorSpan, start: int, stop: int, scratch: Scratch
) -> Floats:
    """Return elements `start` to `stop` of all updates, (K, n), in this thread's buffer."""
    stack = scratch.stack(len(updates), stop - start)
    for row, update in zip(stack, updates, strict=True):
        update.read(span, start, stop, row, scratch)
    return stack


def sum_of(rows: Sequence[Floats]) -> Doubles:
    """Return the sum of `rows`, each (n,), in float64, in their order."""
    total = np.zeros(rows[0].size)
    for row in rows:
        total += row
    return total


def together_in_update(
    update: SentUpdate, spans: Mapping[str, TensorSpan]
) -> Callable[[str, str], bool]:
    """
    Return what says whether an update keeps two tensors together that are equal in the base.

    A tensor that it does not have did not change. What lies outside of the body follows.
    """
    shared = body(spans)

    def together(name: str, first: str) -> bool:
        if name not in shared or first not in shared:
            return True
        return _same_update(update, spans[name], spans[first])

    return together


def _same_update(update: UpdateReader, one: TensorSpan, other: TensorSpan) -> bool:
    scratch = Scratch()
    for start, stop in chunks(one.elements):
        values = [np.empty(stop - start, np.float32) for _ in range(2)]
        for span, out in zip((one, other), values, strict=True):
            update.read(span, start, stop, out, scratch)
        if values[0].tobytes() != values[1].tobytes():
            return False
    return True


def non_finite(update: Update, span: TensorSpan) -> NonFiniteWeights:
    """Return the error that names the contribution, or the base that it is counted from."""
    reader: Any = update.reader
    while not isinstance(reader, FullUpdate) and hasattr(reader, "reader"):
        reader = reader.reader
    if isinstance(reader, FullUpdate) and not _is_finite(reader.base[span.name]):
        return non_finite_source(f"The base of contribution {update.id}", span)
    return NonFiniteWeights(
        f"Contribution {update.id} has NaN or infinity in tensor {span.name!r}.",
        hint="Leave it out, or ask for it again: nothing sound can be made from it.",
        tensors=[span.name],
    )


def non_finite_source(who: str, span: TensorSpan) -> NonFiniteWeights:
    """Return the error that names something else than a contribution."""
    return NonFiniteWeights(
        f"{who} has NaN or infinity in tensor {span.name!r}.",
        hint="Nothing can be fused onto it; take one that is sound.",
        tensors=[span.name],
    )


def _is_finite(tensor: StoredTensor) -> bool:
    return all(
        bool(np.isfinite(tensor.values(start, stop)).all())
        for start, stop in chunks(tensor.span.elements)
    )
