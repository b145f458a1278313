"""
The second half of a round: fuse what was accepted, then publish the new base.

Each step can run twice without harm. A worker that dies loses its lease; another one goes on from
the round's state and its candidate, which is written only when all its objects are stored.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from itertools import repeat

import structlog
from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import BaseRow, ContributionRow, ModelRow, RoundRow
from coldfusion_server.services import bases, cards, contributions, leases, rounds
from coldfusion_server.services.context import SOFTWARE, Context
from coldfusion_server.services.garbage import check_stored
from coldfusion_server.services.lookup import find_base, manifest_of
from coldfusion_server.services.references import refer
from coldfusion_server.storage import ObjectWriter
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.errors import ColdFusionError, LeaseLost, StateConflict
from coldfusion_shared.fusion.engine import Onto, Piece, fused
from coldfusion_shared.fusion.executor import threads
from coldfusion_shared.fusion.plan import Plan, make_plan, phases
from coldfusion_shared.fusion.updates import SentUpdate, Update, together_in_update
from coldfusion_shared.fusion.views import (
    MASTER,
    WEIGHTS,
    View,
    master_view,
    needs_master,
    state_views,
    weights_view,
)
from coldfusion_shared.rounds import RoundState
from coldfusion_shared.schemas.bases import FusedContribution, Manifest, ParentBase
from coldfusion_shared.schemas.files import FileEntry
from coldfusion_shared.schemas.recipes import Recipe
from coldfusion_shared.weights.checkpoint import Checkpoint
from coldfusion_shared.weights.codecs import discover, open_update
from coldfusion_shared.weights.header import ITEM_BYTES
from coldfusion_shared.weights.tied import FusedTensors, fused_tensors

log = structlog.get_logger(__name__)

RETRY_SECONDS = 5
MAX_RETRY_SECONDS = 600


@dataclass(frozen=True)
class Input:
    """All that the fuse of one round depends on, read in one transaction."""

    round_id: int
    round_number: int
    model: str
    number: int
    base: Manifest
    base_digest: str
    origin: Manifest
    recipe: Recipe
    contributions: list[FusedContribution]


# The stored files of a fuse by the view that they belong to.
Stored = dict[str, list[FileEntry]]


def fuse_next(ctx: Context, holder: str) -> bool:
    """Take one closed round a good way further; return whether there was one."""
    for round_id in _waiting(ctx):
        with leases.held(ctx, f"round:{round_id}", holder) as lease:
            if lease is None:
                continue
            try:
                _go_on(ctx, round_id, lease)
            except (StateConflict, LeaseLost) as error:
                log.info("fuse overtaken", round=round_id, why=error.message)
            except ColdFusionError as error:
                _fail(ctx, round_id, lease, error)
            except Exception as error:
                # A fault of ours: the round must say so, and be tried again later and later.
                log.exception("fuse broke", round=round_id)
                what = f"An internal error: {type(error).__name__}: {error}"
                _fail(ctx, round_id, lease, ColdFusionError(what))
            return True
    return False


def _waiting(ctx: Context) -> list[int]:
    with ctx.database.read() as session:
        return list(
            session.scalars(
                select(RoundRow.id)
                .where(
                    RoundRow.state.in_(
                        (
                            RoundState.CLOSED,
                            RoundState.FUSING,
                            RoundState.EVALUATING,
                            RoundState.FAILED,
                        )
                    ),
                    or_(RoundRow.retry_at.is_(None), RoundRow.retry_at <= ctx.now()),
                )
                .order_by(RoundRow.id)
            )
        )


def _go_on(ctx: Context, round_id: int, lease: leases.Lease) -> None:
    """Do what the round's state says is next, until it is published."""
    state = _begin(ctx, round_id, lease)
    if state == RoundState.FUSING:
        candidate = _fuse(ctx, _read_input(ctx, round_id), lease)
        with ctx.database.write() as session:
            refer(session)
            row = session.get_one(RoundRow, round_id)
            rounds.advance(
                session,
                ctx.now(),
                row,
                RoundState.EVALUATING,
                lease,
                candidate=candidate.canonical().decode(),
            )
        state = RoundState.EVALUATING
    if state == RoundState.EVALUATING:
        _check_candidate(ctx, round_id)
        _publish(ctx, round_id, lease)


def _check_candidate(ctx: Context, round_id: int) -> None:
    """Raise `StorageUnavailable` unless all of it is stored; from here on nothing removes it."""
    with ctx.database.read() as session:
        candidate = session.get_one(RoundRow, round_id).candidate
    assert candidate is not None, "evaluating begins with a candidate"
    manifest = Manifest.model_validate_json(candidate)
    check_stored(ctx, [*manifest.files, *manifest.master, *manifest.optimizer_state])


