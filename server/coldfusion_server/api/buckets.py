"""How often something may happen: a bucket for each key, bounded in number. No web in here."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

# Of a few bytes each. Whoever comes from more addresses than that is not stopped by counting them.
MOST_KEYS = 100_000


class Buckets:
    """
    Buckets that hold `size` and fill up again in a minute; safe to use from several threads.

    One number is kept for each key (GCRA): when its bucket will be full again. A bucket that is
    full is like one that was never used, so that those may be forgotten.
    """

    def __init__(self, size: int, clock: Callable[[], float]) -> None:
        """
        Make them, all full.

        Args:
            size: how much may be taken at once, and in a minute; 0: any.
            clock: in seconds.
        """
        self._size = size
        self._clock = clock
        self._full_at: OrderedDict[str, float] = OrderedDict()
        self._lock = Lock()

    def take(self, key: str) -> float:
        """Take one from a key's bucket; return 0, or in how many seconds there will be one."""
        if not self._size:
            return 0.0
        with self._lock:
            now, one = self._clock(), 60.0 / self._size
            full_at = max(now, self._full_at.get(key, now)) + one
            missing = full_at - now - 60.0
            # What is refused takes nothing: who waits as long as he is told gets his turn.
            if missing > 1e-6:
                return missing
            self._full_at[key] = full_at
            self._full_at.move_to_end(key)
            self._forget(now)
            return 0.0

    def __len__(self) -> int:
        return len(self._full_at)

    def _forget(self, now: float) -> None:
        """Drop what is full, from those used longest ago on, and what is too many."""
        while self._full_at:
            key, full_at = next(iter(self._full_at.items()))
            if full_at > now and len(self._full_at) <= MOST_KEYS:
                return
            del self._full_at[key]
