"""Whether a token may do it: asked before hours of work, not after them."""

from __future__ import annotations

from collections.abc import Iterable

from coldfusion_shared.errors import Forbidden
from coldfusion_shared.schemas.tokens import Role, Whoami


def may_contribute(me: Whoami) -> bool:
    """Return whether the role of `me` allows contributing, be it to one model."""
    return me.role not in {Role.READER, Role.EVALUATOR}


def check_permission(me: Whoami, model: str) -> None:
    """Raise `Forbidden` unless `me` may contribute to `model`."""
    if not may_contribute(me):
        raise Forbidden(
            f"The token {me.name!r} has the role {me.role}, which may not contribute.",
            hint="Ask the server's operator for a token of the role contributor.",
        )
    _check_model(me, model)


def check_evaluator(me: Whoami, models: Iterable[str]) -> None:
    """Raise `Forbidden` unless `me` may post evaluations of all `models`."""
    if me.role in {Role.READER, Role.CONTRIBUTOR}:
        raise Forbidden(
            f"The token {me.name!r} has the role {me.role}, which may not post evaluations.",
            hint="Ask the server's operator for a token of the role evaluator. Without --post "
            "everybody may measure.",
        )
    for model in models:
        _check_model(me, model)


def _check_model(me: Whoami, model: str) -> None:
    if me.models is not None and model not in me.models:
        raise Forbidden(
            f"The token {me.name!r} is for {', '.join(me.models)}, and not for {model}.",
            hint="Ask the server's operator for a token for this model.",
        )
