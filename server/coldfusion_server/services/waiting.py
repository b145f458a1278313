"""
What waits for a maintainer: decisions that nobody else takes, and work that goes on by itself no
more.

Whoever may read a model knows how much waits, as far as its pages tell the same; what it is in
particular, its maintainers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import get_args

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import (
    BaseRow,
    CandidateRow,
    ContributionRow,
    EvaluationTryRow,
    EventRow,
    LeaseRow,
    ModelRow,
    ReplayRow,
    RoundRow,
    WebhookRow,
)
from coldfusion_server.services import evaluation_tries, rounds, usefulness
from coldfusion_server.services.context import Context
from coldfusion_server.services.lookup import find_model, policy_of, readable
from coldfusion_server.services.tokens import Principal, may
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.errors import UnknownName
from coldfusion_shared.replays import OPEN, ReplayState
from coldfusion_shared.rounds import UNDER_WAY, RoundState
from coldfusion_shared.rounds.closing import choose, deadline, is_due
from coldfusion_shared.schemas.gates import GateVerdict
from coldfusion_shared.schemas.models import Policy
from coldfusion_shared.schemas.tokens import Role
from coldfusion_shared.schemas.waiting import ModelWaiting, Waiting, WaitingItem, WaitingKind

# So many items of one kind are told; of the others that there are.
MOST = 20
# A worker takes up what is closed within seconds.
IDLE = timedelta(minutes=10)
# So far back it is looked when an evaluation was given up.
REMEMBERED = 200
KINDS: tuple[WaitingKind, ...] = get_args(WaitingKind)
# What only maintainers may know of.
_PRIVATE: tuple[WaitingKind, ...] = ("replay", "replay_failed", "webhook")
_NOUNS: dict[WaitingKind, str] = {
    "quarantine": "contribution",
    "set_aside": "round",
    "gate": "round",
    "failed": "round",
    "idle": "round",
    "lacking": "round",
    "by_hand": "round",
    "replay": "replay",
    "replay_failed": "replay",
    "evaluation": "evaluation",
    "webhook": "webhook",
}


@dataclass(frozen=True)
class _Sight:
    """
    What one caller asks about.

    Attributes:
        session: the transaction.
        now: the time.
        models: by id, those that the caller may read and asks about.
        maintained: the ids of those among them that the caller maintains.
    """

    session: Session
    now: datetime
    models: dict[int, ModelRow]
    maintained: frozenset[int]

    def item(
        self, kind: WaitingKind, model: int, subject: str, page: str, sentence: str, since: datetime
    ) -> WaitingItem:
        """Return an item; `page` is below the model's address, or an address of its own."""
        name = self.models[model].name
        address = page if page.startswith("/") else f"/models/{name}/{page}"
        return WaitingItem(
            kind=kind, model=name, subject=subject, address=address, sentence=sentence, since=since
        )

    def replays(self, model: int) -> str:
        """Return the page on which a model's replays are decided on."""
        return f"/decide/models/{self.models[model].name}/replays"


def waiting(ctx: Context, principal: Principal | None, model: str | None = None) -> Waiting:
    """
    Return what waits for maintainers of the models that the caller may read, or of one.

    Raises:
        ModelNotFound: there is no such model, or the caller may not know of it.
    """
    with ctx.database.read() as session:
        sight = _sight(ctx, session, principal, model)
        counts = _quarantined(sight)
        items = _in_quarantine(sight)
        for found in _others(sight):
            if found.kind in _PRIVATE and not _maintains(sight, found):
                continue
            counts[found.model, found.kind] += 1
            if _maintains(sight, found):
                items.append(found)
    return Waiting(models=_told(counts), items=_oldest(items))


def sentence_of(counts: dict[WaitingKind, int]) -> str:
    """Return how much waits, in words."""
    nouns: Counter[str] = Counter()
    for kind in KINDS:
        nouns[_NOUNS[kind]] += counts.get(kind, 0)
    parts = [f"{number:,} {noun}{'s'[: number != 1]}" for noun, number in nouns.items() if number]
    listed = " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else parts[0]
    return f"{listed} {'waits' if nouns.total() == 1 else 'wait'} for a maintainer"


def _sight(
    ctx: Context, session: Session, principal: Principal | None, model: str | None
) -> _Sight:
    if model is None:
        found = list(session.scalars(select(ModelRow).where(readable(principal))))
    else:
        found = [find_model(session, model, principal)]
    maintained = frozenset(
        row.id
        for row in found
        if principal is not None and may(principal, Role.MAINTAINER, row.name)
    )
    return _Sight(session, ctx.now(), {row.id: row for row in found}, maintained)


