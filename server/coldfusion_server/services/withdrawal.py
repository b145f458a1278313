"""
Taking contributions back: by who sent them, or by a maintainer.

What is not fused yet simply goes; a round that has begun to fuse it begins again without it. What
is fused stays part of its bases, which are immutable: only a replay makes others without it.
"""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import BaseRow, ContributionRow, RoundRow
from coldfusion_server.events import audit
from coldfusion_server.faults import fault_point
from coldfusion_server.services import contributions, ending, garbage, head_moves, rounds, uploads
from coldfusion_server.services.context import Context
from coldfusion_server.services.lookup import manifest_of
from coldfusion_server.services.tokens import Principal, may, require, signed_in
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.errors import Forbidden, InvalidRequest, StateConflict
from coldfusion_shared.rounds import UNDER_WAY, RoundState
from coldfusion_shared.schemas.contributions import Withdrawal, Withdrawn
from coldfusion_shared.schemas.tokens import Role

_S = ContributionState
# They go into no base in any case.
OVER = (_S.REJECTED, _S.EXPIRED)


def withdraw(
    ctx: Context, contribution: str, wanted: Withdrawal, principal: Principal | None
) -> Withdrawn:
    """
    Take a contribution back; once more, and nothing happens.

    With `wanted.erase` its stored files go at once, unless something else needs them; otherwise
    those of a fused one are kept as long as the model's policy says.

    Raises:
        ContributionNotFound: there is none of that id.
        Forbidden: it is another's, and `principal` is no maintainer.
        InvalidRequest: it is another's, and no reason is given.
        StateConflict: it was rejected, or its upload expired.
    """
    who = signed_in(principal)
    with ctx.database.write() as session:
        row = contributions.find(session, contribution, principal)
        require(who, Role.CONTRIBUTOR, row.model.name)
        reason = _reason(row, wanted, who)
        round_row = contributions.lock_round(session, row)
        if row.result_number is not None:
            # Under this lock replays are asked for and published: of two at once one comes first.
            rounds.newest(session, row.model)
        _check_not_over(row)
        before = _S(row.state)
        # First the files, then what takes the events' lock, as garbage collection does.
        erased = wanted.erase and _mark_erased(ctx, session, row)
        if before != _S.WITHDRAWN:
            _take_back(ctx, session, row, round_row, reason)
        if erased and row.result_number is not None:
            contributions.tell(session, ctx.now(), row, "erased")
        if erased or before != _S.WITHDRAWN:
            audit.note(
                session, ctx.now(), who, "contribution.withdrawn", model=row.model.name,
                subject=row.id, reason=wanted.reason, contributor=row.contributor.name,
                before=before, erased=erased,
            )  # fmt: skip
        contributions.load_files(row)
        done = _told(session, row, changed=before != _S.WITHDRAWN, erased=wanted.erase)
        fault_point(ctx.settings, "contribution.withdrawing")
    fault_point(ctx.settings, "contribution.withdrawn")
    _clear_away(ctx, row, before, erase=wanted.erase)
    return done


def _reason(row: ContributionRow, wanted: Withdrawal, who: Principal) -> str:
    """Return why it goes, for everybody to read; raises unless `who` may take it back."""
    if row.contributor_id == who.contributor_id:
        return f"Taken back: {wanted.reason}" if wanted.reason else "Taken back by its contributor."
    if not may(who, Role.MAINTAINER, row.model.name):
        raise Forbidden(
            "This contribution is somebody else's.",
            hint="Its contributor can take it back, or a maintainer can remove it.",
        )
    if not (wanted.reason or "").strip():
        raise InvalidRequest(
            "This contribution is somebody else's: who removes it has to say why.",
            hint="Give a reason, with --reason TEXT; its contributor reads it.",
        )
    return f"Removed by {who.name}: {wanted.reason}"


def _check_not_over(row: ContributionRow) -> None:
    if row.state in OVER:
        raise StateConflict(
            f"Contribution {row.id} is {row.state} and goes into no base: there is nothing to take "
            "back.",
            hint="Its bytes are removed, or about to be.",
        )


