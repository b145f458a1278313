"""An adapter's tensors beside its base's: which of the base's each changes, and whether it fits."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from coldfusion_shared.errors import IncompatibleWeights
from coldfusion_shared.weights.body import OPTIONAL_MODULE, align, body, is_head
from coldfusion_shared.weights.checkpoint import StoredTensor
from coldfusion_shared.weights.header import TensorSpan, short
from coldfusion_shared.weights.lora.config import MAX_SCALE, MERGE_HINT, AdapterConfig
from coldfusion_shared.weights.lora.parts import Parts, Role, sorted_out

# 256 MiB in float32: about what a thread that multiplies may need at a time.
MAX_FACTOR_VALUES = 2**26
# What is wrong with factors that cost more bytes, and far more time, than what they stand for.
WASTEFUL = "its factors have more values than the matrix itself"
FIT_HINT = "An adapter fits only the model that it was trained on; contribute it to that one."
SHOWN = 3
MAX_HEAD_TENSORS = 200
MAX_MODULES = 32


@dataclass(frozen=True)
class Factors:
    """
    A tensor's low-rank update, ``scale * B A``, as it is stored.

    Attributes:
        a: (rank, in).
        b: (out, rank).
        scale: factor of the product.
        transposed: whether the base keeps the matrix as (in, out): embeddings and Conv1D do.
        magnitude: DoRA's norms of the new matrix, (out,); null without.
    """

    a: StoredTensor
    b: StoredTensor
    scale: float
    transposed: bool
    magnitude: StoredTensor | None


@dataclass(frozen=True)
class Change:
    """
    What an adapter does to one tensor: it is replaced, or something is added, or both.

    Attributes:
        whole: what takes the tensor's place; null: it stays.
        factors: what is added then.
    """

    whole: StoredTensor | None
    factors: Factors | None


def changes(
    tensors: Mapping[str, StoredTensor], config: AdapterConfig, base: Mapping[str, StoredTensor]
) -> dict[str, Change]:
    """
    Return what the adapter changes of the base's body, by the base's names.

    Heads stay at home: what the adapter has for them is passed over.

    Raises:
        IncompatibleWeights: it is not an adapter of this base; all faults in one message.
    """
    spans = {name: tensor.span for name, tensor in base.items()}
    shared = body(spans)
    parts = sorted_out(tensors)
    _check_many(parts, base)
    theirs = align(shared, parts)
    known = set(theirs.values())
    faults = [
        (name, "the base has no such tensor")
        for name in parts
        if name not in known and not _stays_at_home(name, spans, shared)
    ]
    matched = {ours: parts[named] for ours, named in theirs.items()}
    faults += _missing_biases(matched, config, shared)
    orientation = _Orientation(config, shared, matched)
    found = {}
    for name, one in matched.items():
        rank, scale = config.of(one.module)
        wrong = list(_faults(one, shared[name], rank, config.dora, orientation))
        if not abs(scale) <= MAX_SCALE:
            wrong.append("its scale leaves the range of float32")
        faults += [(one.name, fault) for fault in wrong]
        if not wrong:
            found[name] = _change(one, shared[name], scale, orientation)
    if faults:
        raise _misfit(faults)
    if not found:
        raise IncompatibleWeights(
            "The adapter changes nothing of the base's body.",
            hint="Train layers of the body, too: heads stay at home.",
        )
    return found


def without_heads(
    tensors: Mapping[str, StoredTensor], base: Mapping[str, StoredTensor]
) -> dict[str, StoredTensor]:
    """Return those of an adapter's tensors that the community shares, by their stored names."""
    spans = {name: tensor.span for name, tensor in base.items()}
    shared = body(spans)
    return {
        tensor.span.name: tensor
        for name, parts in sorted_out(tensors).items()
        if not _stays_at_home(name, spans, shared)
        for tensor in parts.tensors.values()
    }


