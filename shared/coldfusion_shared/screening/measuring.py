"""
The one pass over a contribution's values: each chunk is read once and measured once.

A chunk stays in the processor's caches while all its numbers are taken, each by one operation on
the whole chunk; several threads may work on chunks, and their numbers are put together in order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import sqrt
from threading import local
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from coldfusion_shared.fusion.executor import Executor
from coldfusion_shared.fusion.updates import Floats, Scratch
from coldfusion_shared.screening.chunk import FARTHEST, Chunk
from coldfusion_shared.screening.measures import Measures, relative_to_tensor
from coldfusion_shared.screening.sketch import KEY_BYTES, Part, Sketcher, SketchSum
from coldfusion_shared.weights.body import body
from coldfusion_shared.weights.checkpoint import (
    CHUNK_ELEMENTS,
    NUMPY_DTYPES,
    Checkpoint,
    StoredTensor,
    chunks,
)
from coldfusion_shared.weights.header import TensorSpan

if TYPE_CHECKING:
    from coldfusion_shared.fusion.updates import SentUpdate

# A sum of squares in float32 that lies within these has lost nothing to the ends of the range.
_SAFE_SQUARES = (1e-25, 1e30)
# Below the largest value of each dtype, by more than rounding could add.
_LARGEST = {"F64": 1.7e308, "F32": 3.3e38, "BF16": 3.3e38, "F16": 65_000.0}
# Values that differ by no more, beside the base's largest, are one: base and update add up with a
# rounding error.
_ROUNDING = 1e-5
# Values of a chunk that are looked at first, to see whether they are all the same.
_SAMPLE = 64


def measured(
    update: SentUpdate, base: Checkpoint, key: bytes, executor: Executor
) -> Iterator[Chunk]:
    """
    Read all values of an update and yield what was measured, in the order of names and places.

    Args:
        update: made from `base`.
        base: what it was made from.
        key: of sketch and digest, `KEY_BYTES` bytes.
        executor: works on the chunks; it changes no bit of the result.

    Raises:
        UndecodableUpdate, NonFiniteWeights: the update cannot be decoded.
    """
    tasks = _tasks(body(base.spans()), frozenset(update.names))
    return executor.map(_Worker(update, base.tensors, key, Sketcher(key)), tasks)


def unread_squares(
    update: SentUpdate, base: Checkpoint, executor: Executor, progress: Callable[[int], None]
) -> float:
    """Return the sum of the squares of what an update leaves as it is in the base's body."""
    spans = body(base.spans())
    tasks = _tasks(spans, frozenset(spans) - frozenset(update.names))
    scratch = Scratch()

    def squares(task: _Task) -> tuple[int, float]:
        before = scratch.before(base.tensors[task.span.name], task.start, task.stop)
        return before.nbytes, _squares(before)

    total = 0.0
    for size, found in executor.map(squares, tasks):
        progress(size)
        total += found
    return total


@dataclass(frozen=True)
class _Task:
    span: TensorSpan
    start: int
    stop: int


def _tasks(spans: Mapping[str, TensorSpan], changed: frozenset[str]) -> Iterator[_Task]:
    for name, span in sorted(spans.items()):
        if name in changed:
            for start, stop in chunks(span.elements):
                yield _Task(span, start, stop)


class _Worker(local):
    """One thread's part of the pass."""

    def __init__(
        self,
        update: SentUpdate,
        base: Mapping[str, StoredTensor],
        key: bytes,
        sketcher: Sketcher,
    ) -> None:
        self.update = update
        self.base = base
        self.sketcher = sketcher
        self.tag = tagger(key)
        self.scratch = Scratch()
        self.values = np.empty(CHUNK_ELEMENTS, np.float32)
        self.flags = np.empty(CHUNK_ELEMENTS, np.bool_)

    def __call__(self, task: _Task) -> Chunk:
        span, start, stop = task.span, task.start, task.stop
        values = self.values[: stop - start]
        # What is not finite is found by a check, and not told by a warning.
        with np.errstate(over="ignore", invalid="ignore"):
            self.update.read(span, start, stop, values, self.scratch)
            before = self.scratch.before(self.base[span.name], start, stop)
            return self._chunk(task, values, before)

    def _chunk(self, task: _Task, values: Floats, before: npt.NDArray[Any]) -> Chunk:
        low, high = float(values.min()), float(values.max())
        is_changed = low != 0 or high != 0
        squares = _squares(values) if is_changed else 0.0
        base_squares = _squares(before)
        constant, base_constant = _constant(values, before, base_squares)
        is_finite = _is_finite(task.span, max(high, -low), base_squares, values, before)
        is_sound = is_finite and max(high, -low) <= FARTHEST
        return Chunk(
            span=task.span,
            start=task.start,
            stop=task.stop,
            finite=is_finite,
            low=low,
            high=high,
            changed=self._changed(values) if is_changed else 0,
            squares=squares,
            base_squares=base_squares,
            product=_product(values, before, squares) if is_changed else 0.0,
            constant=constant,
            base_constant=base_constant,
            tag=self.tag(values) if is_changed else b"",
            part=self._part(task, values) if is_changed and is_sound else None,
        )

    def _part(self, task: _Task, values: Floats) -> Part:
        return self.sketcher.part(task.span.name, task.start, values)

    def _changed(self, values: Floats) -> int:
        flags = np.not_equal(values, 0, out=self.flags[: values.size])
        return int(np.count_nonzero(flags))


