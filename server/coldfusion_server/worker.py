"""The worker: screens what has arrived, fuses what was closed or is replayed, piece by piece."""

from __future__ import annotations

import os
import secrets
import socket
from contextlib import suppress
from dataclasses import replace
from threading import Event

import structlog

from coldfusion_server.services import closing
from coldfusion_server.services.base_distances import measure_next
from coldfusion_server.services.context import Context
from coldfusion_server.services.differences import make_next
from coldfusion_server.services.heartbeat import Heartbeat, Part, WorkStopped
from coldfusion_server.services.publishing import go_on_next
from coldfusion_server.services.replaying import replay_next
from coldfusion_server.services.screening import screen_next
from coldfusion_shared.errors import ColdFusionError

log = structlog.get_logger(__name__)


def run_worker(ctx: Context, stop: Event) -> None:
    """
    Work until `stop` is set. Any number of workers may run; leases keep them apart.

    A piece of work that is in hand then is left where it is, and its lease given back.
    """
    holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    with Heartbeat(ctx.settings, Part.WORKER, stop, ctx.beats) as pulse, suppress(WorkStopped):
        ctx = replace(ctx, pulse=pulse)
        while not stop.is_set():
            if work_once(ctx, holder):
                _close_due(ctx)
            else:
                stop.wait(ctx.settings.worker_seconds)


def _close_due(ctx: Context) -> None:
    """Close what the work has made complete at once, rather than wait for a scheduler's look."""
    try:
        closing.close_due(ctx)
    except ColdFusionError as error:
        # The scheduler does it, when the database is back.
        log.error("worker", error=error.message)


def work_once(ctx: Context, holder: str) -> bool:
    """Do one piece of work; return whether there was any."""
    try:
        # Fusing first: a flood of uploads must not hold up a round that is closed.
        worked = go_on_next(ctx, holder) or screen_next(ctx, holder)
        # A replay takes as long as all its rounds took: whoever contributes does not wait for it.
        worked = worked or replay_next(ctx, holder)
        if not worked:
            # Nobody waits for these: they are made where there is nothing else to do, one at a
            # time, so that what arrives meanwhile does not wait for long.
            make_next(ctx, holder) or measure_next(ctx, holder)
        # Not after an error: a worker whose database stays away must not look well.
        ctx.pulse()
        return worked
    except ColdFusionError as error:
        # The work stays where it is and is found again; a pause keeps the log short.
        log.error("worker", error=error.message)
    except Exception:
        # A fault of ours in one piece of work must not end the thread that does all others.
        log.exception("worker")
    return False
