"""A replay becomes a line of bases of its own, with the head at its end; or it does not at all."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import update
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import CandidateRow, EvaluationRow, ModelRow, ReplayRow, RoundRow
from coldfusion_server.events import outbox
from coldfusion_server.faults import fault_point
from coldfusion_server.services import (
    bases,
    candidates,
    cards,
    head_moves,
    replay_course,
    replays,
    rounds,
)
from coldfusion_server.services.context import Context
from coldfusion_server.services.garbage import check_stored
from coldfusion_server.services.lookup import find_model
from coldfusion_server.services.references import refer
from coldfusion_server.services.replay_course import NAMED
from coldfusion_server.services.replays import check_open
from coldfusion_server.services.settling import settle
from coldfusion_server.services.tokens import Principal, require
from coldfusion_shared.errors import StateConflict
from coldfusion_shared.replays import ReplayState
from coldfusion_shared.schemas.bases import Manifest, ParentBase
from coldfusion_shared.schemas.replays import Replay
from coldfusion_shared.schemas.tokens import Role


def publish(ctx: Context, name: str, replay: str, principal: Principal | None) -> Replay:
    """
    Publish the bases of a replay that is ready, and make the last one the head.

    The round under way ends without a base, and what it had goes on to the next one; an open one
    goes on from the new head. No old base changes.

    Raises:
        ReplayNotFound: there is none of that id.
        StateConflict: it is not ready, or was decided on; or the head has moved since, or what is
            in it was taken back.
        StorageUnavailable: the store has lost a file.
    """
    who = require(principal, Role.MAINTAINER, name)
    with ctx.database.read() as session:
        model = find_model(session, name, principal)
        row = replays.find_replay(session, model, replay)
        _check(model, row)
        manifests = [candidates.manifest_of(step) for step in replays.steps(session, row)]
        newest = head_moves.newest(session, model)
    # Before the transaction: others would wait for the store.
    manifests = _renamed(ctx, manifests, newest)
    with ctx.database.write() as session:
        refer(session)
        row = replays.locked(session, row.id)
        model = find_model(session, name, principal)
        newest_round = rounds.newest(session, model)
        _check(model, row)
        if head_moves.newest(session, model) != newest:
            raise StateConflict(
                "A base was published at this very moment.", hint="Publish the replay once more."
            )
        _check_inputs(session, model, row, manifests)
        for manifest in manifests:
            check_stored(ctx, [*manifest.files, *manifest.master, *manifest.optimizer_state])
        # Locked before any event is told, as whoever keeps their scores does.
        steps = replays.steps(session, row, lock=True)
        for step, manifest in zip(steps, manifests, strict=True):
            _add(ctx, session, model, step, manifest)
        _move(ctx, session, model, row, newest_round, who.contributor_id or None)
        replays.advance(session, ctx.now(), row, ReplayState.PUBLISHED)
        replays.note(session, ctx.now(), model, row, who, head=f"v{model.current}")
        published = replays.to_schema(session, model, row)
        fault_point(ctx.settings, "replay.publishing")
    fault_point(ctx.settings, "replay.published")
    return published


def _check(model: ModelRow, row: ReplayRow) -> None:
    check_open(row)
    if row.state != ReplayState.READY:
        raise StateConflict(
            f"Replay {row.id} is {row.state}, not ready.",
            hint=f"See how far it is: coldfusion-server model replay {model.name} --show {row.id}",
        )
    if model.current != row.head_number:
        ids = " ".join(f"--without {one}" for one in row.without)
        raise StateConflict(
            f"The head is v{model.current} by now; replay {row.id} stands in for "
            f"v{row.head_number} and would lose what came after.",
            hint=f"Replay again: coldfusion-server model replay {model.name} {ids}",
        )


def _check_inputs(
    session: Session, model: ModelRow, row: ReplayRow, manifests: Sequence[Manifest]
) -> None:
    """Raise `StateConflict` where what was fused again was taken back, or erased, since."""
    gone = replay_course.withdrawn(session, model) | replay_course.erased(session, model).keys()
    inputs = [item.id for manifest in manifests for item in manifest.contributions]
    lost = [one for one in inputs if one in gone]
    if lost:
        more = f" and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
        ids = " ".join(f"--without {one}" for one in row.without)
        raise StateConflict(
            f"Replay {row.id} has contributions in it that were withdrawn or erased since: "
            f"{', '.join(lost[:NAMED])}{more}.",
            hint="Ask for the replay again, which leaves them out: coldfusion-server model replay "
            f"{model.name} {ids}. Then give this one up, with --discard {row.id}",
        )


def _renamed(ctx: Context, manifests: list[Manifest], newest: int) -> list[Manifest]:
    """Give the bases their versions, parents and cards; what they weigh stays as it is."""
    made: list[Manifest] = []
    for number, manifest in enumerate(manifests, newest + 1):
        parent = manifest.parent
        if made:
            parent = ParentBase(version=made[-1].version, digest=made[-1].digest())
        changes = {
            "version": f"v{number}",
            "created_at": ctx.now(),
            "parent": parent,
            "files": [file for file in manifest.files if file.path != cards.CARD_FILE],
        }
        kept = cards.handed_on(ctx, manifest.files)
        made.append(cards.with_card(ctx, manifest.model_copy(update=changes), kept))
    return made


def _add(
    ctx: Context, session: Session, model: ModelRow, step: CandidateRow, manifest: Manifest
) -> None:
    base = bases.add_base(ctx, session, model, manifest, kind=None)
    # What was measured of the candidate was measured of this base.
    step.manifest, step.base_id = base.manifest, base.id
    session.execute(
        update(EvaluationRow).where(EvaluationRow.candidate_id == step.id).values(base_id=base.id)
    )


def _move(
    ctx: Context,
    session: Session,
    model: ModelRow,
    row: ReplayRow,
    newest: RoundRow,
    who: int | None,
) -> None:
    """Make the last base the head; the newest round follows it."""
    before, number = model.current, head_moves.newest(session, model)
    left = f"fused again without {', '.join(row.without)}"
    reason = f"{left}: {row.reason}" if row.reason else left
    head_moves.move_head(
        session, ctx.now(), model, number, head_moves.REPLAY, reason=reason, who=who
    )
    text = f"The head went from v{before} to v{number}: {reason}"
    settle(ctx, session, model, newest, before, text)
    data = {
        "replay": row.id,
        "from": f"v{before}",
        "to": f"v{number}",
        "without": row.without,
        "reason": row.reason,
    }
    outbox.append(session, ctx.now(), "model.replayed", model.name, data)
