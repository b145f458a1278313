"""Candidates: fused bases before publication. Kept, found, shown, given up."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import CandidateRow, ModelRow, ReplayRow, RoundRow
from coldfusion_server.services.context import Context
from coldfusion_server.services.lookup import find_file, find_model, find_round, searchable
from coldfusion_server.services.tokens import Principal, require
from coldfusion_shared.errors import CandidateNotFound
from coldfusion_shared.replays import OPEN
from coldfusion_shared.rounds import RoundState
from coldfusion_shared.schemas.bases import Manifest
from coldfusion_shared.schemas.files import FileEntry
from coldfusion_shared.schemas.rounds import Candidate
from coldfusion_shared.schemas.tokens import Role


@dataclass(frozen=True)
class Made:
    """
    A candidate whose objects are all stored.

    Attributes:
        manifest: what it is.
        server_lr: of a line search, else null.
        relative_norm: norm of its step over the norm of what it was added to.
    """

    manifest: Manifest
    server_lr: float | None
    relative_norm: float | None


def keep(ctx: Context, session: Session, row: RoundRow, made: Sequence[Made]) -> None:
    """Keep a round's candidates in the caller's transaction."""
    for one in made:
        session.add(
            CandidateRow(
                id=secrets.token_hex(8),
                model_id=row.model_id,
                round_id=row.id,
                server_lr=one.server_lr,
                manifest=one.manifest.canonical().decode(),
                relative_norm=one.relative_norm,
                chosen=len(made) == 1,
                created_at=ctx.now(),
            )
        )


def of_round(session: Session, row: RoundRow) -> list[CandidateRow]:
    """Return the round's candidates that may become a base, or have, by their rate."""
    query = select(CandidateRow).where(CandidateRow.round_id == row.id, ~CandidateRow.given_up)
    return list(session.scalars(query.order_by(CandidateRow.server_lr, CandidateRow.id)))


def manifest_of(row: CandidateRow) -> Manifest:
    """Return a candidate's manifest."""
    return Manifest.model_validate_json(row.manifest)


def compared_with(manifest: Manifest) -> str:
    """Return the version of the base that a candidate was fused onto, or stands in for."""
    assert manifest.parent is not None, "a candidate was fused onto a base"
    return manifest.replays or manifest.parent.version


def list_waiting(ctx: Context, name: str, principal: Principal | None) -> list[Candidate]:
    """
    Return the candidates that wait to be measured.

    First those that wait for their round's gate, by their rate, then those of replays that nobody
    has decided on, in order.
    """
    require(principal, Role.EVALUATOR, name)
    with ctx.database.read() as session:
        model = find_model(session, name, principal)
        evaluated = RoundRow.state == RoundState.EVALUATING
        rounds = session.scalars(
            select(RoundRow).where(RoundRow.model_id == model.id, evaluated).order_by(RoundRow.id)
        )
        of_replays = session.scalars(in_replays().where(CandidateRow.model_id == model.id))
        found = [*(one for row in rounds for one in of_round(session, row)), *of_replays]
        return [to_schema(session, model, row) for row in found]


def in_replays() -> Select[CandidateRow]:
    """Return the query of the candidates of replays that nobody has decided on, in order."""
    return (
        select(CandidateRow)
        .join(ReplayRow, ReplayRow.id == CandidateRow.replay_id)
        .where(ReplayRow.state.in_(OPEN), ~CandidateRow.given_up)
        .order_by(ReplayRow.created_at, ReplayRow.id, CandidateRow.step)
    )


def list_candidates(
    ctx: Context, name: str, number: str, principal: Principal | None
) -> list[Candidate]:
    """Return a round's candidates that may become a base, or have, by their rate."""
    require(principal, Role.EVALUATOR, name)
    with ctx.database.read() as session:
        model = find_model(session, name, principal)
        found = of_round(session, find_round(session, model, number))
        return [to_schema(session, model, row) for row in found]


def get_candidate(
    ctx: Context, name: str, candidate: str, principal: Principal | None
) -> Candidate:
    """Return one candidate; for evaluators and maintainers. Raises `CandidateNotFound`."""
    require(principal, Role.EVALUATOR, name)
    with ctx.database.read() as session:
        model = find_model(session, name, principal)
        return to_schema(session, model, find_candidate(session, model, candidate))


def get_file(
    ctx: Context, name: str, candidate: str, path: str, principal: Principal | None
) -> FileEntry:
    """Return size and digest of one file of a candidate; raises `CandidateNotFound`."""
    manifest = get_candidate(ctx, name, candidate, principal).manifest
    return find_file(manifest, path, f"The candidate {candidate} of {name}")


def find_candidate(session: Session, model: ModelRow, candidate: str) -> CandidateRow:
    """Return the row of a candidate that may become a base, or has; raises `CandidateNotFound`."""
    row = session.scalar(
        select(CandidateRow).where(
            CandidateRow.id == searchable(candidate),
            CandidateRow.model_id == model.id,
            ~CandidateRow.given_up,
        )
    )
    if row is None:
        raise not_waiting(model, candidate)
    return row


def not_waiting(model: ModelRow, candidate: str) -> CandidateNotFound:
    """Return the error for a candidate that is not there, or not any more."""
    return CandidateNotFound(
        f"{model.name} has no candidate {candidate[:40]!r} that waits for anything.",
        hint="It may have been fused again, or decided on; see the round for what waits now.",
    )


def to_schema(session: Session, model: ModelRow, row: CandidateRow) -> Candidate:
    """Return what the API shows of a candidate."""
    manifest = manifest_of(row)
    round_row = None if row.round_id is None else session.get_one(RoundRow, row.round_id)
    replay = None if row.replay_id is None else session.get_one(ReplayRow, row.replay_id)
    return Candidate(
        id=row.id,
        model=model.name,
        round=None if round_row is None else round_row.number,
        replay=None if replay is None else replay.id,
        step=row.step,
        server_lr=row.server_lr,
        relative_norm=row.relative_norm,
        distance=row.distance,
        base=compared_with(manifest),
        digest=manifest.digest(),
        manifest=manifest,
        created_at=row.created_at,
    )
