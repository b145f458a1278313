"""How much one contributor may have stored and on the way: looked at before the first byte."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import ContributorRow
from coldfusion_server.services import usage
from coldfusion_server.services.context import Context
from coldfusion_server.services.tokens import Principal
from coldfusion_shared.errors import QuotaExceeded


def check_quota(ctx: Context, session: Session, who: Principal, size: int) -> None:
    """
    Check that `who` may declare one more upload; of two declarations at once one waits here.

    Args:
        ctx: the service's surroundings.
        session: the transaction that declares it.
        who: whose upload it is.
        size: its bytes, what is here already apart.

    Raises:
        QuotaExceeded: it would be too much; nothing was declared.
    """
    settings = ctx.settings
    if settings.quota_uploads is None and settings.quota_bytes is None:
        return
    # Behind the round's lock, as of all who take both. Not in the way of rows that name the
    # contributor: those lock its key alone.
    session.execute(
        select(ContributorRow.id)
        .where(ContributorRow.id == who.contributor_id)
        .with_for_update(key_share=True)
    )
    mine = usage.of_contributor(session, who)
    if settings.quota_uploads is not None and mine.uploads >= settings.quota_uploads:
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
            "are kept, rejected ones not at all. Ask the operator of this Repository for more.",
        )
