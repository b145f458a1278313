"""Reading an encoded update: nothing is read twice, and little is kept."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from coldfusion_shared.fusion.updates import Scratch
from coldfusion_shared.weights.checkpoint import FileSource
from coldfusion_shared.weights.codecs import discover
from coldfusion_shared.weights.codecs.frames import KEPT_BYTES, Unfinished
from tests.shared.weights.codecs.encoded import BLOCK, BLOCKED, Pair, normal, part, whole


class Counting(FileSource):
    """A file that counts the bytes and the ranges that are read."""

    bytes = 0
    ranges = 0

    def read_into(self, start: int, buffer: memoryview) -> None:
        self.bytes += len(buffer)
        self.ranges += 1
        super().read_into(start, buffer)


@pytest.mark.parametrize("encoding", BLOCKED)
def test_a_block_that_is_read_in_parts_is_read_once(encoding: str, tmp_path: Path) -> None:
    pair = Pair(tmp_path, {"x": normal(7 * BLOCK + 11), "y": normal(300, 300)})
    pair.encode(encoding)
    source = Counting(pair.file(encoding))
    reader = discover()[encoding]().open({pair.file(encoding).name: source}, pair.base.tensors)
    # Header, with its length once more, and index.
    opening, source.bytes = source.bytes - 8, 0
    scratch = Scratch()
    for span in pair.base.spans().values():
        for start in range(0, span.elements, BLOCK // 8):
            part(reader, span, start, min(start + BLOCK // 8, span.elements), scratch)
    assert opening + source.bytes == source.size
    # What lies beside each other is read at once.
    source.ranges = 0
    whole(reader, pair.base.tensors["x"].span)
    assert source.ranges == 1


def test_a_tensor_of_many_blocks_is_read_from_anywhere(tmp_path: Path) -> None:
    update = np.zeros(200 * BLOCK, np.float32)
    update[::BLOCK] = np.arange(1, 201)
    pair = Pair(tmp_path, {"x": update})
    pair.encode("delta-int8")
    reader, span = pair.open("delta-int8"), pair.base.tensors["x"].span
    for block in (199, 0, 63, 64, 65, 127, 128, 3):
        place = block * BLOCK
        assert part(reader, span, place, place + 1) == update[place]


def test_what_is_kept_of_unfinished_blocks_is_bounded() -> None:
    kept, content = Unfinished(), bytes(2**20)
    tracemalloc.start()
    try:
        for place in range(100):
            kept.keep((place, "x"), place, content[:-1] + b"\1")
        assert tracemalloc.get_traced_memory()[0] < KEPT_BYTES + 2**20
    finally:
        tracemalloc.stop()
    assert kept.take((0, "x"), 0) is None
    assert kept.take((99, "x"), 99) is not None
    assert kept.take((99, "x"), 99) is None
    # Another block of the tensor than the one that is asked for is of no use any more.
    assert kept.take((98, "x"), 97) is None
    assert kept.take((98, "x"), 98) is None


@pytest.mark.parametrize("encoding", BLOCKED)
def test_opening_and_reading_take_little_memory(encoding: str, tmp_path: Path) -> None:
    pair = Pair(tmp_path, {"x": normal(300 * BLOCK)})
    pair.encode(encoding)
    span, scratch = pair.base.tensors["x"].span, Scratch()
    out = np.empty(span.elements, np.float32)
    tracemalloc.start()
    try:
        reader = pair.open(encoding)
        reader.read(span, 0, span.elements, out, scratch)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
