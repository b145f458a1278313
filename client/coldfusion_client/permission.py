"""Whether a token may contribute: asked before hours of training, not after them."""

from __future__ import annotations

from coldfusion_shared.errors import Forbidden
from coldfusion_shared.schemas.tokens import Role, Whoami


def may_contribute(me: Whoami) -> bool:
    """Return whether the role of `me` allows contributing."""
    return me.role not in {Role.READER, Role.EVALUATOR}


def check_permission(me: Whoami) -> None:
    """Raise `Forbidden` unless `me` may contribute."""
    if not may_contribute(me):
        raise Forbidden(
            f"The token {me.name!r} has the role {me.role}, which may not contribute.",
            hint="Ask the server's operator for a token of the role contributor.",
        )
