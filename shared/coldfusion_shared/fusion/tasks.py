"""The work of a fuse: chunks of tensors on a fixed grid, and each tensor written as a sum."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from coldfusion_shared.fusion.plan import Plan
from coldfusion_shared.fusion.updates import Term, Update
from coldfusion_shared.weights.checkpoint import Checkpoint, StoredTensor, chunks
from coldfusion_shared.weights.header import ITEM_BYTES, TensorSpan

# A factor that is this small next to what was added up to it is what rounding has left of zero.
CANCELLED = 1e-12


@dataclass(frozen=True)
class Onto:
    """
    What a fuse starts from beside the updates.

    Attributes:
        base: what the step is added to: the line's master, where it has one.
        origin: the pretrained model's tensors, under the base's names; needed where the recipe
            pulls towards it.
        state: the server optimizer's tensors after the last round, by their names in it; empty at
            its first step.
        steps: number of steps that the optimizer has made.
        tied: tensors that are not fused themselves, and the one that each is the same as.
    """

    base: Checkpoint
    origin: Mapping[str, StoredTensor] | None = None
    state: Mapping[str, Mapping[str, StoredTensor]] = field(default_factory=dict)
    steps: int = 0
    tied: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sum:
    """
    One tensor as a weighted sum, in which every tensor is read once.

    Attributes:
        bases: factor and tensor of what several contributions have in common.
        updates: factor, with its discount, and update; of one that is a sum of stored tensors the
            factor is that of its own tensor, whose others are among `bases`.
        divisor: what the sum is divided by in the end.
    """

    bases: list[Term]
    updates: list[tuple[float, Update]]
    divisor: int = 1


@dataclass(frozen=True)
class Task:
    """
    A chunk of one tensor.

    Attributes:
        name: under which it is written.
        tensor: that tensor of the base, or the one that it is tied to.
        start: first element.
        stop: the element after the last one.
        in_body: whether it is fused.
        sum: null outside the body and for coordinate methods.
        bytes_read: bytes of updates.
    """

    name: str
    tensor: StoredTensor
    start: int
    stop: int
    in_body: bool
    sum: Sum | None
    bytes_read: int


def tasks(plan: Plan, onto: Onto, tensors: Sequence[TensorSpan]) -> Iterator[Task]:
    """Yield the chunks of `tensors`, those of one file of the base, in their order."""
    for stored in tensors:
        span = onto.base.tensors[onto.tied.get(stored.name, stored.name)].span
        in_body, weighted = span.name in plan.spans, None
        if in_body and plan.weights is not None:
            weighted = _weighted_sum(plan, onto, span)
        # By the published dtype, as the other passes count: a master's is wider.
        width = ITEM_BYTES[plan.spans[span.name].dtype] * len(plan.updates) if in_body else 0
        for start, stop in chunks(span.elements):
            # What is tied to another is read with that one, and counted there.
            size = (stop - start) * width if stored.name == span.name else 0
            tensor = onto.base.tensors[span.name]
            yield Task(stored.name, tensor, start, stop, in_body, weighted, size)


def is_plain(plan: Plan) -> bool:
    """Return whether the step is the fused update itself, so that all is one sum."""
    return plan.recipe.optimizer == "none"


def _weighted_sum(plan: Plan, onto: Onto, span: TensorSpan) -> Sum:
    """
    Write one tensor as a sum: the new base, or d where an optimizer comes after.

    A base whose factors cancel out is not read at all: for the mean of contributions made from the
    round's own base, nothing is left but the contributions.
    """
    plain = is_plain(plan)
    pull = plan.recipe.pull if plain else 0.0
    step = plan.server_lr * (1 - pull) if plain else 1.0
    weights = [float(weight) * step for weight in plan.tensor_weights(span.name)]
    # Of K = 6 float32 values with one exponent every sixth mean lies half-way between two others,
    # and only a division by K itself, not a product with the rounded 1 / K, stays half-way.
    count = len(weights)
    equal = all(weight == 1 / count for weight in weights)
    divisor = count if equal and not pull and _undiscounted(plan) else 1
    weights = [1.0] * count if divisor > 1 else weights
    bases = _Bases()
    if plain:
        bases.add(divisor * (1 - pull), onto.base.tensors[span.name])
    if pull:
        assert onto.origin is not None, "a pull needs the pretrained model"
        bases.add(pull, onto.origin[span.name])
    updates = []
    for weight, update in zip(weights, plan.updates, strict=True):
        factor = weight * update.discount
        stored = update.reader.terms(span) or []
        for sign, tensor in stored[1:]:
            bases.add(sign * factor, tensor)
        updates.append((factor, update))
    return Sum(bases.terms(), updates, divisor)


def _undiscounted(plan: Plan) -> bool:
    return all(update.discount == 1 for update in plan.updates)


@dataclass
class _Base:
    """
    A tensor that several contributions have in common.

    Attributes:
        tensor: the tensor.
        factor: the sum of its factors.
        size: the sum of their magnitudes.
    """

    tensor: StoredTensor
    factor: float = 0.0
    size: float = 0.0


class _Bases:
    """Factors of bases, added up."""

    def __init__(self) -> None:
        self.found: dict[int, _Base] = {}

    def add(self, factor: float, tensor: StoredTensor) -> None:
        base = self.found.setdefault(id(tensor), _Base(tensor))
        base.factor += factor
        base.size += abs(factor)

    def terms(self) -> list[Term]:
        # Next to its own parts: where all weights are tiny, their bases count no less.
        return [
            (base.factor, base.tensor)
            for base in self.found.values()
            if abs(base.factor) > CANCELLED * base.size
        ]
