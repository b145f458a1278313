"""
What this process counts of its own requests.

Labels are few and known beforehand, whatever is asked for: a route's template and never a path, a
method that there is, the first digit of a status.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
# In place of a template: what no route answered, what was turned away before one was looked for,
# and what has none.
UNKNOWN, REFUSED, OTHER = "(unknown)", "(refused)", "(other)"

# When each series began nobody asks, and it would double their number.
disable_created_metrics()  # type: ignore[no-untyped-call]


class HttpMetrics:
    """The numbers of one application."""

    def __init__(self) -> None:
        """Begin at nothing."""
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "coldfusion_http_requests",
            "Requests that this process has answered, by status class.",
            ["route", "method", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "coldfusion_http_request_duration_seconds",
            "From a request's arrival until its answer began: how long a download then takes is "
            "the line's.",
            ["route", "method"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.received = Counter(
            "coldfusion_http_received_bytes",
            "Bytes of bodies that have arrived here: uploads, where the store is a folder.",
            ["route"],
            registry=self.registry,
        )
        self.sent = Counter(
            "coldfusion_http_sent_bytes",
            "Bytes of bodies that were sent from here: downloads, where the store is a folder.",
            ["route"],
            registry=self.registry,
        )
        self.open = Gauge(
            "coldfusion_http_requests_in_flight",
            "Requests that are being answered, event streams among them.",
            registry=self.registry,
        )

    @contextmanager
    def in_flight(self) -> Iterator[None]:
        """Count a request as long as the block lasts."""
        self.open.inc()
        try:
            yield
        finally:
            self.open.dec()

    def count(
        self, scope: Scope, status: int, seconds: float | None, received: int, sent: int
    ) -> None:
        """
        Count a request that has come to its end.

        Args:
            scope: the request's, after its route was looked for.
            status: of the answer.
            seconds: until the answer began; null: it never did.
            received: bytes of its body that were read.
            sent: bytes of the answer's body.
        """
        route, method = route_of(scope), method_of(scope)
        self.requests.labels(route, method, f"{status // 100}xx").inc()
        if seconds is not None:
            self.seconds.labels(route, method).observe(seconds)
        self.received.labels(route).inc(received)
        self.sent.labels(route).inc(sent)


def route_of(scope: Scope) -> str:
    """Return the template of the route that has answered, of which there are as many as routes."""
    path = getattr(scope.get("route"), "path", None)
    if path is not None:
        return str(path)
    endpoint = scope.get("endpoint")
    if isinstance(endpoint, StaticFiles):
        return "/static/{path:path}"
    if endpoint is not None:
        return OTHER
    return REFUSED if scope["state"].get("refused") else UNKNOWN


def method_of(scope: Scope) -> str:
    """Return the request's method, or that it has another one than there are."""
    return scope["method"] if scope["method"] in METHODS else "OTHER"
