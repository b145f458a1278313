"""One thread's part of a fuse: from a chunk of every input to the same chunk of every output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from threading import local
from typing import Any

import numpy as np
import numpy.typing as npt

from coldfusion_shared.errors import NonFiniteWeights
from coldfusion_shared.fusion.gram import (
    Measure,
    TensorGram,
    all_products,
    check_finite,
    nothing,
)
from coldfusion_shared.fusion.methods import Block, CoordinateMethod
from coldfusion_shared.fusion.optimizers import Moment
from coldfusion_shared.fusion.plan import Plan
from coldfusion_shared.fusion.step import Cap, Squares
from coldfusion_shared.fusion.tasks import Onto, Sum, Task, is_plain
from coldfusion_shared.fusion.updates import (
    MAX_BLOCK_ELEMENTS,
    Doubles,
    FullUpdate,
    Scratch,
    Update,
    block_elements,
    load_stack,
    non_finite,
    non_finite_source,
)
from coldfusion_shared.fusion.views import View
from coldfusion_shared.weights.checkpoint import NUMPY_DTYPES, StoredTensor
from coldfusion_shared.weights.header import TensorSpan

Values = npt.NDArray[Any]


@dataclass
class Result:
    """
    What came out of a task.

    Attributes:
        task: the task.
        values: of the chunk, by view.
        gram: of the updates in the chunk, where the plan compares them on the way.
        stayed: how many values stay as they were, in all views.
        squares: sums of squares over the chunk, where the step is measured.
    """

    task: Task
    values: dict[str, Values]
    gram: TensorGram | None
    stayed: int = 0
    squares: Squares = field(default_factory=Squares)


class Worker(local):
    """One thread's arithmetic, in buffers that it uses again and again."""

    def __init__(
        self,
        plan: Plan,
        onto: Onto,
        views: Sequence[View],
        *,
        may_stay: bool = False,
        measures_step: bool = False,
    ) -> None:
        """
        Work on one chunk after another.

        Args:
            plan: what is done.
            onto: what the step is added to.
            views: what is written; none where the step is only measured.
            may_stay: whether a value that would leave the range of its dtype stays as it was; else
                that is an error.
            measures_step: whether sums of squares are taken of the base and the step.
        """
        self.plan = plan
        self.onto = onto
        self.may_stay = may_stay
        self.measures_step = measures_step
        self.cap = plan.cap or Cap()
        self.views = views
        self.scratch = Scratch()
        self.total = np.empty(MAX_BLOCK_ELEMENTS)
        self.term = np.empty(MAX_BLOCK_ELEMENTS)
        self.before = np.empty(MAX_BLOCK_ELEMENTS)
        self.row = np.empty(MAX_BLOCK_ELEMENTS, np.float32)
        self.block = MAX_BLOCK_ELEMENTS
        self.measure: Measure | None = None
        if plan.compares_late:
            self.measure = Measure(len(plan.updates), all_products)
            self.block = self.measure.block
        if isinstance(plan.kinds.method, CoordinateMethod):
            self.block = block_elements(len(plan.taken))

    def __call__(self, task: Task) -> Result:
        """Return a chunk's values in each view, in the view's dtype."""
        views = [view for view in self.views if task.name in view.dtypes]
        result = Result(
            task,
            {
                view.name: np.empty(task.stop - task.start, NUMPY_DTYPES[view.dtypes[task.name]])
                for view in views
            },
            nothing(len(self.plan.updates)) if self.measure is not None and _counts(task) else None,
        )
        # An overflow becomes infinite, which is caught below and not by a warning.
        with np.errstate(over="ignore", invalid="ignore"):
            for start in range(task.start, task.stop, self.block):
                self._fill(result, start, min(start + self.block, task.stop))
        return result

    def fault(self, task: Task) -> NonFiniteWeights | None:
        """Return whose values of a chunk are not finite; null where all of them are."""
        with np.errstate(over="ignore", invalid="ignore"):
            return self._fault(task, task.start, task.stop)

    def _fill(self, result: Result, start: int, stop: int) -> None:
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

    def _may_leave(self, task: Task, dtype: np.dtype[Any]) -> bool:
        """Return whether values of `dtype` may be infinite where the base's are not."""
        before = np.dtype(NUMPY_DTYPES[task.tensor.span.dtype])
        return task.in_body or (dtype != before and dtype.itemsize <= before.itemsize)

    def _let_stay(
        self, task: Task, parts: dict[str, Values], leaving: list[Values], start: int, stop: int
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

    def _before(self, task: Task, view: str, start: int, stop: int) -> Values:
        """Return what a view had before this fuse."""
        if view not in self.plan.kinds.optimizer.state:
            return task.tensor.values(start, stop)
        if not self.onto.state:
            return np.zeros(stop - start, np.float32)
        return self.onto.state[view][task.tensor.span.name].values(start, stop)

    def _values(self, result: Result, start: int, stop: int) -> dict[str, Values]:
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
        weights = update
        state: dict[str, Doubles] = {}
        if task.sum is None or not is_plain(self.plan):
            step, state = self._step(result, start, stop, update)
            weights = self._moved(task, start, stop, step)
        return {"weights": self._capped(result, start, stop, weights), **state}

    def _summed(self, weighted: Sum, task: Task, start: int, stop: int) -> Doubles:
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
                update.reader.read(task.tensor.span, start, stop, row, self.scratch)
                self._add(factor, row, total)
        return self._divided(total, weighted)

    def _summed_and_measured(
        self, weighted: Sum, task: Task, start: int, stop: int
    ) -> tuple[Doubles, TensorGram]:
        """Return the same sum, and the products of the updates, with every value read once."""
        assert self.measure is not None, "asked for where the plan compares"
        total, span = self._based(weighted, start, stop), task.tensor.span
        stack = self.scratch.stack(len(weighted.updates), stop - start)
        for row, (factor, update) in zip(stack, weighted.updates, strict=True):
            if isinstance(update.reader, FullUpdate):
                use = partial(self._add, factor, total=total)
                update.reader.read_both(span, start, stop, row, self.scratch, use)
            else:
                update.reader.read(span, start, stop, row, self.scratch)
                self._add(factor, row, total)
            # The factor of the sum has the discount already.
            if update.discount != 1:
                np.multiply(row, np.float32(update.discount), out=row)
        return self._divided(total, weighted), self.measure(stack)

    def _based(self, weighted: Sum, start: int, stop: int) -> Doubles:
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

    def _divided(self, total: Doubles, weighted: Sum) -> Doubles:
        if weighted.divisor > 1:
            total /= weighted.divisor
        return total

    def _combined(self, task: Task, start: int, stop: int) -> Doubles:
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
        self, result: Result, start: int, stop: int, update: Doubles
    ) -> tuple[Doubles, dict[str, Doubles]]:
        plan, name = self.plan, result.task.tensor.span.name
        if self.cap.update != 1:
            update = update * self.cap.update
        if self.measures_step and _counts(result.task):
            result.squares += Squares(update=float(np.dot(update, update)))
        state = {
            kept: self.onto.state[kept][name].values(start, stop).astype(np.float64)
            if self.onto.state
            else np.zeros(stop - start)
            for kept in plan.kinds.optimizer.state
        }
        scale = plan.scale * self.cap.update
        moment = Moment(update, state, self.onto.steps + 1, scale)
        return plan.kinds.optimizer.step(plan.kinds.optimizer_parameters, moment)

    def _moved(self, task: Task, start: int, stop: int, step: Doubles) -> Doubles:
        moved = np.multiply(step, self.plan.server_lr, out=self.total[: step.size])
        moved += task.tensor.values(start, stop, self.scratch.raw(stop - start))
        pull = self.plan.recipe.pull
        if pull:
            assert self.onto.origin is not None, "a pull needs the pretrained model"
            origin = self.onto.origin[task.tensor.span.name].values(start, stop)
            moved *= 1 - pull
            moved += origin.astype(np.float64) * pull
        return moved

    def _capped(self, result: Result, start: int, stop: int, weights: Doubles) -> Doubles:
        """Return as much of the way to `weights` as the cap leaves; measure all of it."""
        if not self.measures_step and self.cap.step == 1:
            return weights
        before, step = self.before[: weights.size], self.term[: weights.size]
        before[:] = self.scratch.before(result.task.tensor, start, stop)
        np.subtract(weights, before, out=step)
        if self.measures_step and _counts(result.task):
            result.squares += Squares(
                base=float(np.dot(before, before)), step=float(np.dot(step, step))
            )
        if self.cap.step != 1:
            step *= self.cap.step
            np.add(before, step, out=weights)
        return weights

    def _fault(self, task: Task, start: int, stop: int) -> NonFiniteWeights | None:
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

    def _starting_points(self, task: Task) -> Iterator[tuple[str, StoredTensor]]:
        """Yield what the fuse starts from, and what to call it."""
        name = task.tensor.span.name
        yield "The base", task.tensor
        if self.onto.origin is not None and name in self.onto.origin:
            yield "The pretrained model", self.onto.origin[name]
        for tensors in self.onto.state.values():
            if name in tensors:
                yield "The optimizer's state", tensors[name]


def _counts(task: Task) -> bool:
    """Return whether a chunk counts in sums over the body: what is tied counts once."""
    return task.in_body and task.name == task.tensor.span.name


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