def tagger(key: bytes) -> Callable[[Floats], bytes]:
    """
    Return what gives float32 values, (n,), a tag of 16 bytes that follows from `key` and them.

    GMAC, of one nonce: two arrays that differ have the same tag with a chance below 2^-100 for
    whoever knows neither key nor tags; and no tag leaves the process. Twenty times as fast as
    SHA-256 where the processor has no instructions for that.
    """
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    made = hashlib.blake2b(b"tags of chunks", key=key, digest_size=KEY_BYTES).digest()
    encrypt, nonce = AESGCM(made).encrypt, bytes(12)
    return lambda values: encrypt(nonce, b"", values.view(np.uint8).data)


class Totals:
    """Puts the numbers of the chunks together, in their order."""

    def __init__(self, key: bytes, spans: Mapping[str, TensorSpan]) -> None:
        """Begin with nothing; `spans`: all tensors of the base's body."""
        self._digest = hashlib.blake2b(b"canonical update", key=key, digest_size=32)
        self._sketch = SketchSum()
        self._tensors: dict[str, _Tensor] = {}
        self._elements = sum(span.elements for span in spans.values())
        self._largest = 0.0
        self._product = 0.0

    def add(self, chunk: Chunk) -> None:
        """Add what was measured of the next chunk."""
        tensor = self._tensors.setdefault(chunk.span.name, _Tensor())
        tensor.elements += chunk.elements
        tensor.changed += chunk.changed
        tensor.squares += chunk.squares
        tensor.base_squares += chunk.base_squares
        self._product += chunk.product
        self._largest = max(self._largest, chunk.largest)
        if chunk.tag:
            # Canonical: what did not change is left out, and the order is that of the names.
            name, shape = chunk.span.name, chunk.span.shape
            self._digest.update(f"{name}\0{shape}\0{chunk.start}\0".encode() + chunk.tag)
        if chunk.part is not None:
            self._sketch.add(chunk.part)

    @property
    def base_squares(self) -> float:
        """Sum of the squares of the base's tensors that were read."""
        return sum(tensor.base_squares for tensor in self._tensors.values())

    def measures(self, base_norm: float) -> Measures:
        """Return the numbers of all; `base_norm`: of the base's whole body."""
        tensors = self._tensors.values()
        squares = sum(tensor.squares for tensor in tensors)
        return Measures(
            norm=sqrt(squares),
            base_norm=base_norm,
            cosine_to_base=_cosine_to_base(squares, base_norm**2, self._product),
            changed_share=sum(tensor.changed for tensor in tensors) / max(1, self._elements),
            largest=self._largest,
            tensor_norms={
                name: relative_to_tensor(
                    sqrt(tensor.squares), sqrt(tensor.base_squares), tensor.elements
                )
                for name, tensor in self._tensors.items()
                if tensor.changed
            },
            digest=self._digest.hexdigest(),
            sketch=self._sketch.sketch(),
        )


@dataclass
class _Tensor:
    elements: int = 0
    changed: int = 0
    squares: float = 0.0
    base_squares: float = 0.0


def _cosine_to_base(squares: float, base_squares: float, product: float) -> float:
    """Return the cosine between base and finetuned weights; 1 where one of them is zero."""
    finetuned = max(0.0, base_squares + 2 * product + squares)
    lengths = sqrt(base_squares) * sqrt(finetuned)
    return max(-1.0, min(1.0, (base_squares + product) / lengths)) if lengths else 1.0


def _squares(values: npt.NDArray[Any]) -> float:
    """Return the sum of squares of float32 or float64 values, (n,), off by 1e-5 at the most."""
    total = float(np.dot(values, values))
    if values.dtype == np.float64 or _SAFE_SQUARES[0] < total < _SAFE_SQUARES[1]:
        return total
    doubles = values.astype(np.float64)
    return float(np.dot(doubles, doubles))


def _product(values: Floats, before: npt.NDArray[Any], squares: float) -> float:
    if squares > _SAFE_SQUARES[0] and before.dtype == np.float32:
        return float(np.dot(values, before))
    return float(np.dot(values.astype(np.float64), before.astype(np.float64)))


def _is_finite(
    span: TensorSpan,
    largest: float,
    base_squares: float,
    values: Floats,
    before: npt.NDArray[Any],
) -> bool:
    """Return whether base and update add up to finite values of the base's dtype."""
    dtype = np.dtype(NUMPY_DTYPES[span.dtype])
    # No value of the base is larger than the root of its squares: mostly that settles it.
    if largest + sqrt(base_squares) < _LARGEST[span.dtype]:
        return True
    return bool(np.isfinite((before + values).astype(dtype)).all())


def _constant(
    values: Floats, before: npt.NDArray[Any], base_squares: float
) -> tuple[float | None, bool]:
    """Return the one value that all finetuned values have, or null, and whether the base's have."""
    if values.size < 2:
        return None, False
    # No value of the base is larger than that: two values settle it mostly, and a sample nearly
    # always.
    most = _ROUNDING * sqrt(base_squares)
    if abs(float(values[0]) + float(before[0]) - float(values[-1]) - float(before[-1])) > most:
        return None, False
    step = max(1, values.size // _SAMPLE)
    if not _is_one(values[::step] + before[::step], before):
        return None, False
    finetuned = values + before
    if not _is_one(finetuned, before):
        return None, False
    return float(finetuned[0]), _is_one(before, before)


def _is_one(values: npt.NDArray[Any], before: npt.NDArray[Any]) -> bool:
    """Return whether values, (n,), are all the same but for the rounding that the base's allow."""
    spread = values.max() - values.min()
    return bool(spread <= _ROUNDING * np.abs(before).max())