def _maintains(sight: _Sight, item: WaitingItem) -> bool:
    return any(sight.models[number].name == item.model for number in sight.maintained)


def _told(counts: Counter[tuple[str, WaitingKind]]) -> list[ModelWaiting]:
    found: dict[str, dict[WaitingKind, int]] = {}
    for (model, kind), number in counts.items():
        found.setdefault(model, {})[kind] = number
    return [
        ModelWaiting(model=model, counts=kinds, sentence=sentence_of(kinds))
        for model, kinds in sorted(found.items())
    ]


def _oldest(items: Sequence[WaitingItem]) -> list[WaitingItem]:
    """Return the items, the oldest first, of each kind `MOST` at most."""
    left = Counter(dict.fromkeys(KINDS, MOST))
    told = []
    for item in sorted(items, key=lambda one: (one.since, one.model)):
        if left[item.kind]:
            left[item.kind] -= 1
            told.append(item)
    return told


def _others(sight: _Sight) -> Iterator[WaitingItem]:
    """Yield all but what is in quarantine, of which there may be thousands."""
    looks: tuple[Callable[[_Sight], Iterator[WaitingItem]], ...] = (
        _set_aside,
        _under_way,
        _open,
        _replays,
        _given_up,
        _webhooks,
    )
    for look in looks:
        yield from look(sight)


def _quarantined(sight: _Sight) -> Counter[tuple[str, WaitingKind]]:
    query = (
        select(ContributionRow.model_id, func.count())
        .where(
            ContributionRow.state == ContributionState.QUARANTINED,
            ContributionRow.model_id.in_(sight.models),
        )
        .group_by(ContributionRow.model_id)
    )
    return Counter(
        {
            (sight.models[model].name, "quarantine"): number
            for model, number in sight.session.execute(query)
        }
    )


def _in_quarantine(sight: _Sight) -> list[WaitingItem]:
    query = (
        select(ContributionRow)
        .where(
            ContributionRow.state == ContributionState.QUARANTINED,
            ContributionRow.model_id.in_(sight.maintained),
        )
        .order_by(ContributionRow.number)
        .limit(MOST)
    )
    return [
        sight.item(
            "quarantine",
            row.model_id,
            row.id,
            f"/contributions/{row.id}",
            f"The contribution of {row.contributor.name} to round {row.round.number} is in "
            f"quarantine: {row.reason or 'no reason was kept'}",
            row.completed_at or row.declared_at,
        )
        for row in sight.session.scalars(query)
    ]


def _set_aside(sight: _Sight) -> Iterator[WaitingItem]:
    query = (
        select(RoundRow, func.count())
        .join(ContributionRow, ContributionRow.round_id == RoundRow.id)
        .where(
            ContributionRow.state == ContributionState.SET_ASIDE,
            RoundRow.model_id.in_(sight.models),
        )
        .group_by(RoundRow.id)
        .order_by(RoundRow.id)
    )
    for row, number in sight.session.execute(query):
        told = "1 contribution is" if number == 1 else f"{number:,} contributions are"
        yield _of_round(
            sight,
            "set_aside",
            row,
            f"The gate rejected round {row.number}, and {told} set aside: have them fused again, "
            f"or leave them. {row.reason or ''}".rstrip(),
            row.finished_at,
        )


def _under_way(sight: _Sight) -> Iterator[WaitingItem]:
    query = select(RoundRow).where(
        RoundRow.state.in_(UNDER_WAY), RoundRow.model_id.in_(sight.models)
    )
    for row in sight.session.scalars(query.order_by(RoundRow.id)):
        if row.state == RoundState.FAILED or (row.attempts and row.reason):
            yield _failed(sight, row)
        elif (until := _overdue(sight, row)) is not None:
            told = "was not measured in time"
            if row.gate is not None:
                told += f": {GateVerdict.model_validate(row.gate).reason}"
            sentence = f"The candidate of round {row.number} {told}"
            yield _of_round(sight, "gate", row, sentence, until)
        elif _is_idle(sight, row):
            sentence = (
                f"Round {row.number} is {RoundState(row.state).value}, and nothing works on it. "
                "See that a worker runs."
            )
            yield _of_round(sight, "idle", row, sentence, row.evaluating_at or row.closed_at)


def _failed(sight: _Sight, row: RoundRow) -> WaitingItem:
    what = "fused" if row.evaluating_at is None else "published"
    again = "" if row.retry_at is None else f" at {row.retry_at:%Y-%m-%d %H:%M} UTC"
    sentence = (
        f"Round {row.number} could not be {what} and is tried again by itself{again}: "
        f"{row.reason or 'no reason was kept'}"
    )
    return _of_round(sight, "failed", row, sentence, row.closed_at)


