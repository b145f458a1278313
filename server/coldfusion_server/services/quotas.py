"""
How much one contributor may send: looked at before the first byte.

What is stored and on the way is limited at any time; what is declared by the round and by the day,
so that nobody fills a round, nor keeps screening busy, by sending what is rejected.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import ContributionRow, ContributorRow, RoundRow
from coldfusion_server.services import usage
from coldfusion_server.services.context import Context
from coldfusion_server.services.tokens import Principal
from coldfusion_server.settings import Settings
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.errors import QuotaExceeded

ASK = "Ask the operator of this Repository for more."
# They take nobody's place in a round.
_GONE = (ContributionState.REJECTED, ContributionState.WITHDRAWN, ContributionState.EXPIRED)


def check_quota(
    ctx: Context, session: Session, who: Principal, round_row: RoundRow, size: int
) -> None:
    """
    Check that `who` may declare one more upload; of two declarations at once one waits here.

    Args:
        ctx: the service's surroundings.
        session: the transaction that declares it.
        who: whose upload it is.
        round_row: the round that it is for.
        size: its bytes, what is here already apart.

    Raises:
        QuotaExceeded: it would be too much; nothing was declared.
    """
    settings = ctx.settings
    if not _limits_anything(settings):
        return
    lock(session, who)
    _check_stored(settings, session, who, size)
    _check_round_and_day(ctx, session, who, round_row, size)


def check_staging(
    ctx: Context, session: Session, who: Principal, round_row: RoundRow, size: int
) -> None:
    """
    Check that `who`, whom the caller has locked, may send a file of `size` bytes ahead.

    What could not be declared afterwards is refused now. A file that is too small to be weights
    takes no place among the unfinished uploads.

    Raises:
        QuotaExceeded: it would be too much.
    """
    counts = size > usage.COUNTED_BYTES
    _check_stored(ctx.settings, session, who, size, counts=counts)
    _check_round_and_day(ctx, session, who, round_row, size)


def check_bytes(ctx: Context, session: Session, who: Principal, size: int) -> None:
    """Raise `QuotaExceeded` if `size` bytes are too many, whatever else is on its way."""
    most = ctx.settings.quota_bytes
    if most is None:
        return
    kept = usage.of_contributor(session, who.contributor_id, who.name).kept_bytes
    if kept + size > most:
        raise QuotaExceeded(
            f"This upload has {size} bytes, and {kept} of the {most} that this Repository allows "
            "you are kept.",
            hint=f"Contributions count as long as they are kept, rejected ones not at all. {ASK}",
        )


def lock(session: Session, who: Principal) -> None:
    """Let all others who send something for the same contributor wait for this transaction."""
    # Behind the round's lock, as of all who take both. Not in the way of rows that name the
    # contributor: those lock its key alone.
    session.execute(
        select(ContributorRow.id)
        .where(ContributorRow.id == who.contributor_id)
        .with_for_update(key_share=True)
    )


def _check_round_and_day(
    ctx: Context, session: Session, who: Principal, round_row: RoundRow, size: int
) -> None:
    settings = ctx.settings
    _check_round(settings, session, who, round_row)
    if settings.quota_day is not None or settings.quota_day_bytes is not None:
        declared = usage.declared_since(session, who.contributor_id, ctx.now() - usage.DAY)
        check_day(settings, declared, size)


def check_day(settings: Settings, declared: Sequence[tuple[datetime, int]], size: int) -> None:
    """
    Check that an upload of `size` bytes may be declared today.

    Args:
        settings: with the quotas.
        declared: when each of the last 24 hours was declared, and its bytes, in order.
        size: in bytes.

    Raises:
        QuotaExceeded: it would be too much; the hint says when it will not be.
    """
    most, most_bytes = settings.quota_day, settings.quota_day_bytes
    if most is not None and len(declared) >= most:
        raise QuotaExceeded(
            f"You have declared {len(declared)} contributions in the last 24 hours; this "
            f"Repository allows {most}.",
            hint=_when(declared[len(declared) - most][0]),
        )
    used = sum(bytes_ for _, bytes_ in declared)
    if most_bytes is not None and used + size > most_bytes:
        raise QuotaExceeded(
            f"This upload has {size} bytes, and you have declared {used} of {most_bytes} in the "
            "last 24 hours.",
            hint=ASK if size > most_bytes else _when(_freed(declared, used + size - most_bytes)),
        )


def _limits_anything(settings: Settings) -> bool:
    names = ("quota_uploads", "quota_bytes", "quota_round", "quota_day", "quota_day_bytes")
    return any(getattr(settings, name) is not None for name in names)


def _check_stored(
    settings: Settings, session: Session, who: Principal, size: int, *, counts: bool = True
) -> None:
    if settings.quota_uploads is None and settings.quota_bytes is None:
        return
    mine = usage.of_contributor(session, who.contributor_id, who.name)
    if counts and settings.quota_uploads is not None and mine.uploads >= settings.quota_uploads:
        raise QuotaExceeded(
            f"You have {mine.uploads} unfinished uploads; this Repository allows "
            f"{settings.quota_uploads} at a time.",
            hint="Finish one of them first, with the command that began it, or wait: an upload is "
            f"given up {settings.upload_hours:g} hours after it was last asked for.",
        )
    used = mine.kept_bytes + mine.unfinished_bytes
    if settings.quota_bytes is not None and used + size > settings.quota_bytes:
        raise QuotaExceeded(
            f"This upload has {size} bytes, and you have {used} of {settings.quota_bytes} in use: "
            f"{mine.kept_bytes} kept, {mine.unfinished_bytes} in unfinished uploads.",
            hint="Unfinished uploads count until they are given up, contributions as long as they "
            f"are kept, rejected ones not at all. {ASK}",
        )


def _check_round(settings: Settings, session: Session, who: Principal, round_row: RoundRow) -> None:
    most = settings.quota_round
    if most is None:
        return
    mine = session.scalar(
        select(func.count())
        .select_from(ContributionRow)
        .where(
            ContributionRow.contributor_id == who.contributor_id,
            ContributionRow.round_id == round_row.id,
            ContributionRow.state.not_in(_GONE),
        )
    )
    if mine is not None and mine >= most:
        raise QuotaExceeded(
            f"You have {mine} contributions in round {round_row.number}; this Repository allows "
            f"{most} to one round.",
            hint="Wait for the next round, or take one back with: coldfusion-client withdraw ID",
        )


def _freed(declared: Sequence[tuple[datetime, int]], needed: int) -> datetime:
    """Return when the upload was declared after whose day `needed` bytes are free again."""
    for at, size in declared:
        needed -= size
        if needed <= 0:
            return at
    return declared[-1][0]


def _when(declared_at: datetime) -> str:
    """Say when what was declared at that time counts no more."""
    return f"The next one is possible at {declared_at + usage.DAY:%Y-%m-%d %H:%M} UTC. {ASK}"
