"""
Reading ahead: a far source as windows that are fetched before they are asked for.

A fuse reads each tensor from its beginning to its end, from K sources at once. Asking a store for
each small block would wait for its latency every time; so whole windows are fetched, and the next
one while this one is worked on. What all open sources together may hold is bounded.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from weakref import finalize

from coldfusion_shared.errors import MalformedWeights

# Returns the bytes from the first place to the second.
Fetch = Callable[[int, int], bytes]

MIB = 2**20
MAX_WINDOW_BYTES = 16 * MIB
# A source's first window: its header lies there, and its time is mostly the store's latency.
MIN_WINDOW_BYTES = MIB // 4
# Bytes that are worth fetching for each second of latency: four times what a fast line carries in
# that time, so that at most a fifth of a fetch is spent waiting for its first byte.
BYTES_PER_LATENCY_SECOND = 1024 * MIB
# One that is read, one that comes next, and one that another thread still has.
WINDOWS = 3


class ReadAhead:
    """What the far sources of one store share: threads that fetch, and a budget of memory."""

    def __init__(self, budget_bytes: int = 192 * MIB, threads: int = 32) -> None:
        """
        Begin with nothing open.

        Args:
            budget_bytes: what all open sources together may hold, in about.
            threads: fetches at a time.
        """
        self.budget_bytes = budget_bytes
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="read-ahead")
        self._lock = Lock()
        self._open = 0
        self._latency: float | None = None

    def open(self, fetch: Fetch, size: int) -> WindowedSource:
        """Return a source of `size` bytes that `fetch` gets; `fetch` raises what it likes."""
        with self._lock:
            self._open += 1
        return WindowedSource(self, fetch, size)

    def closed(self) -> None:
        """Count one open source less."""
        with self._lock:
            self._open -= 1

    def observe(self, seconds: float) -> None:
        """Learn from a short fetch how long the store takes to answer; the shortest one counts."""
        with self._lock:
            self._latency = min(seconds, self._latency or seconds)

    def window_bytes(self) -> int:
        """Return how large a window may be now: a power of two, by latency and by what is open."""
        with self._lock:
            share = self.budget_bytes // (WINDOWS * max(1, self._open))
            wanted = int((self._latency or 0.0) * BYTES_PER_LATENCY_SECOND)
        upper = max(MIN_WINDOW_BYTES, min(MAX_WINDOW_BYTES, _power_below(share)))
        return min(upper, max(MIN_WINDOW_BYTES, 2 * _power_below(wanted)))

    def close(self) -> None:
        """End the threads."""
        self.pool.shutdown(wait=False, cancel_futures=True)


class WindowedSource:
    """A `ByteSource` of bytes that are far away; several threads may read it."""

    def __init__(self, ahead: ReadAhead, fetch: Fetch, size: int) -> None:
        """Use `ReadAhead.open`."""
        self._ahead = ahead
        self._fetch = fetch
        self._size = size
        self._lock = Lock()
        # By (start, stop), the least recently used first.
        self._windows: OrderedDict[tuple[int, int], Future[bytes]] = OrderedDict()
        self._window_bytes = 0
        # Also for those that nobody closes: what they held would be missing to all that come.
        self._count_out = finalize(self, ahead.closed)

    @property
    def size(self) -> int:
        """Bytes in all."""
        return self._size

    def read_into(self, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with what stands from `start` on; raises what fetching raises."""
        if start + len(buffer) > self._size:
            raise MalformedWeights("More bytes were asked for than there are.")
        done = 0
        while done < len(buffer):
            (first, last), future = self._window(start + done)
            data = future.result()
            if len(data) != last - first:
                raise MalformedWeights("The store sent fewer bytes than were asked for.")
            offset = start + done - first
            part = memoryview(data)[offset : offset + len(buffer) - done]
            buffer[done : done + len(part)] = part
            done += len(part)

    def close(self) -> None:
        """Forget what was fetched."""
        self._count_out()
        with self._lock:
            for future in self._windows.values():
                future.cancel()
            self._windows.clear()

    def _window(self, place: int) -> tuple[tuple[int, int], Future[bytes]]:
        """Return the window that has the byte at `place`, and see that the next one comes."""
        with self._lock:
            if place < min(MIN_WINDOW_BYTES, self._size):
                # What comes next depends on how long this one takes.
                return self._started(0, min(MIN_WINDOW_BYTES, self._size))
            window, future = self._started(*self._bounds(place))
            if window[1] < self._size:
                self._started(*self._bounds(window[1]))
            while len(self._windows) > WINDOWS:
                self._windows.popitem(last=False)
            return window, future

    def _bounds(self, place: int) -> tuple[int, int]:
        if not self._window_bytes:
            # All sources of a fuse are open by the time that the first block is read.
            self._window_bytes = self._ahead.window_bytes()
        start = place // self._window_bytes * self._window_bytes
        return max(start, MIN_WINDOW_BYTES), min(start + self._window_bytes, self._size)

    def _started(self, start: int, stop: int) -> tuple[tuple[int, int], Future[bytes]]:
        window = (start, stop)
        known = self._windows.get(window)
        # A fetch that failed is tried anew by whoever asks next.
        failed = known is not None and known.done() and known.exception() is not None
        if known is None or failed:
            self._windows[window] = self._ahead.pool.submit(self._timed, start, stop)
        self._windows.move_to_end(window)
        return window, self._windows[window]

    def _timed(self, start: int, stop: int) -> bytes:
        began = time.perf_counter()
        data = self._fetch(start, stop)
        if stop - start <= MIN_WINDOW_BYTES:
            self._ahead.observe(time.perf_counter() - began)
        return data


def _power_below(number: int) -> int:
    """Return the largest power of two that is not above `number`, at least 1."""
    return 1 << (max(1, number).bit_length() - 1)