def _begin(ctx: Context, round_id: int, lease: leases.Lease) -> RoundState:
    with ctx.database.write() as session:
        row = session.get_one(RoundRow, round_id)
        if row.state in (RoundState.CLOSED, RoundState.FAILED):
            rounds.advance(
                session,
                ctx.now(),
                row,
                RoundState.FUSING,
                lease,
                attempts=row.attempts + 1,
                fused_bytes=0,
                reason=None,
            )
        return RoundState(row.state)


def _read_input(ctx: Context, round_id: int) -> Input:
    with ctx.database.read() as session:
        row = session.get_one(RoundRow, round_id)
        model = session.get_one(ModelRow, row.model_id)
        base = session.scalars(
            select(BaseRow).where(BaseRow.model_id == model.id, BaseRow.number == row.base_number)
        ).one()
        return Input(
            round_id=row.id,
            round_number=row.number,
            model=model.name,
            number=row.base_number + 1,
            base=manifest_of(base),
            base_digest=base.digest,
            origin=manifest_of(find_base(session, model, "v0")),
            recipe=rounds.policy_in_force(model, row).recipe(),
            contributions=[
                FusedContribution(
                    id=item.id,
                    contributor=item.contributor.name,
                    encoding=item.encoding,
                    relative_error=item.work.get("relative_error"),
                    files=[
                        FileEntry(path=file.path, size=file.size, sha256=file.sha256)
                        for file in item.files
                        if file.path in discover()[item.encoding].files
                    ],
                    weight=None,
                )
                for item in _accepted(session, row)
            ],
        )


def _accepted(session: Session, row: RoundRow) -> list[ContributionRow]:
    """Return what is fused, in the order of acceptance."""
    return list(
        session.scalars(
            select(ContributionRow)
            .where(
                ContributionRow.round_id == row.id,
                ContributionRow.state == ContributionState.ACCEPTED,
            )
            .order_by(ContributionRow.position)
        )
    )


def _fuse(ctx: Context, given: Input, lease: leases.Lease) -> Manifest:
    """Fuse into the store and return the candidate's manifest."""
    alive = leases.Renewal(ctx, lease).alive
    with ExitStack() as stack:
        base = stack.enter_context(bases.open_weights(ctx, given.base.files, alive))
        sent = {item.id: _sent(ctx, stack, item, base, alive) for item in given.contributions}
        spans = base.spans()
        tensors = fused_tensors(base, [together_in_update(one, spans) for one in sent.values()])
        updates = [Update(name, reader) for name, reader in sent.items()]
        size = sum(span.elements * ITEM_BYTES[span.dtype] for span in tensors.spans.values())
        total = len(phases(given.recipe)) * len(updates) * size
        renewal = leases.Renewal(ctx, lease, _reporter(given.round_id, total))
        executor = threads(ctx.settings.fuse_threads or os.cpu_count() or 1)

        def progress(phase: str, done: int) -> None:
            renewal(done)

        plan = make_plan(tensors.spans, updates, given.recipe, executor, progress=progress)
        onto = _onto(ctx, stack, given, base, tensors, alive)
        views = _views(plan, base, tensors)
        pieces = fused(plan, onto, views, executor, progress, stays=_stays(given.round_id))
        stored = _store(ctx, stack, pieces, renewal)
    return cards.with_card(ctx, _manifest(ctx, given, plan, stored))


def _sent(
    ctx: Context,
    stack: ExitStack,
    item: FusedContribution,
    base: Checkpoint,
    alive: Callable[[], None],
) -> SentUpdate:
    sources = bases.update_sources(ctx, stack, item.encoding, item.files, alive)
    return open_update(item.encoding, sources, base.tensors)


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
    if _continues(given):
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


def _continues(given: Input) -> bool:
    """Return whether the optimizer's state is that of this recipe's optimizer."""
    before = given.base.recipe
    return before is not None and before.optimizer == given.recipe.optimizer


def _views(plan: Plan, base: Checkpoint, tensors: FusedTensors) -> list[View]:
    weights = weights_view(base.spans())
    masters = [master_view(base.spans())] if needs_master(weights) else []
    return [weights, *masters, *state_views(plan.kinds.optimizer.state, tensors.body)]


