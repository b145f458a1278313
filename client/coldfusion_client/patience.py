"""Trying again: exponential backoff with jitter, bounded, and patient while there is progress."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from coldfusion_shared.errors import ColdFusionError, RateLimited

T = TypeVar("T")

# Nobody needs to be told of a shorter wait that was asked for.
TOLD_SECONDS = 5.0


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
        longest_asked: seconds of waiting in all, without progress, for a server that is well and
            asks to be asked less often; beside the budget, and none of the tries.
        notify: is told why and how long it waits, from the second failure on.
        sleep: waits.
    """

    tries: int = 10
    first: float = 0.5
    longest: float = 20.0
    budget: float = 120.0
    longest_asked: float = 900.0
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
        failures, waited, asked, mark = 0, 0.0, 0.0, progress()
        while True:
            try:
                return action()
            except Transient as failure:
                if progress() != mark:
                    failures, waited, asked, mark = 0, 0.0, 0.0, progress()
                if self._is_asked(failure):
                    asked += self._obey(failure, asked)
                    continue
                failures += 1
                wait = self._wait(failures, failure.retry_after)
                tries = min(self.tries, failure.tries or self.tries)
                if failures >= tries or waited + wait > self.budget:
                    raise failure.error from failure.__cause__
                waited += wait
                self._tell(failures, failure, wait)
                self.sleep(wait)

    def _is_asked(self, failure: Transient) -> bool:
        """Return whether the server only asks to come back later, and there is to be a later."""
        limited = isinstance(failure.error, RateLimited) and failure.retry_after is not None
        return limited and self.tries > 1

    def _obey(self, failure: Transient, before: float) -> float:
        """Wait as long as the server asks, having waited `before` seconds; return how long."""
        # Jitter: what was refused together must not come back in one wave.
        wait = (failure.retry_after or 0.0) + self.first * random.uniform(0.0, 1.0)
        if before + wait > self.longest_asked:
            raise failure.error from failure.__cause__
        if wait >= TOLD_SECONDS:
            self._say(failure, wait)
        self.sleep(wait)
        return wait

    def _wait(self, failures: int, asked: float | None) -> float:
        backoff = min(self.longest, self.first * 2.0 ** (failures - 1))
        # Jitter: many clients that lost the same server must not come back in one wave.
        return max(asked or 0.0, backoff * random.uniform(0.5, 1.0))

    def _tell(self, failures: int, failure: Transient, wait: float) -> None:
        if failures > 1:
            self._say(failure, wait)

    def _say(self, failure: Transient, wait: float) -> None:
        self.notify(f"{failure.error.message} Trying again in {max(1, round(wait))} s.")


# A server that never answered is soon given up; one that did has perhaps only been restarted.
AT_FIRST = Patience(tries=4, budget=10.0)
ONCE_MET = Patience()
