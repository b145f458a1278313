"""Sources whose every read shows that the work moves, also where it tells of no progress."""

from __future__ import annotations

from collections.abc import Callable

from coldfusion_shared.weights.checkpoint import ByteSource


class LivelySource:
    """A `ByteSource` that calls `alive` before each read, in the thread that reads."""

    def __init__(self, source: ByteSource, alive: Callable[[], None]) -> None:
        """
        Read from `source`.

        Args:
            source: where the bytes are.
            alive: cheap, for any thread; what it raises ends the read.
        """
        self._source = source
        self._alive = alive

    @property
    def size(self) -> int:
        """Bytes in all."""
        return self._source.size

    def read_into(self, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with what stands from `start` on."""
        self._alive()
        self._source.read_into(start, buffer)

    def close(self) -> None:
        """Give back what is held."""
        self._source.close()
