"""Reading ahead gives the bytes that are there, within its budget, however they are asked for."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldfusion_shared.errors import MalformedWeights, StorageUnavailable
from coldfusion_shared.weights.windows import (
    MAX_WINDOW_BYTES,
    MIB,
    MIN_WINDOW_BYTES,
    WINDOWS,
    ReadAhead,
    WindowedSource,
)

RAW = random.Random(0).randbytes(3 * MIB + 123)


class Far:
    """Bytes that are far away, and what was asked of them."""

    def __init__(self, raw: bytes = RAW, seconds: float = 0.0) -> None:
        self.raw, self.seconds = raw, seconds
        self.asked: list[tuple[int, int]] = []
        self.failures = 0
        self.lock = Lock()

    def __call__(self, start: int, stop: int) -> bytes:
        with self.lock:
            self.asked.append((start, stop))
            failing = self.failures > 0
            self.failures -= failing
        time.sleep(self.seconds)
        if failing:
            raise StorageUnavailable("The store is away.")
        return self.raw[start:stop]


@pytest.fixture
def ahead() -> Iterator[ReadAhead]:
    opened = ReadAhead()
    yield opened
    opened.close()


def read(source: WindowedSource, start: int, stop: int) -> bytes:
    buffer = bytearray(stop - start)
    source.read_into(start, memoryview(buffer))
    return bytes(buffer)


@given(
    spans=st.lists(st.tuples(st.integers(0, len(RAW)), st.integers(0, len(RAW))), max_size=8),
    size=st.sampled_from([len(RAW), MIN_WINDOW_BYTES, MIN_WINDOW_BYTES + 1, 1000, 1]),
)
def test_any_range_is_what_is_there(spans: list[tuple[int, int]], size: int) -> None:
    ahead = ReadAhead(budget_bytes=2 * MIB, threads=2)
    source = ahead.open(Far(RAW[:size]), size)
    for first, second in spans:
        start, stop = sorted((min(first, size), min(second, size)))
        assert read(source, start, stop) == RAW[start:stop]
    source.close()
    ahead.close()


def test_many_threads_may_read_one_source(ahead: ReadAhead) -> None:
    source = ahead.open(Far(), len(RAW))
    rng = random.Random(1)
    spans = [sorted((rng.randrange(len(RAW)), rng.randrange(len(RAW)))) for _ in range(200)]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda span: read(source, *span), spans))
    assert got == [RAW[start:stop] for start, stop in spans]


def test_what_comes_next_is_fetched_before_it_is_asked_for(ahead: ReadAhead) -> None:
    far = Far()
    ahead.observe(1e-6)  # a store so near that windows are small
    source = ahead.open(far, len(RAW))
    read(source, 0, 8)
    assert far.asked == [(0, MIN_WINDOW_BYTES)]
    read(source, MIN_WINDOW_BYTES, MIN_WINDOW_BYTES + 8)
    until = time.monotonic() + 120
    while len(far.asked) < 3 and time.monotonic() < until:
        time.sleep(0.01)
    _, asked, ahead_of_it = sorted(far.asked)
    assert asked[1] == ahead_of_it[0]


def test_a_source_read_in_order_is_fetched_once(ahead: ReadAhead) -> None:
    far = Far()
    source = ahead.open(far, len(RAW))
    for start in range(0, len(RAW), 100_000):
        read(source, start, min(start + 100_000, len(RAW)))
    asked = sorted(far.asked)
    assert sum(stop - start for start, stop in asked) == len(RAW)
    assert all(left[1] == right[0] for left, right in zip(asked, asked[1:], strict=False))


def test_a_fetch_that_failed_is_tried_anew_by_the_next_reader(ahead: ReadAhead) -> None:
    far = Far()
    source = ahead.open(far, len(RAW))
    far.failures = 1
    with pytest.raises(StorageUnavailable):
        read(source, 0, 8)
    assert read(source, 0, 8) == RAW[:8]


def test_fewer_bytes_than_asked_for_are_an_error(ahead: ReadAhead) -> None:
    source = ahead.open(Far(RAW[:-1]), len(RAW))
    with pytest.raises(MalformedWeights):
        read(source, len(RAW) - 10, len(RAW))
    with pytest.raises(MalformedWeights):
        read(source, len(RAW) - 10, len(RAW) + 1)


def test_windows_grow_with_the_latency_and_shrink_with_what_is_open() -> None:
    def window(seconds: float, opened: int, budget: int = 192 * MIB) -> int:
        ahead = ReadAhead(budget)
        sources = [ahead.open(Far(), len(RAW)) for _ in range(opened)]
        ahead.observe(seconds)
        ahead.close()
        assert len(sources) == opened
        return ahead.window_bytes()

    near, far = window(0.001, 4), window(0.1, 4)
    assert MIN_WINDOW_BYTES < near < far == MAX_WINDOW_BYTES
    for opened in (1, 8, 64):
        assert opened * WINDOWS * window(0.1, opened) <= 192 * MIB
    # The headers of very many sources still have to fit into one window each.
    assert window(0.1, 1000, budget=MIB) == MIN_WINDOW_BYTES


def test_a_closed_source_gives_its_share_back(ahead: ReadAhead) -> None:
    sources = [ahead.open(Far(), len(RAW)) for _ in range(64)]
    ahead.observe(1.0)
    small = ahead.window_bytes()
    for source in sources[:32]:
        source.close()
        source.close()
    half = ahead.window_bytes()
    assert half > small
    # Forgotten ones count no more than closed ones.
    del source, sources
    gc.collect()
    assert ahead.window_bytes() > half
