"""Who a token belongs to, as `hf auth whoami` asks."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from coldfusion_server.hub.facts import date_of
from coldfusion_server.hub.routing import Call, get
from coldfusion_server.services.tokens import includes, signed_in
from coldfusion_shared.schemas.tokens import Role


def whoami(call: Call) -> Response:
    """Tell the token's holder and what it may do."""
    who = signed_in(call.who)
    role = "write" if includes(who.role, Role.CONTRIBUTOR) else "read"
    return JSONResponse(
        {
            "type": "user",
            "id": str(who.contributor_id),
            "name": who.name,
            "fullname": who.name,
            "isPro": False,
            "orgs": [],
            "auth": {
                "type": "access_token",
                "expiresAt": None if who.expires_at is None else date_of(who.expires_at),
                "accessToken": {"displayName": who.token_id, "role": role},
            },
        }
    )


ROUTES = (get("/api/whoami-v2", whoami),)