def _take_back(
    ctx: Context, session: Session, row: ContributionRow, round_row: RoundRow, reason: str
) -> None:
    in_hand = row.state == _S.ACCEPTED and row.chosen and round_row.state in UNDER_WAY
    contributions.move(
        session,
        ctx.now(),
        row,
        _S.WITHDRAWN,
        reason=reason,
        hint=None,
        decided_at=row.decided_at or ctx.now(),
        # Who changes his mind may send it again, unless a base contains it.
        idempotency_key=row.idempotency_key if row.result_number else contributions.freed_key(row),
    )
    if in_hand:
        _fuse_without(ctx, session, row, round_row)


def _fuse_without(
    ctx: Context, session: Session, row: ContributionRow, round_row: RoundRow
) -> None:
    """Let the round begin again; where too little is left, its worker cancels it then."""
    ending.give_up_candidates(session, round_row)
    if round_row.state == RoundState.CLOSED:
        return
    rounds.advance(
        session,
        ctx.now(),
        round_row,
        RoundState.CLOSED,
        reason=f"Contribution {row.id} was withdrawn; the others are fused without it.",
        gate=None,
        evaluating_at=None,
        retry_at=None,
        fused_bytes=0,
    )


def _mark_erased(ctx: Context, session: Session, row: ContributionRow) -> bool:
    """
    Write down that the bytes go, before they do; return whether that is new.

    Who is killed in between leaves objects that nothing needs, and garbage collection finds them.
    """
    kept = [file for file in row.files if not file.here and file.erased_at is None]
    for file in kept:
        file.erased_at = ctx.now()
    session.flush()
    return bool(kept)


def _clear_away(
    ctx: Context, row: ContributionRow, before: ContributionState, *, erase: bool
) -> None:
    """Remove what nobody waits for."""
    with garbage.later_if_away(row):
        if before == _S.DECLARED:
            for key in uploads.upload_keys(row):
                ctx.store.discard_upload(key)
        if erase:
            garbage.remove_rejected(ctx, row)


def _told(session: Session, row: ContributionRow, *, changed: bool, erased: bool) -> Withdrawn:
    contained = _contained_in(session, row)
    parts = [_of_bases(row, contained, changed=changed)]
    if erased or any(file.erased_at is not None for file in row.files):
        parts.append("Its stored files are given up.")
    elif contained:
        parts.append("Its stored files are kept, as those of other fused ones are.")
    return Withdrawn(
        contribution=contributions.to_schema(row),
        changed=changed,
        contained_in=[f"v{number}" for number in contained],
        sentence=" ".join(parts),
    )


def _of_bases(row: ContributionRow, contained: list[int], *, changed: bool) -> str:
    begun = f"{row.id} is withdrawn" if changed else f"{row.id} was withdrawn before"
    if row.result_number is None:
        return f"{begun}; no base contains it."
    named, others = f"v{contained[0]} contains", len(contained) - 1
    if others:
        more = "one more base" if others == 1 else f"{others} more bases"
        named = f"v{contained[0]}, and {more} that came later, contain"
    said = (
        f"{begun}. {named} it: published bases never change, whoever has pulled one keeps it, and "
        "what others have finetuned from one has learnt from it, too."
    )
    head = row.model.current
    if head not in contained:
        return f"{said} The head, v{head}, does not contain it."
    return (
        f"{said} A maintainer can fuse the history again without it: coldfusion-server model "
        f"replay {row.model.name} --without {row.id}."
    )


def _contained_in(session: Session, row: ContributionRow) -> list[int]:
    """Return the bases that it went into, and all that come from one, by number."""
    found, parents = _went_into(session, row), head_moves.parents(session, row.model)
    # A base's parent has a lower number.
    for number in sorted(parents):
        if parents[number] in found:
            found.add(number)
    return sorted(found)


def _went_into(session: Session, row: ContributionRow) -> set[int]:
    """Return the base of its round, and those of replays in that one's place which have it."""
    if row.result_number is None:
        return set()
    places = head_moves.places(session, row.model)
    query = select(BaseRow).where(
        BaseRow.model_id == row.model_id, BaseRow.replays_number.is_not(None)
    )
    again = [base for base in session.scalars(query) if places[base.number] == row.result_number]
    return {row.result_number} | {
        base.number
        for base in again
        if any(item.id == row.id for item in manifest_of(base).contributions)
    }