def _store(
    ctx: Context, stack: ExitStack, pieces: Iterable[Piece], renewal: leases.Renewal
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
            writers[key] = latest[piece.view] = ctx.store.open_object()
            stack.callback(writers[key].abort)
        writers[key].write(piece.data)
    stored: Stored = {}
    for (view, file), writer in writers.items():
        # A store may take longer to keep what was written than a lease lasts.
        entry = writer.commit(progress=lambda _: renewal.alive())
        renewal.alive()
        path = file if view in (WEIGHTS, MASTER) else f"{view}/{file}"
        found = FileEntry(path=path, size=entry.size, sha256=entry.sha256)
        stored.setdefault(view, []).append(found)
    return stored


def _reporter(round_id: int, total: int) -> Callable[[Session, int], None]:
    def report(session: Session, done: int) -> None:
        session.execute(
            update(RoundRow)
            .where(RoundRow.id == round_id)
            .values(fused_bytes=done, total_bytes=total)
        )

    return report


def _stays(round_id: int) -> Callable[[str, int], None]:
    """Return what tells of values that a fuse leaves as they were: it must not fail for ever."""

    def tell(tensor: str, values: int) -> None:
        log.warning("fused values out of range", round=round_id, tensor=tensor, values=values)

    return tell


def _manifest(ctx: Context, given: Input, plan: Plan, stored: Stored) -> Manifest:
    """Describe the candidate: new weights, all other files the base's, but for the card."""
    written = {file.path: file for file in stored[WEIGHTS]}
    weights = plan.mean_weights
    states = [file for name in plan.kinds.optimizer.state for file in stored.get(name, [])]
    return Manifest(
        model=given.model,
        version=f"v{given.number}",
        created_at=ctx.now(),
        files=[
            written.get(file.path, file)
            for file in given.base.files
            if file.path != cards.CARD_FILE
        ],
        parent=ParentBase(version=given.base.version, digest=given.base_digest),
        round=given.round_number,
        recipe=given.recipe,
        server_lr=plan.server_lr,
        contributions=[
            item.model_copy(update={"weight": weight})
            for item, weight in zip(
                given.contributions, weights or repeat(None), strict=weights is not None
            )
        ],
        master=stored.get(MASTER, []),
        optimizer_state=states,
        optimizer_steps=(given.base.optimizer_steps if _continues(given) else 0) + 1
        if states
        else 0,
        software=SOFTWARE,
    )


def _publish(ctx: Context, round_id: int, lease: leases.Lease) -> None:
    """Base, head, round, contributions, next round and their events: all in one transaction."""
    with ctx.database.write() as session:
        now = ctx.now()
        row = session.get_one(RoundRow, round_id)
        model = session.get_one(ModelRow, row.model_id)
        assert row.candidate is not None, "evaluating begins with a candidate"
        manifest = Manifest.model_validate_json(row.candidate)
        number = row.base_number + 1
        rounds.advance(
            session,
            now,
            row,
            RoundState.PUBLISHED,
            lease,
            result_number=number,
            fused_bytes=row.total_bytes,
        )
        bases.add_base(session, model, manifest, number)
        _tell_outcomes(session, ctx, row, manifest, number)
        rounds.open_next(session, model, now)
    log.info("base published", model=manifest.model, version=manifest.version)


def _tell_outcomes(
    session: Session, ctx: Context, row: RoundRow, manifest: Manifest, number: int
) -> None:
    """Every contribution of the round has an outcome now, and knows why."""
    weights = {item.id: item.weight for item in manifest.contributions}
    rest = session.scalars(select(ContributionRow).where(ContributionRow.round_id == row.id)).all()
    for item in rest:
        if item.id in weights:
            contributions.move(
                session,
                ctx.now(),
                item,
                ContributionState.FUSED,
                weight=weights[item.id],
                result_number=number,
            )
        elif item.state in (ContributionState.DECLARED, ContributionState.COMPLETED):
            contributions.reject(
                session,
                ctx.now(),
                item,
                f"Round {row.number} closed before it had arrived.",
                contributions.ONTO_LATEST,
            )


def _fail(ctx: Context, round_id: int, lease: leases.Lease, error: ColdFusionError) -> None:
    """Keep why it failed, and try again later: longer and longer, but for ever."""
    log.error("fuse failed", round=round_id, why=error.message)
    with ctx.database.write() as session:
        row = session.get_one(RoundRow, round_id)
        wait = min(MAX_RETRY_SECONDS, RETRY_SECONDS * 2 ** max(0, row.attempts - 1))
        rounds.advance(
            session,
            ctx.now(),
            row,
            RoundState.FAILED,
            lease,
            reason=error.message,
            retry_at=ctx.now() + timedelta(seconds=wait),
        )