def _overdue(sight: _Sight, row: RoundRow) -> datetime | None:
    """Return since when a candidate waits for evaluations longer than its gate allows."""
    if row.state != RoundState.EVALUATING or row.evaluating_at is None:
        return None
    gate = rounds.policy_in_force(sight.models[row.model_id], row).gate
    until = row.evaluating_at + timedelta(seconds=gate.timeout_seconds)
    return until if gate.kind == "suite" and until <= sight.now else None


def _is_idle(sight: _Sight, row: RoundRow) -> bool:
    """Return whether a worker should have taken the round up long ago."""
    if row.retry_at is not None and row.retry_at > sight.now:
        return False
    lease = sight.session.get(LeaseRow, f"round:{row.id}")
    held_until = None if lease is None else lease.expires_at
    moved = [row.closed_at, row.evaluating_at, row.retry_at, held_until]
    return all(at is None or at + IDLE <= sight.now for at in moved)


def _open(sight: _Sight) -> Iterator[WaitingItem]:
    query = select(RoundRow).where(
        RoundRow.state == RoundState.OPEN, RoundRow.model_id.in_(sight.models)
    )
    for row in sight.session.scalars(query.order_by(RoundRow.id)):
        policy = policy_of(sight.models[row.model_id])
        due = _due(policy, row, sight.now)
        if due is not None:
            yield from _lacking(sight, policy, row, due)
        elif policy.by_hand and row.close_at is None:
            yield from _by_hand(sight, policy, row)


def _due(policy: Policy, row: RoundRow, now: datetime) -> datetime | None:
    """Return since when the round was to be closed; null: it is not yet."""
    latest = None if policy.by_hand else deadline(policy, row.opened_at)
    return min((at for at in (latest, row.close_at) if at is not None and at <= now), default=None)


def _lacking(sight: _Sight, policy: Policy, row: RoundRow, due: datetime) -> Iterator[WaitingItem]:
    waits = rounds.waiting(sight.session, row)
    closes = is_due(policy, waits, row.opened_at, row.close_at, sight.now)
    if closes and row.reason is None:
        return  # The scheduler's next look closes it.
    shown = rounds.to_schema(sight.session, sight.models[row.model_id], row, sight.now)
    sentence = (
        f"Round {row.number} was to close at {due:%Y-%m-%d %H:%M} UTC. "
        f"{row.reason or shown.needs or ''}"
    )
    yield _of_round(sight, "lacking", row, sentence.rstrip(), due)


def _by_hand(sight: _Sight, policy: Policy, row: RoundRow) -> Iterator[WaitingItem]:
    waits = rounds.waiting(sight.session, row)
    chosen = set(choose(policy, waits).chosen)
    try:
        enough = rounds.can_fuse(policy, [one.contributor for one in waits if one.id in chosen])
    except UnknownName:
        return
    if not enough:
        return
    since = sight.session.scalar(
        select(func.min(ContributionRow.decided_at)).where(
            ContributionRow.round_id == row.id,
            ContributionRow.state == ContributionState.ACCEPTED,
        )
    )
    told = "1 accepted contribution" if len(chosen) == 1 else f"{len(chosen):,} accepted ones"
    sentence = f"Round {row.number} has {told} and closes only when a maintainer says so"
    yield _of_round(sight, "by_hand", row, sentence, since)


def _of_round(
    sight: _Sight, kind: WaitingKind, row: RoundRow, sentence: str, since: datetime | None
) -> WaitingItem:
    number = str(row.number)
    return sight.item(
        kind, row.model_id, number, f"rounds/{number}", sentence, since or row.opened_at
    )


def _replays(sight: _Sight) -> Iterator[WaitingItem]:
    query = select(ReplayRow).where(
        ReplayRow.state.in_((ReplayState.READY, ReplayState.FAILED)),
        ReplayRow.model_id.in_(sight.maintained),
    )
    for row in sight.session.scalars(query.order_by(ReplayRow.created_at, ReplayRow.id)):
        if row.state == ReplayState.FAILED:
            sentence = (
                f"Replay {row.id} failed and is tried again by itself: "
                f"{row.failure or 'no reason was kept'}"
            )
            page = sight.replays(row.model_id)
            yield sight.item("replay_failed", row.model_id, row.id, page, sentence, row.created_at)
            continue
        made = select(func.count(), func.max(CandidateRow.created_at)).where(
            CandidateRow.replay_id == row.id, ~CandidateRow.given_up
        )
        number, since = sight.session.execute(made).one()
        told = "1 base was" if number == 1 else f"{number} bases were"
        sentence = (
            f"Replay {row.id} is ready: {told} fused again, in place of those up to "
            f"v{row.head_number}. Publish it, or give it up."
        )
        page = sight.replays(row.model_id)
        yield sight.item("replay", row.model_id, row.id, page, sentence, since or row.created_at)


