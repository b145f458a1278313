"""Trying again: exponential backoff with jitter, bounded, and patient while there is progress."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from coldfusion_shared.errors import ColdFusionError

T = TypeVar("T")


class Transient(Exception):
    """Something failed that may go well the next time."""

    def __init__(
        self, error: ColdFusionError, retry_after: float | None = None, tries: int | None = None
    ) -> None:
        """
        Keep what to raise when patience ends.

        Args:
            error: what the person is told in the end.
            retry_after: seconds that the server asked to wait.
            tries: how often at most, where little patience will do.
        """
        super().__init__(error.message)
        self.error = error
        self.retry_after = retry_after
        self.tries = tries


@dataclass(frozen=True)
class Patience:
    """
    How long a failing action is tried again.

    Attributes:
        tries: how often in a row without progress, the first time included.
        first: seconds of the first wait; each further one is twice as long.
        longest: seconds of the longest wait.
        budget: seconds of waiting in all, without progress.
        notify: is told why and how long it waits, from the second failure on.
        sleep: waits.
    """

    tries: int = 10
    first: float = 0.5
    longest: float = 20.0
    budget: float = 120.0
    notify: Callable[[str], None] = lambda _: None
    sleep: Callable[[float], object] = time.sleep

    def persist(self, action: Callable[[], T], progress: Callable[[], object] = lambda: None) -> T:
        """
        Return what `action` returns, calling it again as long as it raises `Transient`.

        Args:
            action: what to do; safe to repeat.
            progress: how far it is; where that has changed, counting begins anew.

        Raises:
            ColdFusionError: the last failure's, when patience has ended.
        """
        failures, waited, mark = 0, 0.0, progress()
        while True:
            try:
                return action()
            except Transient as failure:
                if progress() != mark:
                    failures, waited, mark = 0, 0.0, progress()
                failures += 1
                wait = self._wait(failures, failure.retry_after)
                tries = min(self.tries, failure.tries or self.tries)
                if failures >= tries or waited + wait > self.budget:
                    raise failure.error from failure.__cause__
                waited += wait
                self._tell(failures, failure, wait)
                self.sleep(wait)

    def _wait(self, failures: int, asked: float | None) -> float:
        backoff = min(self.longest, self.first * 2.0 ** (failures - 1))
        # Jitter: many clients that lost the same server must not come back in one wave.
        return max(asked or 0.0, backoff * random.uniform(0.5, 1.0))

    def _tell(self, failures: int, failure: Transient, wait: float) -> None:
        if failures > 1:
            self.notify(f"{failure.error.message} Trying again in {max(1, round(wait))} s.")


# A server that never answered is soon given up; one that did has perhaps only been restarted.
AT_FIRST = Patience(tries=4, budget=10.0)
ONCE_MET = Patience()
