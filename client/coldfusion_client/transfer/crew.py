"""Threads that work on one transfer: where one of them fails for good, the others end, too."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial
from threading import Event, Lock
from types import TracebackType
from typing import ParamSpec, Self

from coldfusion_client.patience import Patience

P = ParamSpec("P")


class Stopped(Exception):
    """Something else has failed, so this ends."""


class Flag:
    """Says to those who work on one thing that it has ended."""

    def __init__(self) -> None:
        """Nothing has ended yet."""
        self._event = Event()

    def set(self) -> None:
        """End it; who waits wakes up."""
        self._event.set()

    def check(self) -> None:
        """Raise `Stopped` if it has ended."""
        if self._event.is_set():
            raise Stopped

    def sleep(self, seconds: float) -> None:
        """Wait so long, or until it has ended; raises `Stopped` then."""
        if self._event.wait(seconds):
            raise Stopped

    def patience(self, patience: Patience) -> Patience:
        """Return `patience`, but one whose waits end with the work."""
        return replace(patience, sleep=self.sleep)


class Crew:
    """A number of threads, and the flags of what they work on; a context manager."""

    def __init__(self, workers: int) -> None:
        """Use so many threads."""
        self._pool = ThreadPoolExecutor(workers)
        self._lock = Lock()
        self._flags: list[Flag] = []
        self._stopped = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # What is under way ends at its next block. A person who wants to stop does not wait for
        # one that may never come; what was finished is in the journal.
        self._stop()
        interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
        self._pool.shutdown(wait=not interrupted, cancel_futures=not interrupted)

    def flag(self) -> Flag:
        """Return a new flag, which is set when all work is to end."""
        flag = Flag()
        with self._lock:
            self._flags.append(flag)
            if self._stopped:
                flag.set()
        return flag

    def submit(self, job: Callable[P, None], *args: P.args, **named: P.kwargs) -> Future[None]:
        """Have `job` done by one of the threads; its failure ends all work of this crew."""
        return self._pool.submit(self._work, partial(job, *args, **named))

    def finish(self, jobs: Iterable[Future[None]]) -> None:
        """Wait until all `jobs` are done; raises what made one of them fail."""
        jobs = list(jobs)
        done, _ = wait(jobs, return_when=FIRST_EXCEPTION)
        if len(done) < len(jobs):
            for job in jobs:
                job.cancel()
        raise_first(jobs)

    def _work(self, job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException:
            # Here and not where the failure is noticed: no thread must begin anything after it.
            self._stop()
            raise

    def _stop(self) -> None:
        with self._lock:
            self._stopped = True
            for flag in self._flags:
                flag.set()


def raise_first(jobs: Iterable[Future[None]]) -> None:
    """Wait until all `jobs` have ended, and raise what made them fail, if one did."""
    jobs = list(jobs)
    wait(jobs)
    failures = [job.exception() for job in jobs if not job.cancelled()]
    known = [failure for failure in failures if failure is not None]
    # `Stopped` is what the others met because of the one that failed.
    for failure in sorted(known, key=lambda failure: isinstance(failure, Stopped)):
        raise failure
