"""
Fusing: the files of contributions and their bases in, the files of a new base out.

What is made is the same wherever it goes: into the store, for a candidate, or into a digest, to
verify a base.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import repeat
from math import isfinite
from typing import Protocol

import structlog

from coldfusion_server.services import bases, cards
from coldfusion_server.services.context import SOFTWARE, Context
from coldfusion_server.services.fuse_inputs import Input
from coldfusion_server.storage import ObjectWriter
from coldfusion_shared.fusion.engine import Onto, Piece, Step, fused
from coldfusion_shared.fusion.executor import Executor, threads
from coldfusion_shared.fusion.gram import Gram, gram_pass
from coldfusion_shared.fusion.plan import Plan, make_plan, phases
from coldfusion_shared.fusion.updates import SentUpdate, Update, discounted, together_in_update
from coldfusion_shared.fusion.views import (
    MASTER,
    WEIGHTS,
    View,
    master_view,
    needs_master,
    state_views,
    weights_view,
)
from coldfusion_shared.schemas.bases import FusedContribution, Manifest, ParentBase
from coldfusion_shared.schemas.files import FileEntry
from coldfusion_shared.weights.checkpoint import Checkpoint
from coldfusion_shared.weights.codecs import open_update
from coldfusion_shared.weights.header import ITEM_BYTES
from coldfusion_shared.weights.tied import FusedTensors, fused_tensors

log = structlog.get_logger(__name__)

# The stored files of a fuse by the view that they belong to.
Stored = dict[str, list[FileEntry]]


class Sink(Protocol):
    """Where the files go."""

    def open_object(self) -> ObjectWriter:
        """Begin one file."""


@dataclass(frozen=True)
class Work:
    """
    How a fuse is carried out; nothing of it changes a bit of the result.

    Attributes:
        alive: called at every read and write: shows that the work moves, and may end it.
        report: told the bytes of updates that were read, as they are, and how many there will be.
    """

    alive: Callable[[], None]
    report: Callable[[int, int], None] = lambda done, total: None


@dataclass(frozen=True)
class Fused:
    """
    What a fuse made.

    Attributes:
        stored: its files, by view.
        plan: how it was made.
        step: how far it moved what it was added to.
    """

    stored: Stored
    plan: Plan
    step: Step

    @property
    def relative_norm(self) -> float | None:
        """The step's norm over the norm of what it was added to; null: there is no such number."""
        return self.step.relative_norm if isfinite(self.step.relative_norm) else None

    @property
    def step_factor(self) -> float | None:
        """What the recipe's cap left of the step; null: everything."""
        return None if self.step.factor == 1 else self.step.factor


def fuse(
    ctx: Context, given: Input, work: Work, sink: Sink, rates: Sequence[float] = ()
) -> Iterator[Fused]:
    """
    Fuse `given` into `sink`, once or at several server learning rates, with one look at the inputs.

    Args:
        ctx: the service's surroundings.
        given: what is fused.
        work: how.
        sink: where the files go; none of them exists before all of one fuse are whole.
        rates: server learning rates, in place of the recipe's; empty: the recipe's alone.

    Raises:
        NonFiniteWeights: the result holds NaN or infinity; the contribution at fault is named.
        StorageUnavailable: an input cannot be read.
    """
    with ExitStack() as stack:
        base, tensors, updates = _updates(ctx, stack, given, work.alive)
        size = sum(span.elements * ITEM_BYTES[span.dtype] for span in tensors.spans.values())
        # Of the phases, each rate has its own cap and its own writing.
        own = 1 + (given.recipe.step_cap is not None)
        passes = len(phases(given.recipe)) + own * max(0, len(rates) - 1)
        counted = _Counted(work, passes * len(updates) * size)
        executor = executor_of(ctx)
        plan = make_plan(tensors.spans, updates, given.recipe, executor, progress=counted)
        onto = _onto(ctx, stack, given, base, tensors, work.alive)
        views = _views(plan, base, tensors)
        for chosen in _at_rates(plan, rates):
            yield _carry_out(stack, chosen, onto, views, executor, counted, sink)


