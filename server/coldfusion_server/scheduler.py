"""
The scheduler: closes rounds when it is time, gives up uploads that never end, clears up, and has
events sent to webhooks.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from threading import Event

import structlog

from coldfusion_server.collector import collector
from coldfusion_server.deliverer import deliverer
from coldfusion_server.services import closing, contributions, staging, xorbs
from coldfusion_server.services.context import Context
from coldfusion_server.services.heartbeat import Heartbeat, Part, WorkStopped
from coldfusion_shared.errors import ColdFusionError

log = structlog.get_logger(__name__)

CLEANING_SECONDS = 600.0


def run_scheduler(ctx: Context, stop: Event) -> None:
    """Work until `stop` is set. Any number of schedulers may run; none of them is needed twice."""
    cleaned_at = 0.0
    beside = collector(ctx, stop), deliverer(ctx, stop)
    heartbeat = Heartbeat(ctx.settings, Part.SCHEDULER, stop, ctx.beats)
    with heartbeat as pulse, beside[0], beside[1], suppress(WorkStopped):
        ctx = replace(ctx, pulse=pulse)
        while not stop.wait(ctx.settings.scheduler_seconds):
            try:
                closing.close_due(ctx)
                contributions.expire_uploads(ctx)
                staging.expire(ctx)
                xorbs.expire(ctx)
                now = ctx.now().timestamp()
                if now - cleaned_at > CLEANING_SECONDS:
                    # Before: what fails is not to be tried again at once and for ever.
                    cleaned_at = now
                    contributions.sweep_uploads(ctx)
                    ctx.store.clean()
                # Not after an error: a scheduler whose database stays away must not look well.
                pulse()
            except ColdFusionError as error:
                # The database or the disk is away for a while: the next look may find it again.
                log.error("scheduler", error=error.message)
            except Exception:
                # A fault of ours must not end the thread: no round would ever close again.
                log.exception("scheduler")
