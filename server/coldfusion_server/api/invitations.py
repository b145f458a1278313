"""Invitations, and joining by one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header

from coldfusion_server.api.dependencies import Address, Ctx, Guessing, Who, WindowQuery
from coldfusion_server.services import invitations
from coldfusion_shared.schemas.common import Page
from coldfusion_shared.schemas.invitations import (
    Invitation,
    InvitationRequest,
    Invited,
    Join,
    Joined,
)

router = APIRouter(prefix="/v1", tags=["invitations"])


@router.get("/invitations")
def list_invitations(ctx: Ctx, who: Who, window: WindowQuery) -> Page[Invitation]:
    """List invitations, newest first; for maintainers."""
    return invitations.list_invitations(ctx, who, window)


@router.post("/invitations", status_code=201)
def invite(ctx: Ctx, who: Who, wanted: InvitationRequest) -> Invited:
    """Make an invitation; its code is shown this once. For maintainers."""
    return invitations.invite(ctx, wanted, who)


@router.post("/invitations/{invitation}/revoke")
def revoke(ctx: Ctx, who: Who, invitation: str) -> Invitation:
    """Let a code be good no more; for maintainers. Harmless to repeat."""
    return invitations.revoke_invitation(ctx, invitation, who)


@router.post("/join")
def join(
    ctx: Ctx,
    guesses: Guessing,
    address: Address,
    wanted: Join,
    idempotency_key: Annotated[
        str,
        Header(min_length=16, max_length=128, examples=["b1946ac92492d2347c6235b4d2611184"]),
    ],
) -> Joined:
    """
    Use an invitation: its code becomes a token, shown this once. Needs none.

    The same code with the same key again gives the same token.
    """
    return guesses.join(ctx, address, wanted, idempotency_key)