def compare(ctx: Context, given: Input, alive: Callable[[], None]) -> Gram:
    """
    Return the Gram matrix of the updates, late ones discounted as in their fuse; nothing is fused.

    Raises:
        NonFiniteWeights, StorageUnavailable: as `fuse` does.
    """
    with ExitStack() as stack:
        _, tensors, updates = _updates(ctx, stack, given, alive)
        ready = discounted(updates, given.recipe.staleness_exponent)
        return gram_pass(tensors.spans, ready, executor_of(ctx), by_tensor=False)


def executor_of(ctx: Context) -> Executor:
    """Return what works on chunks, with as many threads as the settings say."""
    return threads(ctx.settings.fuse_threads or os.cpu_count() or 1)


def _updates(
    ctx: Context, stack: ExitStack, given: Input, alive: Callable[[], None]
) -> tuple[Checkpoint, FusedTensors, list[Update]]:
    """Open the base and what is fused onto it, until `stack` closes."""
    base = stack.enter_context(bases.open_weights(ctx, given.base.files, alive))
    sent = _all_sent(ctx, stack, given, base, alive)
    spans = base.spans()
    tensors = fused_tensors(base, [together_in_update(one, spans) for one in sent.values()])
    updates = [
        Update(item.id, sent[item.id], age=item.staleness, prior=item.prior)
        for item in given.contributions
    ]
    return base, tensors, updates


class _Counted:
    """Adds up what the passes of a fuse have read."""

    def __init__(self, work: Work, total: int) -> None:
        self.work, self.total, self.done = work, total, 0

    def __call__(self, phase: str, size: int) -> None:
        self.done += size
        self.work.report(self.done, self.total)


def _at_rates(plan: Plan, rates: Sequence[float]) -> Iterator[Plan]:
    """Yield the plan at each of the rates; nothing else of it depends on them."""
    if not rates:
        yield plan
    for rate in rates:
        recipe = plan.recipe.model_copy(update={"server_lr": rate})
        yield replace(plan, recipe=recipe, server_lr=rate)


def _carry_out(
    stack: ExitStack,
    plan: Plan,
    onto: Onto,
    views: Sequence[View],
    executor: Executor,
    counted: _Counted,
    sink: Sink,
) -> Fused:
    steps: list[Step] = []
    pieces = fused(plan, onto, views, executor, counted, stays=_tell_stays, stepped=steps.append)
    stored = _store(stack, pieces, sink, counted.work.alive)
    (step,) = steps
    return Fused(stored, plan, step)


def _all_sent(
    ctx: Context, stack: ExitStack, given: Input, base: Checkpoint, alive: Callable[[], None]
) -> dict[str, SentUpdate]:
    """Open each contribution over what it was made from."""
    opened = {given.base_digest: base}
    for digest, manifest in given.bases.items():
        opened[digest] = stack.enter_context(bases.open_weights(ctx, manifest.files, alive))
    return {
        item.id: _sent(
            ctx, stack, item, opened[item.base.digest if item.base else given.base_digest], alive
        )
        for item in given.contributions
    }


def _sent(
    ctx: Context,
    stack: ExitStack,
    item: FusedContribution,
    own: Checkpoint,
    alive: Callable[[], None],
) -> SentUpdate:
    sources = bases.update_sources(ctx, stack, item.encoding, item.files, alive)
    return open_update(item.encoding, sources, own.tensors)


