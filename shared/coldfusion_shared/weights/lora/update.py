"""
An adapter as an update: what merging it would add to each tensor of the base.

    scale * B A                                      LoRA
    magnitude * (W + scale * B A) / norm - W         DoRA, norms of the outputs' vectors

A and B stay as they are stored; only the values of the span that is asked for are ever multiplied
out, in float64 and rounded once. See https://arxiv.org/abs/2106.09685, 2312.03732 (rsLoRA) and
2402.09353 (DoRA).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from weakref import finalize

import numpy as np

from coldfusion_shared.fusion.updates import Floats, FullUpdate, Scratch
from coldfusion_shared.weights.checkpoint import ByteSource, Checkpoint, StoredTensor
from coldfusion_shared.weights.header import TensorSpan
from coldfusion_shared.weights.lora.config import ADAPTER_WEIGHTS, parse_config
from coldfusion_shared.weights.lora.lengths import Lengths
from coldfusion_shared.weights.lora.match import Change, Factors, changes
from coldfusion_shared.weights.lora.product import (
    BLOCK_ELEMENTS,
    Doubles,
    Product,
    Rectangle,
    rectangles,
)
from coldfusion_shared.weights.lora.strips import Factor, check_finite, kept, serials


def open_adapter(config: bytes, source: ByteSource, base: Mapping[str, StoredTensor]) -> LoraUpdate:
    """
    Return the update that a LoRA adapter of peft's is.

    Args:
        config: the file adapter_config.json.
        source: the file adapter_model.safetensors; it stays open as long as the update is read.
        base: tensors of the model that it was trained on, heads may be among them.

    Raises:
        BadModel: the configuration is not one of a LoRA adapter that can be computed exactly.
        MalformedWeights: the weights are not safetensors.
        IncompatibleWeights: they do not fit the base or the configuration.
    """
    settings = parse_config(config)
    tensors = Checkpoint({ADAPTER_WEIGHTS: source}).tensors
    return LoraUpdate(changes(tensors, settings, base), base)


@dataclass(frozen=True)
class _Dora:
    """
    What a module's outputs are stretched by.

    Attributes:
        magnitude: the lengths that they shall have, (out,).
        lengths: those that they have.
    """

    magnitude: Doubles
    lengths: Lengths

    def stretch(self, part: Rectangle) -> Doubles:
        """Return the factors of a rectangle's values, which spread over them."""
        if self.lengths.transposed:
            columns = slice(part.left, part.right)
            return (self.magnitude[columns] / self.lengths.of_columns()[columns])[None, :]
        lengths = self.lengths.of_rows(part.top, part.bottom)
        return (self.magnitude[part.top : part.bottom] / lengths)[:, None]


class LoraUpdate:
    """The update of an adapter; several threads may read it."""

    def __init__(self, found: Mapping[str, Change], base: Mapping[str, StoredTensor]) -> None:
        """
        Read nothing yet.

        Args:
            found: what is changed, by the base's names.
            base: the base's tensors.
        """
        self.changes = found
        self.base = base
        self._lock = Lock()
        # A number or two for each output of a module: small, and dear to find.
        self._doras: dict[str, _Dora] = {}
        self._serial = next(serials)
        finalize(self, kept.forget, self._serial)

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors that are changed; the update of every other is zero."""
        return tuple(self.changes)

    def terms(self, span: TensorSpan) -> None:
        """Return null: it is no sum of stored tensors."""

    def read(self, span: TensorSpan, start: int, stop: int, out: Floats, scratch: Scratch) -> None:
        """
        Write elements `start` to `stop` of the update into `out`, as every update reader does.

        Raises:
            NonFiniteWeights: the adapter's own tensors hold NaN or infinity.
        """
        change = self.changes.get(span.name)
        if change is None:
            out[:] = 0
        elif change.factors is None:
            assert change.whole is not None, "a change is one or the other"
            FullUpdate({span.name: change.whole}, self.base).read(span, start, stop, out, scratch)
        elif start < stop:
            # What overflows is infinite, and found by whoever asks for the values.
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                self._multiply(span, change, change.factors, start, stop, out, scratch)

    def _multiply(
        self,
        span: TensorSpan,
        change: Change,
        factors: Factors,
        start: int,
        stop: int,
        out: Floats,
        scratch: Scratch,
    ) -> None:
        product = self._product(factors)
        dora = self._dora(span, change, factors, product)
        window = product.window(_around(start, stop, span.shape[1]))
        total, term = _room(scratch)
        whole = change.whole.values(start, stop) if change.whole else None
        # Plain factors alone need no value of the base.
        needed = whole is not None or dora is not None
        before = scratch.before(self.base[span.name], start, stop) if needed else None
        begun = whole if whole is not None else before
        place = 0
        for part in rectangles(start, stop, span.shape[1]):
            values = window.multiply(part, total, term)
            here = slice(place, place + part.elements)
            if begun is not None and before is not None:
                values += begun[here].reshape(values.shape)
                if dora is not None:
                    values *= dora.stretch(part)
                values -= before[here].reshape(values.shape)
            out[here] = values.reshape(-1)
            place += part.elements

    def _product(self, factors: Factors) -> Product:
        a = Factor(self._serial, factors.a, by_place=False)
        b = Factor(self._serial, factors.b, by_place=True)
        rows, columns = (a, b) if factors.transposed else (b, a)
        return Product(rows, columns, factors.scale)

    def _dora(
        self, span: TensorSpan, change: Change, factors: Factors, product: Product
    ) -> _Dora | None:
        if factors.magnitude is None:
            return None
        with self._lock:
            if span.name not in self._doras:
                begun = change.whole or self.base[span.name]
                lengths = Lengths(product, begun, transposed=factors.transposed)
                self._doras[span.name] = _Dora(_vector(factors.magnitude), lengths)
            return self._doras[span.name]


def _around(start: int, stop: int, columns: int) -> Rectangle:
    """Return the smallest rectangle that has all of the elements `start` to `stop`."""
    top, left = divmod(start, columns)
    last, right = divmod(stop - 1, columns)
    return Rectangle(top, last + 1, *((left, right + 1) if top == last else (0, columns)))


def _room(scratch: Scratch) -> tuple[Doubles, Doubles]:
    raw = scratch.raw(2 * BLOCK_ELEMENTS)[: 16 * BLOCK_ELEMENTS].view(np.float64)
    return raw[:BLOCK_ELEMENTS], raw[BLOCK_ELEMENTS:]


def _vector(tensor: StoredTensor) -> Doubles:
    values: Doubles = tensor.values(0, tensor.span.elements).astype(np.float64)
    check_finite(tensor, values)
    return values
