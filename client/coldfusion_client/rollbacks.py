"""Rollbacks, as a client meets them: the newest base is an older one than what it has."""

from __future__ import annotations

from coldfusion_client.api import Api
from coldfusion_shared.errors import NotFound
from coldfusion_shared.schemas.models import HeadMove
from coldfusion_shared.signing.heads import Head


def find_rollback(api: Api, model: str, version: str) -> HeadMove | None:
    """Return the newest move by which the head went below `version`; null: there is none."""
    number = _number(version)
    try:
        for move in api.heads(model):
            if move.before is not None and _number(move.after) < number <= _number(move.before):
                return move
    except NotFound:
        return None  # A server that tells of no moves.
    return None


def announced(head: Head, version: str) -> HeadMove | None:
    """Return the newest move by which `head`, signed, went below `version`; null: none is told."""
    number = _number(version)
    for move in reversed(head.taken_back):
        if _number(move.to_version) < number <= _number(move.from_version):
            return HeadMove(
                kind="rollback",
                before=move.from_version,
                after=move.to_version,
                reason=move.reason,
                at=move.at,
            )
    return None


def told(move: HeadMove, model: str) -> str:
    """Say in a sentence or two that the head went back, and why."""
    why = f" The reason: {move.reason.rstrip('.')}." if move.reason else ""
    return f"{model} was taken back from {move.before} to {move.after} on {move.at:%Y-%m-%d}.{why}"


def _number(version: str) -> int:
    return int(version[1:])
