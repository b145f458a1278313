"""Whether a token may do it: asked before hours of work, not after them."""

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


def check_evaluator(me: Whoami) -> None:
    """Raise `Forbidden` unless `me` may post evaluations."""
    if me.role in {Role.READER, Role.CONTRIBUTOR}:
        raise Forbidden(
            f"The token {me.name!r} has the role {me.role}, which may not post evaluations.",
            hint="Ask the server's operator for a token of the role evaluator. Without --post "
            "everybody may measure.",
        )
