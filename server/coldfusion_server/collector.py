"""Garbage collection now and then, in a thread beside the scheduler: rounds close meanwhile."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from threading import Event, Thread

import structlog

from coldfusion_server.services.context import Context
from coldfusion_server.services.garbage import collect
from coldfusion_server.services.heartbeat import WorkStopped
from coldfusion_shared.errors import ColdFusionError, StateConflict

log = structlog.get_logger(__name__)

# Soon after the start, but behind the requests that waited for it.
FIRST_SECONDS = 60.0
# What failed is tried again long before the next one is due; what it had removed stays removed.
RETRY_SECONDS = 600.0
JOIN_SECONDS = 2.0


@contextmanager
def collector(ctx: Context, stop: Event) -> Iterator[None]:
    """Collect garbage every `gc_hours`, beside the block, until `stop` is set; 0: never."""
    thread = Thread(target=run_collector, args=(ctx, stop), daemon=True, name="collector")
    if ctx.settings.gc_hours:
        thread.start()
    yield
    if thread.is_alive():
        # What it is at can be left at any point; its lease is better given back.
        thread.join(JOIN_SECONDS)


def run_collector(ctx: Context, stop: Event, first: float = FIRST_SECONDS) -> None:
    """Collect garbage every `gc_hours`, `first` seconds from now on, until `stop` is set."""
    holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"

    def pulse() -> None:
        if stop.is_set():
            raise WorkStopped

    ctx = replace(ctx, pulse=pulse)
    wait = first
    with suppress(WorkStopped):
        while not stop.wait(wait):
            done = _collect(ctx, holder)
            wait = ctx.settings.gc_hours * 3600
            wait = wait if done else min(RETRY_SECONDS, wait)


def _collect(ctx: Context, holder: str) -> bool:
    """Collect once and tell the log; return whether it was done."""
    try:
        found = collect(ctx, holder)
    except StateConflict:
        return True  # Another scheduler, or the operator, is at it.
    except ColdFusionError as error:
        log.error("garbage collection failed", error=error.message)
        return False
    except Exception:
        # A fault of ours must not end the thread: the store would fill up without a word.
        log.exception("garbage collection failed")
        return False
    for sentence in found.damaged:
        log.error("garbage of its model stays", why=sentence)
    log.info(
        "garbage collected",
        **{reason.value.replace(" ", "_"): heap.objects for reason, heap in found.garbage.items()},
        bytes=found.total.bytes,
        uploads=found.uploads,
        erased_contributions=found.erased,
        sign_ins=found.sign_ins,
        events=found.events,
        deliveries=found.deliveries,
        kept=found.kept.objects,
    )
    return True
