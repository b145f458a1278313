"""The deliverer: sends events to webhooks, in a thread beside the scheduler."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread, current_thread

import structlog

from coldfusion_server import tracing
from coldfusion_server.events.webhooks.posting import Answer, Letter, Poster
from coldfusion_server.services import delivering
from coldfusion_server.services.context import Context
from coldfusion_server.services.delivering import Job
from coldfusion_server.services.fan_out import fan_out
from coldfusion_shared.errors import ColdFusionError, ConfigurationError

log = structlog.get_logger(__name__)

# Tries at a time, and how many of them may be of webhooks whose last one failed, or took so long.
AT_A_TIME = 16
FAILING_AT_A_TIME = 8
SLOW_SECONDS = 2.0
PAUSE_SECONDS = 0.5
END_SECONDS = 1.0
JOIN_SECONDS = 1.5
FAULT = "It could not be sent, by a fault of the Repository's own: its log says more."

Post = Callable[[Letter], Answer]


@contextmanager
def deliverer(ctx: Context, stop: Event) -> Iterator[None]:
    """Deliver beside the block until `stop` is set."""
    thread = Thread(target=run_deliverer, args=(ctx, stop), daemon=True, name="deliverer")
    thread.start()
    yield
    thread.join(JOIN_SECONDS)


def run_deliverer(ctx: Context, stop: Event, post: Post | None = None) -> None:
    """
    Deliver until `stop` is set. Any number of deliverers may run.

    Args:
        ctx: the service's surroundings.
        stop: ends it; tries under way are left to end by themselves.
        post: makes a try; null: over the network.
    """
    work = _Deliverer(ctx, post or Poster(ctx.settings.webhook_private).post)
    while not stop.is_set():
        if not work.turn():
            work.wait(PAUSE_SECONDS)
    work.end()


class _Deliverer:
    """Hands out tries to threads, one of each webhook at a time."""

    def __init__(self, ctx: Context, post: Post) -> None:
        self._ctx = ctx
        self._post = post
        self._lock = Lock()
        # What is under way, by its thread.
        self._busy: dict[Thread, Job] = {}
        # Webhooks whose last try took long, whatever came of it.
        self._slow: set[str] = set()
        self._moved = Event()

    def turn(self) -> bool:
        """Do what there is to do at the moment; return whether there is more."""
        self._moved.clear()
        try:
            more = fan_out(self._ctx)
            self._hand_out()
            return more
        except ColdFusionError as error:
            # The database is away for a while: the next look may find it again.
            log.error("deliverer", error=error.message)
        except Exception:
            # A fault of ours must not end the thread: nothing would be delivered ever again.
            log.exception("deliverer")
        return False

    def wait(self, seconds: float) -> None:
        """Wait, or until a try has ended: there may be another one of the same webhook."""
        self._moved.wait(seconds)

    def end(self) -> None:
        """Begin nothing any more, and give what is under way a moment to end."""
        until = time.monotonic() + END_SECONDS
        with self._lock:
            threads = list(self._busy)
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _hand_out(self) -> None:
        with self._lock:
            busy, slow = list(self._busy.values()), set(self._slow)
        room = AT_A_TIME - len(busy)
        room_for_failing = FAILING_AT_A_TIME - sum(job.failing for job in busy)
        if room <= 0:
            return
        hooks = {job.webhook for job in busy}
        for job in delivering.claim(self._ctx, hooks, room, room_for_failing, slow):
            # Of its own, and not of a pool: those are waited for when the process ends.
            thread = Thread(target=self._try, args=(job,), daemon=True, name="webhook")
            with self._lock:
                self._busy[thread] = job
            thread.start()

    def _try(self, job: Job) -> None:
        try:
            with tracing.step("deliver", webhook=job.webhook):
                answer = self._answer(job)
                if answer is not None:
                    self._remember(job, answer)
                    delivering.record(self._ctx, job, answer)
        except ColdFusionError as error:
            # It is held until its time is over, and then tried again.
            log.error("delivery", error=error.message, webhook=job.webhook)
        except Exception:
            log.exception("delivery", webhook=job.webhook)
        finally:
            with self._lock:
                self._busy.pop(current_thread(), None)
            self._moved.set()

    def _remember(self, job: Job, answer: Answer) -> None:
        """Keep in mind whether a webhook takes long: also one that goes well can hold others up."""
        with self._lock:
            if answer.seconds < SLOW_SECONDS:
                self._slow.discard(job.webhook)
            else:
                self._slow.add(job.webhook)

    def _answer(self, job: Job) -> Answer | None:
        """Return what came of the try; null: it was not for us any more."""
        try:
            letter = delivering.letter_of(self._ctx, job)
        except ConfigurationError as error:
            return Answer(None, error.message, 0.0)
        if letter is None:
            return None
        try:
            return self._post(letter)
        except Exception:
            # Told, and tried again later each time: else it would be, every half a minute for ever.
            log.exception("delivery", webhook=job.webhook)
            return Answer(None, FAULT, 0.0)