def largest_rank(shape: tuple[int, ...]) -> int:
    """Return the largest rank whose factors have no more values than a matrix of `shape`."""
    return math.prod(shape) // sum(shape)


def _check_many(parts: Collection[str], base: Collection[str]) -> None:
    """Refuse what no model has, before names are compared with names."""
    modules = {name.split(".", 1)[0] for name in parts}
    if len(parts) > len(base) + MAX_HEAD_TENSORS or len(modules) > MAX_MODULES:
        raise IncompatibleWeights(
            f"The adapter has {len(parts)} tensors in {len(modules)} outermost modules; nothing "
            f"like that belongs to a base of {len(base)}.",
            hint=FIT_HINT,
            tensors=list(parts)[:10],
        )


def _stays_at_home(name: str, base: Collection[str], shared: Collection[str]) -> bool:
    """Return whether nobody shares the tensor: a head's, a counter, a pooler the base has not."""
    if is_head(name) or (name in base and name not in shared):
        return True
    has_pooler = any(OPTIONAL_MODULE in ours.split(".") for ours in base)
    return OPTIONAL_MODULE in name.split(".") and not has_pooler


def _missing_biases(
    matched: Mapping[str, Parts], config: AdapterConfig, shared: Mapping[str, TensorSpan]
) -> list[tuple[str, str]]:
    wanted = config.biases and any(name.endswith(".bias") for name in shared)
    if wanted and not any(name.endswith(".bias") for name in matched):
        return [("bias", "the biases that were trained are not in the file")]
    return []


class _Orientation:
    """
    Which way round the base keeps its matrices.

    The shapes tell, but for square ones. A model uses one kind of module throughout, so there the
    other matrices tell: those with a bias, which is as long as the output, and those with factors.
    The configuration's flag is the last one that peft set, for whatever module that was.
    """

    def __init__(
        self, config: AdapterConfig, shared: Mapping[str, TensorSpan], matched: Mapping[str, Parts]
    ) -> None:
        self.flag = config.transposed
        self.seen = {found for found in _seen(shared, matched) if found is not None}

    def of(self, inner: int, outer: int, shape: tuple[int, ...]) -> bool | None:
        """Return whether a matrix of `shape` is (in, out); null where nobody knows."""
        if shape[0] != shape[1]:
            return shape == (inner, outer)
        if len(self.seen) > 1:
            return None
        return next(iter(self.seen), self.flag)


def _seen(shared: Mapping[str, TensorSpan], matched: Mapping[str, Parts]) -> Iterator[bool | None]:
    for name, span in shared.items():
        bias = shared.get(f"{name.removesuffix('.weight')}.bias")
        if name.endswith(".weight") and bias is not None and len(bias.shape) == 1:
            yield _told(span.shape, bias.shape[0])
    for name, one in matched.items():
        if "A" in one.tensors and "B" in one.tensors:
            yield _told(shared[name].shape, one.tensors["B"].span.shape[0])


def _told(shape: tuple[int, ...], outer: int) -> bool | None:
    if len(shape) != 2 or shape[0] == shape[1] or outer not in shape:
        return None
    return outer == shape[1]


def _faults(
    one: Parts, span: TensorSpan, wanted: int, dora: bool, orientation: _Orientation
) -> Iterator[str]:
    """Yield what is wrong with the adapter's tensors for the base's tensor `span`."""
    narrow = [tensor.span for tensor in one.tensors.values() if not tensor.span.is_float]
    if narrow:
        yield f"{short(narrow[0].name)} is {narrow[0].dtype}, not floating-point"
        return
    whole = one.whole
    if whole is not None and not _takes_its_place(whole.span, span):
        yield f"{whole.span.kind()} for {span.kind()}"
    if len(one.tensors.keys() & {"whole", "start"}) > 1 or (
        "whole" in one.tensors and one.has_factors
    ):
        yield "it is both replaced and added to"
    if one.has_factors:
        yield from _faults_of_factors(one, span, wanted, dora, orientation)


