"""Who the commands act as: whoever can read the data folder is its operator."""

from __future__ import annotations

from coldfusion_server.services.tokens import Principal
from coldfusion_shared.schemas.tokens import Role

OPERATOR = Principal(
    contributor_id=0, name="operator", role=Role.ADMIN, token_id="", expires_at=None
)
