"""The audit log, for admins."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from coldfusion_server.api.dependencies import Ctx, Who, WindowQuery
from coldfusion_server.services import auditing
from coldfusion_server.services.lookup import searchable
from coldfusion_shared.schemas.audit import AuditEntry
from coldfusion_shared.schemas.common import Page

router = APIRouter(prefix="/v1/audit", tags=["audit"])


@router.get("")
def list_audit(
    ctx: Ctx,
    who: Who,
    window: WindowQuery,
    model: Annotated[str | None, Query(max_length=96, description="owner/name; null: all")] = None,
    action: Annotated[str | None, Query(max_length=60, examples=["model.policy"])] = None,
) -> Page[AuditEntry]:
    """List who decided what and why, newest first; for admins."""
    model, action = (None if text is None else searchable(text) for text in (model, action))
    return auditing.list_entries(ctx, who, window, model=model, action=action)
