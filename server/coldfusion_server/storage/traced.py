"""A store whose dear calls are parts of what is traced; see `tracing.child`."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, cast

from coldfusion_server import tracing
from coldfusion_server.storage import ObjectStore

# Those that move bytes, or ask the store something; how bytes are read and written then is not
# gone into.
CALLS = frozenset(
    {
        "adopt",
        "check",
        "claim",
        "clean",
        "delete",
        "discard_upload",
        "exists",
        "parts",
        "pending_uploads",
        "put",
        "size",
        "source",
        "stored_at",
    }
)


def traced(store: ObjectStore) -> ObjectStore:
    """Return `store`, of whose calls traces tell."""
    return cast(ObjectStore, _Traced(store))


class _Traced:
    """Does what the store does, in spans."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        return _in_span(name, found) if name in CALLS else found


def _in_span(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(call)
    def spanned(*given: Any, **named: Any) -> Any:
        with tracing.child(f"store {name}"):
            return call(*given, **named)

    return spanned
