"""
Carrying a plan out: one streaming pass over a fixed grid of chunks, never a whole model in memory.

    theta_new = (1 - pull) * (theta_base + eta * step(d)) + pull * theta_0

with d the fused update, summed in float64 and rounded once to each dtype that is written. A cap on
the step shortens ``theta_new - theta_base`` as a whole. The results come in the order of the files,
headers first, so they can go to a file or an upload as they are made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np

from coldfusion_shared.fusion.executor import Executor, Serial
from coldfusion_shared.fusion.gram import MAX_BY_TENSOR, Gram, GramSum, one_thread_products
from coldfusion_shared.fusion.plan import CAPPING, FUSING, Plan, Progress
from coldfusion_shared.fusion.step import Cap, Squares, Step, within
from coldfusion_shared.fusion.tasks import Onto, tasks
from coldfusion_shared.fusion.views import View
from coldfusion_shared.fusion.worker import Worker

__all__ = ["Onto", "Piece", "Step", "capped", "fused"]


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
    stepped: Callable[[Step], None] | None = None,
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
        stepped: at the end told how far the base moved; null: that is not measured.

    Raises:
        NonFiniteWeights: the result holds NaN or infinity; the contribution at fault is named.
    """
    work, squares = executor or Serial(), Squares()
    plan = capped(plan, onto, work, progress)
    worker = Worker(
        plan, onto, views, may_stay=stays is not None, measures_step=stepped is not None
    )
    grams = GramSum(plan.updates, plan.spans if len(plan.updates) <= MAX_BY_TENSOR else ())
    for file, header in onto.base.headers.items():
        for view in views:
            if view.has(header.tensors):
                yield Piece(view.name, file, memoryview(view.header(header.tensors)))
        with one_thread_products:
            for result in work.map(worker, tasks(plan, onto, header.tensors)):
                for name, values in result.values.items():
                    yield Piece(name, file, values.view(np.uint8).data)
                if result.gram is not None:
                    grams.add(result.task.name, result.gram)
                if result.stayed and stays is not None:
                    stays(result.task.name, result.stayed)
                squares += result.squares
                progress(FUSING, result.task.bytes_read)
    if plan.compares_late:
        compared(grams.gram())
    if stepped is not None:
        stepped(Step.of(squares, plan.cap))


def capped(
    plan: Plan,
    onto: Onto,
    executor: Executor | None = None,
    progress: Progress = lambda phase, size: None,
) -> Plan:
    """
    Return `plan` with what its recipe's cap leaves of the step; `fused` does so by itself.

    With ``limit = step_cap * |theta_base|``, Euclidean norms over the tensors that are fused, the
    whole step ``theta_new - theta_base``, pull and all, is scaled down to `limit` where it is
    longer. So that no optimizer carries a giant on into later rounds, one that keeps a state gets a
    fused update with ``eta * |d| <= limit``; what it makes of that, state and step, is its own, and
    the factor of the whole step leaves the state alone.

    It takes a pass over the updates that writes nothing, and another one where an optimizer's
    update was cut. Both norms are sums by chunk in float64, in the order of the chunks.

    Args:
        plan: from `make_plan`, with the server learning rate that is in force.
        onto: what the step is added to.
        executor: works on the chunks; null: this thread. It changes no bit of the result.
        progress: told how many bytes of updates the pass read.

    Raises:
        NonFiniteWeights: an input holds NaN or infinity; whose it is, is named.
    """
    share, work = plan.recipe.step_cap, executor or Serial()
    if share is None or plan.cap is not None:
        return plan
    squares = _squares(plan, onto, work, progress)
    limit, cut = share * sqrt(squares.base), 1.0
    if plan.kinds.optimizer.state:
        cut = within(limit, plan.server_lr * sqrt(squares.update))
    if cut != 1:
        cut_plan = replace(plan, cap=Cap(update=cut))
        squares = _squares(cut_plan, onto, work, lambda phase, size: None)
    return replace(plan, cap=Cap(cut, within(limit, sqrt(squares.step))))


def _squares(plan: Plan, onto: Onto, work: Executor, progress: Progress) -> Squares:
    """Return the sums of squares over the body; nothing is written, nothing compared."""
    worker = Worker(replace(plan, compares_late=False), onto, (), measures_step=True)
    squares = Squares()
    with one_thread_products:
        for header in onto.base.headers.values():
            spans = [span for span in header.tensors if span.name in plan.spans]
            for result in work.map(worker, tasks(plan, onto, spans)):
                fault = None if result.squares.finite else worker.fault(result.task)
                if fault is not None:
                    raise fault
                squares += result.squares
                progress(CAPPING, result.task.bytes_read)
    return squares
