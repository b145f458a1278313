"""
An adapter as an update: what merging it would add to each tensor of the base.

    scale * B A                                      LoRA
    magnitude * (W + scale * B A) / norm - W         DoRA, norms of the outputs' vectors

A and B stay as they are stored; only the values of the span that is asked for are ever multiplied
out, in float64 and rounded once. See https://arxiv.org/abs/2106.09685, 2312.03732 (rsLoRA) and
2402.09353 (DoRA).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock

import numpy as np

from coldfusion_shared.errors import NonFiniteWeights
from coldfusion_shared.fusion.updates import Floats, FullUpdate, Scratch
from coldfusion_shared.weights.checkpoint import ByteSource, Checkpoint, StoredTensor
from coldfusion_shared.weights.header import TensorSpan
from coldfusion_shared.weights.lora.config import ADAPTER_WEIGHTS, parse_config
from coldfusion_shared.weights.lora.match import Change, Factors, changes
from coldfusion_shared.weights.lora.product import (
    BLOCK_ELEMENTS,
    Doubles,
    Rectangle,
    multiply,
    rectangles,
    sum_of_columns,
)

# Factors of the tensors that were read last; a pass goes from one tensor to the next.
CACHE_BYTES = 2**23


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
class _Loaded:
    """
    Factors in memory.

    Attributes:
        rows: (rank, rows of the base's matrix).
        columns: (rank, columns of it).
        magnitude: (out,), for DoRA.
    """

    rows: Doubles
    columns: Doubles
    magnitude: Doubles | None

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        return self.rows.nbytes + self.columns.nbytes


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
        self._loaded: OrderedDict[str, _Loaded] = OrderedDict()
        # One number for each output of a module: small, and dear to find.
        self._lengths: dict[str, Doubles] = {}

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
        else:
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
        loaded = self._factors(span, change, factors)
        total, term = _room(scratch)
        whole = change.whole.values(start, stop) if change.whole else None
        # Plain factors alone need no value of the base.
        needed = whole is not None or factors.magnitude is not None
        before = scratch.before(self.base[span.name], start, stop) if needed else None
        begun = whole if whole is not None else before
        place = 0
        for part in rectangles(start, stop, span.shape[1]):
            values = multiply(loaded.rows, loaded.columns, factors.scale, part, total, term)
            here = slice(place, place + part.elements)
            if begun is not None and before is not None:
                values += begun[here].reshape(values.shape)
                if loaded.magnitude is not None:
                    values *= self._stretch(span, loaded.magnitude, factors.transposed, part)
                values -= before[here].reshape(values.shape)
            out[here] = values.reshape(-1)
            place += part.elements

    def _stretch(
        self, span: TensorSpan, magnitude: Doubles, transposed: bool, part: Rectangle
    ) -> Doubles:
        """Return what a rectangle is multiplied with, so that its outputs have their magnitude."""
        lengths = self._lengths[span.name]
        if transposed:
            columns = slice(part.left, part.right)
            return (magnitude[columns] / lengths[columns])[None, :]
        rows = slice(part.top, part.bottom)
        return (magnitude[rows] / lengths[rows])[:, None]

    def _factors(self, span: TensorSpan, change: Change, factors: Factors) -> _Loaded:
        with self._lock:
            loaded = self._loaded.pop(span.name, None) or _load(factors)
            self._loaded[span.name] = loaded
            while len(self._loaded) > 1 and self._held() > CACHE_BYTES:
                self._loaded.popitem(last=False)
            if loaded.magnitude is not None and span.name not in self._lengths:
                begun = change.whole or self.base[span.name]
                self._lengths[span.name] = _lengths(begun, factors, loaded)
        return loaded

    def _held(self) -> int:
        return sum(loaded.nbytes for loaded in self._loaded.values())


def _room(scratch: Scratch) -> tuple[Doubles, Doubles]:
    raw = scratch.raw(2 * BLOCK_ELEMENTS)[: 16 * BLOCK_ELEMENTS].view(np.float64)
    return raw[:BLOCK_ELEMENTS], raw[BLOCK_ELEMENTS:]


def _load(factors: Factors) -> _Loaded:
    a, b = _matrix(factors.a), np.ascontiguousarray(_matrix(factors.b).T)
    magnitude = None if factors.magnitude is None else _matrix(factors.magnitude)
    return _Loaded(a, b, magnitude) if factors.transposed else _Loaded(b, a, magnitude)


def _matrix(tensor: StoredTensor) -> Doubles:
    """Return all values of a tensor in its shape, float64."""
    values: Doubles = tensor.values(0, tensor.span.elements).astype(np.float64)
    if not np.isfinite(values).all():
        raise NonFiniteWeights(
            f"The adapter has NaN or infinity in tensor {tensor.span.name!r}.",
            hint="Train it again with a lower learning rate: nothing sound can be made from it.",
            tensors=[tensor.span.name],
        )
    return values.reshape(tensor.span.shape)


def _lengths(begun: StoredTensor, factors: Factors, loaded: _Loaded) -> Doubles:
    """Return the norm of each output's vector in ``W + scale * B A``, (out,)."""
    rows, columns = begun.span.shape
    total, term = np.empty(BLOCK_ELEMENTS), np.empty(BLOCK_ELEMENTS)
    squares = np.zeros(columns if factors.transposed else rows)
    for part in rectangles(0, rows * columns, columns):
        values = multiply(loaded.rows, loaded.columns, factors.scale, part, total, term)
        first = part.top * columns + part.left
        values += begun.values(first, first + part.elements).reshape(values.shape)
        np.multiply(values, values, out=values)
        if factors.transposed:
            # Row by row, so that the blocks do not matter.
            for row in values:
                squares[part.left : part.right] += row
        else:
            squares[part.top : part.bottom] += sum_of_columns(values)
    lengths: Doubles = np.sqrt(squares)
    return lengths
