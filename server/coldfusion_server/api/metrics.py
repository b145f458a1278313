"""Metrics in the form that Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from threading import Lock
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request
from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    Metric,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.openmetrics import exposition as openmetrics
from starlette.responses import PlainTextResponse, Response

from coldfusion_server.api.dependencies import Ctx, Events, Who
from coldfusion_server.api.http_metrics import HttpMetrics
from coldfusion_server.events.broker import Broker
from coldfusion_server.services.context import Context
from coldfusion_server.services.metrics.snapshot import Snapshot, sees_all, take
from coldfusion_shared import __version__

router = APIRouter(tags=["server"])

# However many ask, the database is asked once in so many seconds.
KEPT_SECONDS = 5.0
STALE_SECONDS = 60.0
# What else somebody accepts, such as a version of it, is not gone into.
OPENMETRICS = "application/openmetrics-text"


class Snapshots:
    """What the database said a moment ago, for those who see everything and for all others."""

    def __init__(self) -> None:
        """Nobody has asked yet."""
        self._kept: dict[bool, tuple[float, Snapshot]] = {}
        self._locks = {True: Lock(), False: Lock()}

    def get(self, ctx: Context, *, everything: bool) -> Snapshot:
        """
        Return one of at most `KEPT_SECONDS` ago; of many who ask, one makes it.

        Whoever comes meanwhile gets one of up to `STALE_SECONDS` ago; where there is none he waits.
        """
        lock, found = self._locks[everything], self._of_late(ctx, everything, STALE_SECONDS)
        # Who waits here keeps a thread from others: better what is there, a little old.
        if not lock.acquire(blocking=found is None):
            assert found is not None, "it was waited for"
            return found
        try:
            found = self._of_late(ctx, everything, KEPT_SECONDS)
            if found is None:
                found = take(ctx, everything=everything)
                self._kept[everything] = (ctx.seconds(), found)
            return found
        finally:
            lock.release()

    def _of_late(self, ctx: Context, everything: bool, seconds: float) -> Snapshot | None:
        """Return the last one, if it is younger than that."""
        at, found = self._kept.get(everything, (0.0, None))
        return found if ctx.seconds() - at < seconds else None


class _Shown:
    """What one scrape is told, as the encoders want it."""

    def __init__(self, families: Iterable[Metric], http: CollectorRegistry) -> None:
        self._families, self._http = families, http

    def collect(self) -> Iterator[Metric]:
        yield from self._families
        yield from self._http.collect()


def _http(request: Request) -> HttpMetrics:
    found: HttpMetrics = request.app.state.http_metrics
    return found


def _snapshots(request: Request) -> Snapshots:
    found: Snapshots = request.app.state.snapshots
    return found


@router.get("/metrics", response_class=PlainTextResponse, include_in_schema=False)
def get_metrics(
    ctx: Ctx,
    who: Who,
    broker: Events,
    http: Annotated[HttpMetrics, Depends(_http)],
    snapshots: Annotated[Snapshots, Depends(_snapshots)],
    accept: Annotated[str, Header()] = "",
) -> Response:
    """Show the metrics to Prometheus; for maintainers of all models, and admins."""
    found = snapshots.get(ctx, everything=sees_all(ctx, who))
    families = [_build(), *found.families, *_stream(broker, found.newest)]
    shown = _Shown(families, http.registry)
    if OPENMETRICS in accept:
        text = openmetrics.generate_latest(shown)  # type: ignore[no-untyped-call]
        return Response(text, media_type=openmetrics.CONTENT_TYPE_LATEST)
    return Response(generate_latest(shown), media_type=CONTENT_TYPE_PLAIN_0_0_4)


def _build() -> Metric:
    return InfoMetricFamily(
        "coldfusion_build", "The version that runs.", value={"version": __version__}
    )


def _stream(broker: Broker, newest: int | None) -> Iterator[Metric]:
    """Yield what is known of the event stream; how far it is behind is for those who see all."""
    yield GaugeMetricFamily(
        "coldfusion_event_stream_watchers",
        "Who watches the event stream of this process.",
        broker.watchers,
    )
    if newest is not None:
        yield GaugeMetricFamily(
            "coldfusion_event_stream_behind",
            "Events that this process has not handed out yet.",
            max(0, newest - broker.last),
        )
