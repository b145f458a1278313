"""
The Gram matrix of the updates, and all that follows from it without reading them again.

``G[i, j] = <Delta_i, Delta_j>``, for each tensor and in all. Norms, cosines and distances are
functions of it, and so are the weights of every weight method. One pass over the updates, which
also counts zeros and agreeing signs and finds what is not finite.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock, local
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.fusion.executor import Executor
from coldfusion_shared.fusion.updates import (
    Doubles,
    Floats,
    Scratch,
    Update,
    block_elements,
    load_stack,
    non_finite,
)
from coldfusion_shared.weights.checkpoint import chunks
from coldfusion_shared.weights.header import ITEM_BYTES, TensorSpan

Counts = npt.NDArray[np.int64]
Progress = Callable[[int], None]

# Up to so many updates their products are taken row by row.
FLAT = 16

# With more updates the matrices of single tensors are kept only where a method needs them.
MAX_BY_TENSOR = 128


@dataclass(frozen=True)
class TensorGram:
    """
    What one pass learns about one tensor of K updates.

    Attributes:
        products: inner products, (K, K), float64.
        nonzero: number of values that are not zero, (K,).
        agreement: sum over the coordinates of the absolute sum of the signs; null where it is not
            known.
        elements: number of coordinates.
    """

    products: Doubles
    nonzero: Counts
    agreement: int | None
    elements: int

    def __add__(self, other: TensorGram) -> TensorGram:
        agreement = None
        if self.agreement is not None and other.agreement is not None:
            agreement = self.agreement + other.agreement
        return TensorGram(
            self.products + other.products,
            self.nonzero + other.nonzero,
            agreement,
            self.elements + other.elements,
        )

    def of(self, places: Sequence[int]) -> TensorGram:
        """Return the rows and columns at `places`; of a part of the signs nothing is known."""
        chosen = np.array(places, np.intp)
        return TensorGram(
            self.products[np.ix_(chosen, chosen)], self.nonzero[chosen], None, self.elements
        )


@dataclass(frozen=True)
class Gram:
    """
    The Gram matrix of K updates, by tensor.

    Attributes:
        ids: the contributions, in the order of rows and columns.
        whole: over all tensors.
        tensors: by name; empty where K is so large that nobody asked for them.
    """

    ids: tuple[str, ...]
    whole: TensorGram
    tensors: Mapping[str, TensorGram]

    @property
    def total(self) -> Doubles:
        """Inner products of the whole updates, (K, K)."""
        return self.whole.products

    @cached_property
    def norms(self) -> Doubles:
        """Euclidean norms of the whole updates, (K,)."""
        return norms(self.total)

    @cached_property
    def cosines(self) -> Doubles:
        """Cosines between the whole updates, (K, K)."""
        return cosines(self.total)

    @cached_property
    def squared_distances(self) -> Doubles:
        """Squared Euclidean distances between the whole updates, (K, K)."""
        squares = np.diag(self.total)
        distances = squares[:, None] + squares[None, :] - 2 * self.total
        np.fill_diagonal(distances, 0)
        return np.maximum(distances, 0)

    @property
    def sparsity(self) -> Doubles:
        """Share of the values that are exactly zero, (K,)."""
        return 1 - self.whole.nonzero / max(1, self.whole.elements)

    @property
    def sign_agreement(self) -> float | None:
        """Mean agreement of the signs, weighted by non-zero values: 1 when all agree, or null."""
        if self.whole.agreement is None:
            return None
        return self.whole.agreement / max(1, int(self.whole.nonzero.sum()))

    def of(self, ids: Sequence[str]) -> Gram:
        """
        Return the matrix of some of the contributions, in the order of `ids`; nothing is read.

        How far the signs of fewer agree is not known.

        Raises:
            InvalidRequest: one of `ids` is not among them.
        """
        if tuple(ids) == self.ids:
            return self
        places = {name: place for place, name in enumerate(self.ids)}
        unknown = [name for name in ids if name not in places]
        if unknown:
            raise InvalidRequest(f"The Gram matrix has no contribution {unknown[0]}.")
        chosen = [places[name] for name in ids]
        tensors = {name: tensor.of(chosen) for name, tensor in self.tensors.items()}
        return Gram(tuple(ids), self.whole.of(chosen), tensors)


def norms(products: Doubles) -> Doubles:
    """Return the norms of vectors with the inner products `products`: (K, K) to (K,)."""
    lengths: Doubles = np.sqrt(np.maximum(np.diag(products), 0))
    return lengths


def cosines(products: Doubles) -> Doubles:
    """Return cosines, (K, K); 0 with a vector of length 0, and 1 on the diagonal."""
    lengths = norms(products)
    scale = np.outer(lengths, lengths)
    found = np.divide(products, scale, out=np.zeros_like(products), where=scale > 0)
    np.fill_diagonal(found, 1)
    clipped: Doubles = np.clip(found, -1, 1)
    return clipped


def gram_pass(
    spans: Mapping[str, TensorSpan],
    updates: Sequence[Update],
    executor: Executor,
    progress: Progress = lambda _: None,
    *,
    by_tensor: bool = True,
) -> Gram:
    """
    Read all updates once and return their Gram matrix.

    Args:
        spans: the base's body.
        updates: in the order of rows and columns.
        executor: works on the chunks; it changes no bit of the result.
        progress: called with the number of bytes of each chunk, over all updates.
        by_tensor: whether the matrix of each tensor is kept, which takes 8 K^2 bytes.

    Raises:
        NonFiniteWeights: an update holds NaN or infinity; the contribution is named.
    """
    found = GramSum(updates, spans if by_tensor else ())
    _pass(found, spans, updates, executor, progress, all_products)
    return found.gram()


def extend_gram(
    gram: Gram,
    spans: Mapping[str, TensorSpan],
    updates: Sequence[Update],
    executor: Executor,
    progress: Progress = lambda _: None,
) -> Gram:
    """
    Add the last of `updates` to `gram`, which has those before it; each is read once.

    Only the new column is multiplied out. Arguments and errors as in `gram_pass`.
    """
    if gram.ids != tuple(update.id for update in updates[:-1]):
        raise InvalidRequest("The Gram matrix is not that of the contributions before the last.")
    found = GramSum(updates, gram.tensors)
    _pass(found, spans, updates, executor, progress, _last_products)
    column = found.gram()
    column.whole.products[:-1, :-1] = gram.whole.products
    for name, tensor in column.tensors.items():
        tensor.products[:-1, :-1] = gram.tensors[name].products
    return column


class GramSum:
    """A Gram matrix that grows chunk by chunk, in the order of the chunks."""

    def __init__(self, updates: Sequence[Update], tensors: Iterable[str]) -> None:
        """Begin with nothing; `tensors`: names of those whose own matrix is kept."""
        self.ids = tuple(update.id for update in updates)
        self.whole = nothing(len(updates))
        self.tensors = {name: nothing(len(updates)) for name in tensors}

    def add(self, tensor: str, part: TensorGram) -> None:
        """Add what was learnt from a chunk of the tensor of that name."""
        self.whole += part
        if tensor in self.tensors:
            self.tensors[tensor] += part

    def gram(self) -> Gram:
        """Return the matrix of all that was added."""
        return Gram(self.ids, self.whole, self.tensors)


Products = Callable[[Doubles], Doubles]


def all_products(stack: Doubles) -> Doubles:
    """Return the inner products of the rows of `stack`, (K, n), as (K, K)."""
    count = len(stack)
    if count > FLAT:
        products: Doubles = np.dot(stack, stack.T)
        return products
    # Of so flat a matrix a general product spends most of its time on rearranging it.
    products = np.empty((count, count))
    for place in range(count):
        row = np.dot(stack[place:], stack[place])
        products[place, place:] = products[place:, place] = row
    return products


def _last_products(stack: Doubles) -> Doubles:
    products = np.zeros((len(stack), len(stack)))
    products[-1, :] = products[:, -1] = np.dot(stack, stack[-1])
    return products


@dataclass(frozen=True)
class _Task:
    span: TensorSpan
    start: int
    stop: int


def _pass(
    found: GramSum,
    spans: Mapping[str, TensorSpan],
    updates: Sequence[Update],
    executor: Executor,
    progress: Progress,
    products: Products,
) -> None:
    worker = _Worker(updates, products)
    with one_thread_products:
        for task, part in executor.map(worker, _tasks(spans)):
            found.add(task.span.name, part)
            progress(len(updates) * part.elements * ITEM_BYTES[task.span.dtype])


class _OneThread:
    """
    Holds BLAS to one thread as long as anybody in the process asks for it.

    How many threads share a product decides the order of its sums. The number is the process's, so
    the first of two fuses to end must not lift it under the other.
    """

    def __init__(self) -> None:
        self.lock = Lock()
        self.users = 0
        self.limit: Any = None

    def __enter__(self) -> None:
        with self.lock:
            if not self.users:
                self.limit = threadpool_limits(1, "blas")
            self.users += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.users -= 1
            if not self.users:
                self.limit.restore_original_limits()


one_thread_products = _OneThread()


def _tasks(spans: Mapping[str, TensorSpan]) -> Iterator[_Task]:
    for span in spans.values():
        for start, stop in chunks(span.elements):
            yield _Task(span, start, stop)


def nothing(count: int) -> TensorGram:
    """Return what is learnt from no coordinate of `count` updates."""
    return TensorGram(np.zeros((count, count)), np.zeros(count, np.int64), 0, 0)


class Measure(local):
    """One thread's products of blocks, in buffers that it uses again and again."""

    def __init__(self, count: int, products: Products) -> None:
        """Work on `count` updates at a time, of which `products` multiplies out."""
        self.products = products
        self.block = block_elements(count)
        self.doubles = np.empty((count, self.block))
        self.positive = np.empty((count, self.block), np.bool_)
        self.negative = np.empty((count, self.block), np.bool_)
        # Signs of so many updates add up to no more than this holds.
        self.sums = np.empty(self.block, np.int8 if count < 128 else np.int32)

    def __call__(self, stack: Floats) -> TensorGram:
        """Return what is learnt from a block, (K, n), with n at most `block`."""
        elements = stack.shape[1]
        doubles = self.doubles[:, :elements]
        positive, negative = self.positive[:, :elements], self.negative[:, :elements]
        doubles[:] = stack
        products = self.products(doubles)
        np.greater(stack, np.float32(0), out=positive)
        np.less(stack, np.float32(0), out=negative)
        signs = positive.view(np.int8)
        np.subtract(signs, negative.view(np.int8), out=signs)
        nonzero = np.array([np.count_nonzero(row) for row in signs], np.int64)
        sums = self.sums[:elements]
        np.add.reduce(signs, axis=0, dtype=sums.dtype, out=sums)
        agreement = int(np.abs(sums, out=sums).sum(dtype=np.int64))
        return TensorGram(products, nonzero, agreement, elements)


def check_finite(part: TensorGram, updates: Sequence[Update], span: TensorSpan) -> None:
    """
    Check that the updates that `part` was learnt from are finite.

    Raises:
        NonFiniteWeights: one is not; it and the tensor are named.
    """
    # A float32 squared is always within float64: what is not finite here never was.
    finite = np.isfinite(np.diag(part.products))
    if not finite.all():
        raise non_finite(updates[int(np.argmin(finite))], span)


class _Worker(local):
    """One thread's part of a pass."""

    def __init__(self, updates: Sequence[Update], products: Products) -> None:
        self.updates = updates
        self.scratch = Scratch()
        self.measure = Measure(len(updates), products)

    def __call__(self, task: _Task) -> tuple[_Task, TensorGram]:
        found, block = nothing(len(self.updates)), self.measure.block
        # What is not finite is found below, and not by a warning.
        with np.errstate(over="ignore", invalid="ignore"):
            for start in range(task.start, task.stop, block):
                stop = min(start + block, task.stop)
                stack = load_stack(self.updates, task.span, start, stop, self.scratch)
                found += self.measure(stack)
        check_finite(found, self.updates, task.span)
        return task, found