def _takes_its_place(own: TensorSpan, span: TensorSpan) -> bool:
    return own.shape == span.shape and own.dtype in {span.dtype, "F32"}


def _faults_of_factors(
    one: Parts, span: TensorSpan, wanted: int, dora: bool, orientation: _Orientation
) -> Iterator[str]:
    pair = _pair(one)
    if isinstance(pair, str):
        yield pair
        return
    a, b = pair[0].span.shape, pair[1].span.shape
    if len(a) != 2 or len(b) != 2 or len(span.shape) != 2:
        yield f"factors {list(a)} and {list(b)} for {list(span.shape)} are no matrices"
        return
    rank = a[0]
    if rank == 0 or rank > min(span.shape):
        yield f"rank {rank} for a matrix of {list(span.shape)}"
    elif rank != b[1] or rank != wanted:
        yield f"rank {rank} of A, {b[1]} of B, {wanted} in its configuration"
    elif sorted((b[0], a[1])) != sorted(span.shape) or (
        "embedding_A" in one.tensors and (a[1], b[0]) != span.shape
    ):
        yield f"factors {list(a)} and {list(b)} for {list(span.shape)}"
    elif rank * (a[1] + b[0]) > MAX_FACTOR_VALUES:
        yield f"{rank * (a[1] + b[0])} values in its factors; {MAX_FACTOR_VALUES} are the limit"
    elif rank > largest_rank(span.shape):
        yield f"rank {rank} for a matrix of {list(span.shape)}: {WASTEFUL}"
    elif "A" in one.tensors and orientation.of(a[1], b[0], span.shape) is None:
        yield "nothing tells which way round its square matrix is"
    yield from _faults_of_magnitude(one, b[0], dora)


def _pair(one: Parts) -> tuple[StoredTensor, StoredTensor] | str:
    """Return A and B, or what is wrong with them."""
    linear: tuple[Role, Role] = ("A", "B")
    embedding: tuple[Role, Role] = ("embedding_A", "embedding_B")
    if one.tensors.keys() & set(linear) and one.tensors.keys() & set(embedding):
        return "it has the factors of a matrix and those of an embedding"
    first, second = embedding if one.tensors.keys() & set(embedding) else linear
    if first not in one.tensors or second not in one.tensors:
        return "it has A without B" if first in one.tensors else "it has no A"
    return one.tensors[first], one.tensors[second]


def _faults_of_magnitude(one: Parts, outer: int, dora: bool) -> Iterator[str]:
    magnitude = one.tensors.get("magnitude")
    if dora and magnitude is None:
        yield "DoRA's magnitudes are missing"
    elif magnitude is not None and not dora:
        yield "it has DoRA's magnitudes, and its configuration is not DoRA's"
    elif magnitude is not None and magnitude.span.shape != (outer,):
        yield f"magnitudes {list(magnitude.span.shape)} for {outer} outputs"


def _change(one: Parts, span: TensorSpan, scale: float, orientation: _Orientation) -> Change:
    if not one.has_factors:
        return Change(one.whole, None)
    pair = _pair(one)
    assert not isinstance(pair, str), "checked before"
    a, b = pair
    transposed = "embedding_A" in one.tensors or orientation.of(
        a.span.shape[1], b.span.shape[0], span.shape
    )
    factors = Factors(a, b, scale, bool(transposed), one.tensors.get("magnitude"))
    return Change(one.whole, factors)


def _misfit(faults: list[tuple[str, str]]) -> IncompatibleWeights:
    shown = "; ".join(f"{short(name)}: {fault}" for name, fault in faults[:SHOWN])
    more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
    wasteful = all(fault.endswith(WASTEFUL) for _, fault in faults)
    return IncompatibleWeights(
        f"The adapter does not fit the base: {shown}{more}.",
        hint=f"Use a smaller rank. {MERGE_HINT}" if wasteful else FIT_HINT,
        tensors=[name for name, _ in faults][:10],
    )
