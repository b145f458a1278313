"""
Carrying a plan out: one streaming pass over a fixed grid of chunks, never a whole model in memory.

    theta_new = (1 - pull) * (theta_base + eta * step(d)) + pull * theta_0

with d the fused update, summed in float64 and rounded once to each dtype that is written. The
results come in the order of the files, headers first, so they can go to a file or an upload as
they are made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from threading import local
from typing import Any

import numpy as np
import numpy.typing as npt

from coldfusion_shared.errors import NonFiniteWeights
from coldfusion_shared.fusion.executor import Executor, Serial
from coldfusion_shared.fusion.gram import (
    MAX_BY_TENSOR,
    Gram,
    GramSum,
    Measure,
    TensorGram,
    all_products,
    check_finite,
    nothing,
    one_thread_products,
)
from coldfusion_shared.fusion.methods import Block, CoordinateMethod
from coldfusion_shared.fusion.optimizers import Moment
from coldfusion_shared.fusion.plan import FUSING, Plan, Progress
from coldfusion_shared.fusion.updates import (
    MAX_BLOCK_ELEMENTS,
    Doubles,
    FullUpdate,
    Scratch,
    Term,
    Update,
    block_elements,
    load_stack,
    non_finite,
    non_finite_source,
)
from coldfusion_shared.fusion.views import View
from coldfusion_shared.weights.checkpoint import NUMPY_DTYPES, Checkpoint, StoredTensor, chunks
from coldfusion_shared.weights.header import TensorSpan

Values = npt.NDArray[Any]

# A factor below this is what rounding has left of zero.
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
class Piece:
    """The next bytes of one file of one view."""

    view: str
    file: str
    data: memoryview


def fused(
    plan: Plan,
    onto: Onto,
    views: Sequence[View],
    executor: Executor | None = None,
    progress: Progress = lambda phase, size: None,
    compared: Callable[[Gram], None] = lambda gram: None,
    stays: Callable[[str, int], None] | None = None,
) -> Iterator[Piece]:
    """
    Carry out `plan` and yield the bytes of all files of all views, file after file.

    Tensors outside the body (heads, integers) are the base's own.

    Args:
        plan: from `make_plan`.
        onto: what the step is added to.
        views: what is written: the weights, perhaps a master, the optimizer's state.
        executor: works on the chunks; null: this thread. It changes no bit of the result.
        progress: told how many bytes of updates were read.
        compared: at the end given the Gram matrix, where the plan has it made on the way.
        stays: told the name of a tensor, and how many of its values would leave the range of their
            dtype and stay as they were; null: that is an error.

    Raises:
        NonFiniteWeights: the result holds NaN or infinity; the contribution at fault is named.
    """
    worker, work = _Worker(plan, onto, views, may_stay=stays is not None), executor or Serial()
    grams = GramSum(plan.updates, plan.spans if len(plan.updates) <= MAX_BY_TENSOR else ())
    for file, header in onto.base.headers.items():
        for view in views:
            if view.has(header.tensors):
                yield Piece(view.name, file, memoryview(view.header(header.tensors)))
        with one_thread_products:
            for result in work.map(worker, _tasks(plan, onto, header.tensors)):
                for name, values in result.values.items():
                    yield Piece(name, file, values.view(np.uint8).data)
                if result.gram is not None:
                    grams.add(result.task.name, result.gram)
                if result.stayed and stays is not None:
                    stays(result.task.name, result.stayed)
                progress(FUSING, result.task.bytes_read)
    if plan.compares_late:
        compared(grams.gram())


@dataclass(frozen=True)
class _Sum:
    """
    One tensor as a weighted sum, in which every tensor is read once.

    Attributes:
        bases: factor and tensor of what several contributions have in common.
        updates: factor and update; of one that is a sum of stored tensors the factor is that of
            its own tensor, whose others are among `bases`.
        divisor: what the sum is divided by in the end.
    """

    bases: list[Term]
    updates: list[tuple[float, Update]]
    divisor: int = 1


@dataclass(frozen=True)
class _Task:
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
    sum: _Sum | None
    bytes_read: int


def _tasks(plan: Plan, onto: Onto, tensors: Sequence[TensorSpan]) -> Iterator[_Task]:
    for stored in tensors:
        span = onto.base.tensors[onto.tied.get(stored.name, stored.name)].span
        in_body, weighted = span.name in plan.spans, None
        if in_body and plan.weights is not None:
            weighted = _weighted_sum(plan, onto, span)
        width = np.dtype(NUMPY_DTYPES[span.dtype]).itemsize * (in_body and len(plan.updates))
        for start, stop in chunks(span.elements):
            # What is tied to another is read with that one, and counted there.
            size = (stop - start) * width if stored.name == span.name else 0
            tensor = onto.base.tensors[span.name]
            yield _Task(stored.name, tensor, start, stop, in_body, weighted, size)


def _is_plain(plan: Plan) -> bool:
    """Return whether the step is the fused update itself, so that all is one sum."""
    return plan.recipe.optimizer == "none"


def _weighted_sum(plan: Plan, onto: Onto, span: TensorSpan) -> _Sum:
    """
    Write one tensor as a sum: the new base, or d where an optimizer comes after.

    A base whose factors cancel out is not read at all: for the mean of contributions made from the
    round's own base, nothing is left but the contributions.
    """
    plain = _is_plain(plan)
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
        stored = update.reader.terms(span)
        for sign, tensor in stored[1:] if stored else ():
            bases.add(sign * weight * update.discount, tensor)
        # What is not stored is read with its discount.
        updates.append((weight * update.discount if stored else weight, update))
    return _Sum(bases.terms(), updates, divisor)


def _undiscounted(plan: Plan) -> bool:
    return all(update.discount == 1 for update in plan.updates)


class _Bases:
    """Factors of bases, added up."""

    def __init__(self) -> None:
        self.found: dict[int, Term] = {}

    def add(self, factor: float, tensor: StoredTensor) -> None:
        before, _ = self.found.get(id(tensor), (0.0, tensor))
        self.found[id(tensor)] = (before + factor, tensor)

    def terms(self) -> list[Term]:
        return [term for term in self.found.values() if abs(term[0]) > CANCELLED]


@dataclass
class _Result:
    """
    What came out of a task.

    Attributes:
        task: the task.
        values: of the chunk, by view.
        gram: of the updates in the chunk, where the plan compares them on the way.
        stayed: how many values stay as they were, in all views.
    """

    task: _Task
    values: dict[str, Values]
    gram: TensorGram | None
    stayed: int = 0


class _Worker(local):
    """One thread's arithmetic, in buffers that it uses again and again."""

    def __init__(self, plan: Plan, onto: Onto, views: Sequence[View], *, may_stay: bool) -> None:
        self.plan = plan
        self.onto = onto
        self.may_stay = may_stay
        self.views = views
        self.scratch = Scratch()
        self.total = np.empty(MAX_BLOCK_ELEMENTS)
        self.term = np.empty(MAX_BLOCK_ELEMENTS)
        self.row = np.empty(MAX_BLOCK_ELEMENTS, np.float32)
        self.block = MAX_BLOCK_ELEMENTS
        self.measure: Measure | None = None
        if plan.compares_late:
            self.measure = Measure(len(plan.updates), all_products)
            self.block = self.measure.block
        if isinstance(plan.kinds.method, CoordinateMethod):
            self.block = block_elements(len(plan.taken))

    def __call__(self, task: _Task) -> _Result:
        """Return a chunk's values in each view, in the view's dtype."""
        views = [view for view in self.views if task.name in view.dtypes]
        result = _Result(
            task,
            {
                view.name: np.empty(task.stop - task.start, NUMPY_DTYPES[view.dtypes[task.name]])
                for view in views
            },
            nothing(len(self.plan.updates)) if self._measures(task) else None,
        )
        # An overflow becomes infinite, which is caught below and not by a warning.
        with np.errstate(over="ignore", invalid="ignore"):
            for start in range(task.start, task.stop, self.block):
                self._fill(result, start, min(start + self.block, task.stop))
        return result

    def _measures(self, task: _Task) -> bool:
        # What is tied to a tensor is measured with that one.
        return self.measure is not None and task.in_body and task.name == task.tensor.span.name

    def _fill(self, result: _Result, start: int, stop: int) -> None:
        """Compute a block into `result`."""
        task = result.task
        values = self._values(result, start, stop)
        place = slice(start - task.start, stop - task.start)
        parts = {view: whole[place] for view, whole in result.values.items()}
        leaving = []
        for view, part in parts.items():
            part[:] = values.get(view, values["weights"])
            if self._may_leave(task, part.dtype) and not np.isfinite(part).all():
                leaving.append(part)
        if leaving:
            result.stayed += self._let_stay(task, parts, leaving, start, stop)

    def _may_leave(self, task: _Task, dtype: np.dtype[Any]) -> bool:
        """Return whether values of `dtype` may be infinite where the base's are not."""
        before = np.dtype(NUMPY_DTYPES[task.tensor.span.dtype])
        return task.in_body or (dtype != before and dtype.itemsize <= before.itemsize)

    def _let_stay(
        self, task: _Task, parts: dict[str, Values], leaving: list[Values], start: int, stop: int
    ) -> int:
        """
        Bring back what left the range of its dtype, in all views; return how many values.

        A master, or a momentum, that went on alone would lead there again in every round to come.
        """
        fault = self._fault(task, start, stop)
        if fault is not None or not self.may_stay:
            raise fault or _out_of_range(task.tensor.span)
        left = ~np.logical_and.reduce([np.isfinite(part) for part in leaving])
        for view, part in parts.items():
            part[left] = self._before(task, view, start, stop)[left]
        return int(np.count_nonzero(left))

    def _before(self, task: _Task, view: str, start: int, stop: int) -> Values:
        """Return what a view had before this fuse."""
        if view not in self.plan.kinds.optimizer.state:
            return task.tensor.values(start, stop)
        if not self.onto.state:
            return np.zeros(stop - start, np.float32)
        return self.onto.state[view][task.tensor.span.name].values(start, stop)

    def _values(self, result: _Result, start: int, stop: int) -> dict[str, Values]:
        """Return the new weights, and the optimizer's new state, of a block."""
        task = result.task
        if not task.in_body:
            return {"weights": task.tensor.values(start, stop)}
        if task.sum is None:
            update = self._combined(task, start, stop)
        elif result.gram is not None:
            update, part = self._summed_and_measured(task.sum, task, start, stop)
            check_finite(part, self.plan.updates, task.tensor.span)
            result.gram += part
        else:
            update = self._summed(task.sum, task, start, stop)
        if task.sum is not None and _is_plain(self.plan):
            return {"weights": update}
        step, state = self._step(task, start, stop, update)
        return {"weights": self._moved(task, start, stop, step), **state}

    def _summed(self, weighted: _Sum, task: _Task, start: int, stop: int) -> Doubles:
        """Return the sum, each contribution's own tensor read without its base."""
        total = self._based(weighted, start, stop)
        for factor, update in weighted.updates:
            if not factor:
                continue
            stored = update.reader.terms(task.tensor.span)
            if stored:
                values = stored[0][1].values(start, stop, self.scratch.raw(stop - start))
                self._add(stored[0][0] * factor, values, total)
            else:
                row = self.row[: stop - start]
                update.read(task.tensor.span, start, stop, row, self.scratch)
                self._add(factor, row, total)
        return self._divided(total, weighted)

    def _summed_and_measured(
        self, weighted: _Sum, task: _Task, start: int, stop: int
    ) -> tuple[Doubles, TensorGram]:
        """Return the same sum, and the products of the updates, with every value read once."""
        assert self.measure is not None, "asked for where the plan compares"
        total, span = self._based(weighted, start, stop), task.tensor.span
        stack = self.scratch.stack(len(weighted.updates), stop - start)
        for row, (factor, update) in zip(stack, weighted.updates, strict=True):
            if isinstance(update.reader, FullUpdate):
                use = partial(self._add, factor, total=total)
                update.reader.read_both(span, start, stop, row, self.scratch, use)
                if update.discount != 1:
                    np.multiply(row, np.float32(update.discount), out=row)
            else:
                update.read(span, start, stop, row, self.scratch)
                self._add(factor, row, total)
        return self._divided(total, weighted), self.measure(stack)

    def _based(self, weighted: _Sum, start: int, stop: int) -> Doubles:
        total = self.total[: stop - start]
        total[:] = 0
        for factor, tensor in weighted.bases:
            self._add(factor, tensor.values(start, stop, self.scratch.raw(stop - start)), total)
        return total

    def _add(self, factor: float, values: Values, total: Doubles) -> None:
        if factor == 1:
            np.add(total, values, out=total)
        else:
            term = self.term[: total.size]
            np.multiply(values, factor, out=term, dtype=np.float64)
            np.add(total, term, out=total)

    def _divided(self, total: Doubles, weighted: _Sum) -> Doubles:
        if weighted.divisor > 1:
            total /= weighted.divisor
        return total

    def _combined(self, task: _Task, start: int, stop: int) -> Doubles:
        plan, span = self.plan, task.tensor.span
        assert isinstance(plan.kinds.method, CoordinateMethod), "all others have a sum"
        stack = load_stack(plan.taken, span, start, stop, self.scratch)
        if not all(np.isfinite(row).all() for row in stack):
            raise self._fault(task, start, stop) or _out_of_range(span)
        fisher = None
        if plan.kinds.method.needs_fisher:
            fisher = np.stack([_fisher(update, span, start, stop) for update in plan.taken])
        block = Block(
            stack=stack,
            prior=np.array([update.prior for update in plan.taken], float),
            count=len(plan.updates),
            prepared=plan.prepared.get(span.name),
            fisher=fisher,
        )
        combined: Doubles = plan.kinds.method.combine(plan.kinds.parameters, block).astype(
            np.float64
        )
        return combined

    def _step(
        self, task: _Task, start: int, stop: int, update: Doubles
    ) -> tuple[Doubles, dict[str, Doubles]]:
        plan, name = self.plan, task.tensor.span.name
        state = {
            kept: self.onto.state[kept][name].values(start, stop).astype(np.float64)
            if self.onto.state
            else np.zeros(stop - start)
            for kept in plan.kinds.optimizer.state
        }
        moment = Moment(update, state, self.onto.steps + 1, plan.scale)
        return plan.kinds.optimizer.step(plan.kinds.optimizer_parameters, moment)

    def _moved(self, task: _Task, start: int, stop: int, step: Doubles) -> Doubles:
        moved = np.multiply(step, self.plan.server_lr, out=self.total[: step.size])
        moved += task.tensor.values(start, stop, self.scratch.raw(stop - start))
        pull = self.plan.recipe.pull
        if pull:
            assert self.onto.origin is not None, "a pull needs the pretrained model"
            origin = self.onto.origin[task.tensor.span.name].values(start, stop)
            moved *= 1 - pull
            moved += origin.astype(np.float64) * pull
        return moved

    def _fault(self, task: _Task, start: int, stop: int) -> NonFiniteWeights | None:
        """Return whose values are not finite; null where only the result leaves its dtype."""
        row, span = np.empty(stop - start, np.float32), task.tensor.span
        for who, tensor in self._starting_points(task):
            if not np.isfinite(tensor.values(start, stop)).all():
                return non_finite_source(who, span)
        for update in self.plan.updates if task.in_body else ():
            update.read(span, start, stop, row, self.scratch)
            if not np.isfinite(row).all():
                return non_finite(update, span)
        return None

    def _starting_points(self, task: _Task) -> Iterator[tuple[str, StoredTensor]]:
        """Yield what the fuse starts from, and what to call it."""
        name = task.tensor.span.name
        yield "The base", task.tensor
        if self.onto.origin is not None and name in self.onto.origin:
            yield "The pretrained model", self.onto.origin[name]
        for tensors in self.onto.state.values():
            if name in tensors:
                yield "The optimizer's state", tensors[name]


def _out_of_range(span: TensorSpan) -> NonFiniteWeights:
    return NonFiniteWeights(
        f"The fused tensor {span.name!r} leaves the range of its dtype.",
        hint="Lower the server learning rate, or clip the updates (norm_clipped_mean).",
        tensors=[span.name],
    )


def _fisher(update: Update, span: TensorSpan, start: int, stop: int) -> Values:
    assert update.fisher is not None, "checked when the plan was made"
    if span.name not in update.fisher:
        # What it does not have, like a pooler, its task does not depend on.
        return np.zeros(stop - start, np.float32)
    values: Values = update.fisher[span.name].values(start, stop).astype(np.float32)
    if not (values >= 0).all() or not np.isfinite(values).all():
        raise NonFiniteWeights(
            f"The Fisher information of contribution {update.id} is negative or not finite "
            f"in tensor {span.name!r}.",
            tensors=[span.name],
        )
    return values