def _onto(
    ctx: Context,
    stack: ExitStack,
    given: Input,
    base: Checkpoint,
    tensors: FusedTensors,
    alive: Callable[[], None],
) -> Onto:
    """Open what the step is added to: the master, where the published weights are coarser."""

    def opened(files: list[FileEntry]) -> Checkpoint:
        return stack.enter_context(bases.open_weights(ctx, files, alive))

    state: dict[str, list[FileEntry]] = {}
    if continues(given):
        for file in given.base.optimizer_state:
            name, path = file.path.split("/", 1)
            state.setdefault(name, []).append(file.model_copy(update={"path": path}))
    return Onto(
        base=opened(given.base.master) if given.base.master else base,
        origin=opened(given.origin.files).tensors if given.recipe.pull else None,
        state={name: opened(files).tensors for name, files in state.items()},
        steps=given.base.optimizer_steps if state else 0,
        tied=tensors.tied,
    )


def continues(given: Input) -> bool:
    """Return whether the optimizer's state is that of this recipe's optimizer."""
    before = given.base.recipe
    return before is not None and before.optimizer == given.recipe.optimizer


def _views(plan: Plan, base: Checkpoint, tensors: FusedTensors) -> list[View]:
    weights = weights_view(base.spans())
    masters = [master_view(base.spans())] if needs_master(weights) else []
    return [weights, *masters, *state_views(plan.kinds.optimizer.state, tensors.body)]


def _store(
    stack: ExitStack, pieces: Iterable[Piece], sink: Sink, alive: Callable[[], None]
) -> Stored:
    """Write the pieces into objects; none of them exists before all of them are whole."""
    writers: dict[tuple[str, str], ObjectWriter] = {}
    latest: dict[str, ObjectWriter] = {}
    for piece in pieces:
        key = (piece.view, piece.file)
        if key not in writers:
            # Of each view one file is written after the other.
            if piece.view in latest:
                latest[piece.view].finish()
            writers[key] = latest[piece.view] = sink.open_object()
            stack.callback(writers[key].abort)
        writers[key].write(piece.data)
    stored: Stored = {}
    for (view, file), writer in writers.items():
        # A store may take longer to keep what was written than a lease lasts.
        entry = writer.commit(progress=lambda _: alive())
        alive()
        path = file if view in (WEIGHTS, MASTER) else f"{view}/{file}"
        found = FileEntry(path=path, size=entry.size, sha256=entry.sha256)
        stored.setdefault(view, []).append(found)
    return stored


def _tell_stays(tensor: str, values: int) -> None:
    """Tell of values that a fuse leaves as they were: it must not fail for ever."""
    log.warning("fused values out of range", tensor=tensor, values=values)


def describe(ctx: Context, given: Input, made: Fused) -> Manifest:
    """Return the manifest of a candidate: new weights, all other files the base's, and a card."""
    plan, stored = made.plan, made.stored
    written = {file.path: file for file in stored[WEIGHTS]}
    states = [file for name in plan.kinds.optimizer.state for file in stored.get(name, [])]
    manifest = Manifest(
        model=given.model,
        version=given.version,
        created_at=ctx.now(),
        files=[
            written.get(file.path, file)
            for file in given.base.files
            if file.path != cards.CARD_FILE
        ],
        parent=ParentBase(version=given.base.version, digest=given.base_digest),
        round=given.round,
        recipe=plan.recipe,
        server_lr=plan.server_lr,
        step_factor=made.step_factor,
        contributions=_weighted(given, plan),
        master=stored.get(MASTER, []),
        optimizer_state=states,
        optimizer_steps=_steps(given) if states else 0,
        replays=given.replays,
        without=list(given.without),
        software=SOFTWARE,
    )
    return cards.with_card(ctx, manifest, cards.handed_on(ctx, given.base.files))


def _weighted(given: Input, plan: Plan) -> list[FusedContribution]:
    weights = plan.mean_weights
    return [
        item.model_copy(update={"weight": weight})
        for item, weight in zip(
            given.contributions, weights or repeat(None), strict=weights is not None
        )
    ]


def _steps(given: Input) -> int:
    return (given.base.optimizer_steps if continues(given) else 0) + 1
