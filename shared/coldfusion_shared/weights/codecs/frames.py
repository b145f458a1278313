"""One block as one zstd frame: written with little effort, read with much suspicion."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import local

import numpy as np
import numpy.typing as npt
import zstandard

from coldfusion_shared.errors import UndecodableUpdate

# Quantised values have no repetitions to be found, only bytes that are rarer than others; higher
# levels take longer and save nothing.
LEVEL = 1
# Below this size a frame's header cannot say what window it needs.
MIN_WINDOW_BYTES = 1024
# What one thread keeps of blocks that are read in several parts, for all updates together.
KEPT_BYTES = 16 * 2**20


def max_frame(content: int) -> int:
    """Return how many bytes the frame of `content` bytes has at most."""
    return content + content // 256 + 128


def compress(parts: Sequence[bytes]) -> bytes:
    """
    Return `parts`, one after another, as one frame.

    Each part gets a zstd block of its own, and with it statistics of its own: bits and values that
    shared theirs would take a tenth more.
    """
    packer = _tools.compressor.compressobj(size=sum(map(len, parts)))
    frame = []
    for part in parts[:-1]:
        frame += [packer.compress(part), packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)]
    return b"".join([*frame, packer.compress(parts[-1]), packer.flush()])


def decompress(frame: npt.NDArray[np.uint8], smallest: int, largest: int) -> bytes:
    """
    Return the content of a frame.

    Args:
        frame: the bytes, (n,); nothing but the one frame.
        smallest: bytes that the content must have.
        largest: bytes that it may have; no more are ever allocated.

    Raises:
        UndecodableUpdate: it is no such frame; the message is a part of a sentence.
    """
    try:
        header = zstandard.get_frame_parameters(frame.data)
        size = header.content_size
        if not smallest <= size <= largest:
            raise UndecodableUpdate(
                f"claims a content of {_size(size)} where {largest} are the most"
            )
        if header.window_size > max(size, MIN_WINDOW_BYTES):
            raise UndecodableUpdate(f"asks for a window of {header.window_size} bytes")
        if header.dict_id:
            raise UndecodableUpdate("needs a dictionary")
        content = _tools.decompressor.decompress(frame.data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise UndecodableUpdate(f"is not one zstd frame: {error}") from None
    if len(content) != size:
        raise UndecodableUpdate(f"has a content of {len(content)} bytes and claims {size}")
    return content


def _size(size: int) -> str:
    return "unknown size" if size >= zstandard.CONTENTSIZE_ERROR else f"{size} bytes"


class _Tools(local):
    """One thread's compressor and decompressor."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=LEVEL)
        self.decompressor = zstandard.ZstdDecompressor()


_tools = _Tools()


class Unfinished(local):
    """
    One thread's contents of blocks that it has read in part and will go on with.

    Of many updates a fuse reads less than a block at a time, from one after another. The contents
    are kept as they are in the frame, which is a quarter of their values and less. The least
    recently used go first, beyond KEPT_BYTES.
    """

    def __init__(self) -> None:
        """Start with nothing."""
        self._contents: OrderedDict[tuple[int, str], tuple[int, bytes]] = OrderedDict()
        self._bytes = 0

    def take(self, key: tuple[int, str], place: int) -> bytes | None:
        """Return, and forget, the block with the number `place` of a reader's tensor, `key`."""
        kept, content = self._contents.pop(key, (-1, b""))
        self._bytes -= len(content)
        return content if kept == place else None

    def keep(self, key: tuple[int, str], place: int, content: bytes) -> None:
        """Remember a block; nothing of the same `key` is remembered."""
        self._contents[key] = (place, content)
        self._bytes += len(content)
        while self._bytes > KEPT_BYTES:
            _, (_, dropped) = self._contents.popitem(last=False)
            self._bytes -= len(dropped)


unfinished = Unfinished()
