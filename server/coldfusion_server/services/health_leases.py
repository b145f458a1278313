"""Who works on what, as leases tell; and which parts of the Repository show a sign of life."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import (
    BaseRow,
    CandidateRow,
    ContributionRow,
    LeaseRow,
    ModelRow,
    ReplayRow,
    RoundRow,
)
from coldfusion_server.services.context import Context
from coldfusion_server.services.heartbeat import Part, heartbeat_file, silence
from coldfusion_server.services.probes import examine_process, patience
from coldfusion_server.services.replaying import UNDER_WAY as REPLAYED
from coldfusion_server.settings import Settings
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.rounds import RoundState
from coldfusion_shared.schemas.health import Holding, PartSeen, WorkKind

# So many leases that are held no more are told of.
LATEST = 10
# Of thousands of uploads the oldest would be stuck first.
LOOKED_AT = 500
# A worker looks for work far more often.
SLACK = timedelta(minutes=2)
KINDS: dict[str, WorkKind] = {
    "contribution": "screening",
    "round": "fusing",
    "replay": "replay",
    "evaluation": "evaluation",
    "difference": "difference",
    "distance": "distance",
    "garbage": "garbage",
}
# Whose work is what.
PARTS: dict[Literal["scheduler", "worker", "evaluator"], tuple[WorkKind, ...]] = {
    "scheduler": ("garbage",),
    "worker": ("screening", "fusing", "replay", "difference", "distance"),
    "evaluator": ("evaluation",),
}


def holdings(session: Session, now: datetime) -> list[Holding]:
    """Return the live leases, those that ran out beside work, and the latest others."""
    stuck = _stuck(session, now)
    first = or_(LeaseRow.expires_at > now, LeaseRow.key.in_(stuck))
    order = LeaseRow.expires_at.desc()
    rows = [*session.scalars(select(LeaseRow).where(first).order_by(order, LeaseRow.key))]
    others = select(LeaseRow).where(LeaseRow.expires_at <= now, LeaseRow.key.not_in(stuck))
    rows += session.scalars(others.order_by(order, LeaseRow.key).limit(LATEST))
    return [_holding(session, row, now, row.key in stuck) for row in rows]


def parts(ctx: Context, held: Sequence[Holding], now: datetime) -> list[PartSeen]:
    """Return what is known of scheduler, worker and evaluator, by signs of life and leases."""
    found = []
    for part, kinds in PARTS.items():
        times = [min(one.expires_at, now) for one in held if one.kind in kinds]
        seen, well, told = _sign(ctx, Part(part))
        worked_at = max(times, default=None)
        found.append(PartSeen(part=part, seen=seen, well=well, told=told, worked_at=worked_at))
    return found


def _sign(ctx: Context, part: Part) -> tuple[bool, bool | None, str]:
    """Return whether a part's signs of life are seen from here, whether it is well, and a word."""
    settings, beat = ctx.settings, ctx.beats.get(part)
    if beat is not None:
        return True, *_beating(settings, part, time.monotonic() - beat)
    file = heartbeat_file(settings, part)
    if file is None:
        told = "The setting run_dir is not set: whether it is there while it has nothing to do"
        return False, None, f"{told} cannot be seen from here."
    if silence(file) is None:
        told = "No sign of life on this machine: it runs elsewhere, or not at all, or has failed"
        return True, None, f"{told} since it started."
    found = examine_process(settings, part)
    return True, found.ok, f"{found.message[:1].upper()}{found.message[1:].rstrip('.')}."


def _beating(settings: Settings, part: Part, seconds: float) -> tuple[bool, str]:
    """Return whether a part of this very process is well, and a word."""
    told = f"{seconds:.0f} s ago" if seconds >= 1 else "just now"
    return seconds <= patience(settings, part), f"In this process; last sign of life {told}."


