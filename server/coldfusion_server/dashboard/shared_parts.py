"""
Parts of pages that many visitors fetch at the same moment are rendered once.

Whatever happens, every open page fetches the parts that it concerns. Visitors who are not logged in
all see the same, so the first one's answer serves the others: until the next event, and for a
moment at most, because some of what parts show moves without events. Pages as a whole are rendered
anew each time.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import wraps
from threading import Lock
from typing import Any, ParamSpec

from fastapi import Request
from starlette.responses import HTMLResponse

SECONDS = 1.0
# So many parts are kept at most.
MOST = 64

Given = ParamSpec("Given")
Key = tuple[Hashable, ...]


@dataclass
class _Kept:
    """One part as it was rendered last; `moment` is the newest event that it may know of."""

    lock: Lock = field(default_factory=Lock)
    moment: int = -1
    until: float = 0.0
    answer: tuple[bytes, int, dict[str, str]] = (b"", 0, {})


class SharedParts:
    """The parts that were rendered a moment ago."""

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        """Keep none yet; `seconds` tells the time."""
        self._seconds = seconds
        self._lock = Lock()
        self._kept: OrderedDict[Key, _Kept] = OrderedDict()

    def get(self, key: Key, moment: int, make: Callable[[], HTMLResponse]) -> HTMLResponse:
        """
        Return a part, rendered by `make` unless somebody had it rendered a moment ago.

        Who asks while it is being rendered waits for that. What `make` raises is not kept.

        Args:
            key: which part.
            moment: id of the newest event; what was rendered before that is not taken.
            make: renders it.
        """
        kept = self._of(key)
        with kept.lock:
            if kept.moment != moment or self._seconds() >= kept.until:
                kept.moment = -1
                made = make()
                headers = {name: value for name, value in made.headers.items()}
                kept.answer = bytes(made.body), made.status_code, headers
                kept.moment, kept.until = moment, self._seconds() + SECONDS
            body, status, headers = kept.answer
        return HTMLResponse(body, status, headers)

    def _of(self, key: Key) -> _Kept:
        with self._lock:
            kept = self._kept.setdefault(key, _Kept())
            self._kept.move_to_end(key)
            if len(self._kept) > MOST:
                self._kept.popitem(last=False)
            return kept


def shared(view: Callable[Given, HTMLResponse]) -> Callable[Given, HTMLResponse]:
    """Let a page's view serve its parts to all visitors alike; it takes the request by name."""

    @wraps(view)
    def answer(*args: Given.args, **kwargs: Given.kwargs) -> HTMLResponse:
        request: Any = kwargs["request"]
        key = _key(request)
        if key is None:
            return view(*args, **kwargs)
        state = request.app.state
        found: HTMLResponse = state.shared_parts.get(
            key, state.broker.last, lambda: view(*args, **kwargs)
        )
        return found

    return answer


def _key(request: Request) -> Key | None:
    """Return what the answer depends on; null: on the visitor, or it is no part of a page."""
    is_known = getattr(request.state, "principal", None) is not None
    # Before the reader of events runs, nothing would tell that something has happened.
    if is_known or "part" not in request.query_params or not request.app.state.broker.last:
        return None
    return request.method, str(request.url), request.headers.get("host", "")
