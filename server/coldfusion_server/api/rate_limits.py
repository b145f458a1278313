"""
How many requests an address, and a token, may make in a minute.

Counted in each process for itself. What is to be protected is this process: its threads, and its
connections to the database; a count that all share would cost each request a write to the database,
more than most requests cost, and SQLite one writer. Several replicas let pass as many times more,
which is what they can bear. What people may do, however many replicas there are, quotas say.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

from starlette.types import Scope

from coldfusion_server.api.addresses import address_of
from coldfusion_server.api.buckets import Buckets
from coldfusion_server.services.tokens import Principal
from coldfusion_server.settings import Settings
from coldfusion_shared.errors import RateLimited

# Parts of uploads have URLs that we signed, each good for one part: nobody has more of them than
# he has declared. Whether the process lives is asked for by machines of the operator's own.
UNCOUNTED = ("/v1/uploads/", "/static/", "/healthz", "/readyz")


class RateLimits:
    """Counts requests; those beyond what the settings allow are refused."""

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        """Begin to count, by a `clock` in seconds."""
        self._addresses = Buckets(settings.rate_per_address, clock)
        self._tokens = Buckets(settings.rate_per_token, clock)

    def count(self, scope: Scope) -> None:
        """Count a request for its address; raises `RateLimited`."""
        if _is_counted(scope):
            _check(self._addresses.take(address_of(scope)), "your address")

    def count_token(self, scope: Scope, principal: Principal | None) -> None:
        """Count a request for its token; raises `RateLimited`."""
        if principal is not None and _is_counted(scope):
            _check(self._tokens.take(principal.token_id), "your token")


def _is_counted(scope: Scope) -> bool:
    # A token is looked up wherever it comes, so that nobody tries them where nothing is counted.
    has_token = any(name == b"authorization" for name, _ in scope["headers"])
    return has_token or not scope["path"].startswith(UNCOUNTED)


def _check(seconds: float, whose: str) -> None:
    if seconds:
        raise RateLimited(
            f"Too many requests came from {whose} in a short time.",
            hint="They are taken again after the seconds of Retry-After; coldfusion-client waits "
            "by itself.",
            retry_after=ceil(seconds),
        )