def _stuck(session: Session, now: datetime) -> list[str]:
    """Return the keys of leases that ran out a while ago, of what should be in work."""
    long_ago = now - SLACK
    rounds = select(RoundRow.id).where(
        RoundRow.state.in_((RoundState.CLOSED, RoundState.FUSING, RoundState.FAILED)),
        or_(RoundRow.retry_at.is_(None), RoundRow.retry_at <= long_ago),
    )
    uploads = select(ContributionRow.id).where(
        ContributionRow.state == ContributionState.COMPLETED,
        or_(ContributionRow.retry_at.is_(None), ContributionRow.retry_at <= long_ago),
    )
    again = select(ReplayRow.id).where(
        ReplayRow.state.in_(REPLAYED),
        or_(ReplayRow.retry_at.is_(None), ReplayRow.retry_at <= long_ago),
    )
    oldest = uploads.order_by(ContributionRow.number).limit(LOOKED_AT)
    keys = [f"round:{one}" for one in session.scalars(rounds)]
    keys += [f"contribution:{one}" for one in session.scalars(oldest)]
    keys += [f"replay:{one}" for one in session.scalars(again)]
    query = select(LeaseRow.key).where(LeaseRow.key.in_(keys), LeaseRow.expires_at <= long_ago)
    return list(session.scalars(query.limit(LATEST)))


def _holding(session: Session, row: LeaseRow, now: datetime, stuck: bool) -> Holding:
    kind, _, subject = row.key.partition(":")
    told, address = _subject(session, kind, subject)
    return Holding(
        kind=KINDS.get(kind, "other"),
        subject=told or row.key,
        address=address,
        holder=row.holder,
        fencing=row.fencing,
        expires_at=row.expires_at,
        live=row.expires_at > now,
        stuck=stuck,
    )


def _subject(session: Session, kind: str, subject: str) -> tuple[str, str | None]:
    """Return what a lease is about, in words, and its page; empty: nobody knows."""
    if kind == "garbage":
        return "garbage collection", None
    if kind == "contribution":
        return f"contribution {subject}", f"/contributions/{subject}"
    if kind == "evaluation":
        # Its protocol and its suite's digest come behind.
        return subject_of(session, subject.split(":", 1)[0])
    if kind == "round" and subject.isdigit():
        return round_of(session, session.get(RoundRow, int(subject)))
    if kind in ("difference", "distance") and subject.isdigit():
        return subject_of(session, subject)
    replay = session.get(ReplayRow, subject) if kind == "replay" else None
    if replay is None:
        return "", None
    model = session.get_one(ModelRow, replay.model_id).name
    return f"replay {replay.id} of {model}", f"/decide/models/{model}/replays"


def round_of(session: Session, row: RoundRow | None) -> tuple[str, str | None]:
    """Return a round in words, and its page; empty: it is not there."""
    if row is None:
        return "", None
    model = session.get_one(ModelRow, row.model_id).name
    return f"round {row.number} of {model}", f"/models/{model}/rounds/{row.number}"


def subject_of(session: Session, subject: str) -> tuple[str, str | None]:
    """Return what an evaluator measures, by its name among tries, in words, and its page."""
    candidate = session.get(CandidateRow, subject)
    if candidate is not None:
        model = session.get_one(ModelRow, candidate.model_id).name
        if candidate.round_id is None:
            told = f"a candidate of replay {candidate.replay_id} of {model}"
            return told, f"/decide/models/{model}/replays"
        told, address = round_of(session, session.get(RoundRow, candidate.round_id))
        return f"the candidate of {told}", address
    base = session.get(BaseRow, int(subject)) if subject.isdigit() and len(subject) < 16 else None
    if base is not None:
        model = session.get_one(ModelRow, base.model_id).name
        return f"v{base.number} of {model}", f"/models/{model}/bases/v{base.number}"
    query = select(ContributionRow.id).where(ContributionRow.id == subject)
    if session.scalar(query) is None:
        return "", None
    return f"contribution {subject}", f"/contributions/{subject}"