def _given_up(sight: _Sight) -> Iterator[WaitingItem]:
    """Yield what the Repository's own evaluator tries no more and somebody waits for still."""
    query = select(EvaluationTryRow).where(EvaluationTryRow.attempts > evaluation_tries.MAX_TRIES)
    rows = sight.session.scalars(query.order_by(EvaluationTryRow.subject)).all()
    found = [(row, _subject(sight, row)) for row in rows]
    waited_for = [(row, subject) for row, subject in found if subject is not None]
    # For many events this takes a while; and of most nobody waits any more.
    times = _times(sight) if waited_for else {}
    for row, (model, subject, page, told, created_at) in waited_for:
        sentence = (
            f"The Repository's own evaluator could not measure {told}, {row.protocol}, and tries "
            f"no more: {row.reason or evaluation_tries.DIED}"
        )
        name = sight.models[model].name
        since = times.get((name, subject, row.protocol), created_at)
        yield sight.item("evaluation", model, subject, page, sentence, since)


def _times(sight: _Sight) -> dict[tuple[str | None, str, str], datetime]:
    """Return when evaluations were given up, by model, what was to be measured, and protocol."""
    names = [row.name for row in sight.models.values()]
    query = select(EventRow).where(EventRow.type == "evaluation.failed", EventRow.model.in_(names))
    found: dict[tuple[str | None, str, str], datetime] = {}
    for event in sight.session.scalars(query.order_by(EventRow.id.desc()).limit(REMEMBERED)):
        for name in ("version", "candidate", "contribution"):
            if name in event.data:
                key = (event.model, str(event.data[name]), str(event.data["protocol"]))
                found.setdefault(key, event.at)
    return found


def _subject(sight: _Sight, row: EvaluationTryRow) -> tuple[int, str, str, str, datetime] | None:
    """Return model, name, page, words and age of what was to be measured; null: nobody waits."""
    session = sight.session
    if row.subject.isdigit() and len(row.subject) < 16:
        base = session.get(BaseRow, int(row.subject))
        if base is None or base.model_id not in sight.models:
            return None
        version = f"v{base.number}"
        current = sight.models[base.model_id].current == base.number
        page = f"bases/{version}"
        return (base.model_id, version, page, version, base.created_at) if current else None
    candidate = session.get(CandidateRow, row.subject)
    if candidate is not None:
        return _candidate(sight, candidate)
    query = select(ContributionRow).where(ContributionRow.id == row.subject)
    item = session.scalar(query)
    if item is None or item.model_id not in sight.models or usefulness.is_gone(item):
        return None
    told = f"a contribution of {item.contributor.name} alone"
    return item.model_id, item.id, f"/contributions/{item.id}", told, item.declared_at


def _candidate(sight: _Sight, row: CandidateRow) -> tuple[int, str, str, str, datetime] | None:
    if row.model_id not in sight.models or row.given_up or row.base_id is not None:
        return None
    if row.round_id is not None:
        round_row = sight.session.get_one(RoundRow, row.round_id)
        if round_row.state != RoundState.EVALUATING:
            return None
        number = round_row.number
        told = f"the candidate of round {number}"
        return row.model_id, row.id, f"rounds/{number}", told, row.created_at
    replay = sight.session.get_one(ReplayRow, row.replay_id)
    # Of replays nobody knows but those who may decide on them.
    if replay.state not in OPEN or row.model_id not in sight.maintained:
        return None
    told = f"base {row.step} of replay {replay.id}"
    return row.model_id, row.id, sight.replays(row.model_id), told, row.created_at


def _how_often(failures: int) -> str:
    return "the last time" if failures == 1 else f"{failures:,} times in a row"


def _webhooks(sight: _Sight) -> Iterator[WaitingItem]:
    """Yield the webhooks that failed for days."""
    query = select(WebhookRow).where(
        WebhookRow.paused_at.is_not(None), WebhookRow.model_id.in_(sight.maintained)
    )
    for row in sight.session.scalars(query.order_by(WebhookRow.paused_at, WebhookRow.id)):
        assert row.model_id is not None and row.paused_at is not None, "as asked for"
        sentence = (
            f"The webhook to {row.origin} failed {_how_often(row.failures)} and is sent "
            "nothing any more. Mend what it posts to, then let it go on, or delete it."
        )
        page = f"/webhooks/{row.id}"
        yield sight.item("webhook", row.model_id, row.id, page, sentence, row.paused_at)
