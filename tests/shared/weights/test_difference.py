"""A difference makes the new file of the old one, exactly, or says why it does not."""

from __future__ import annotations

import hashlib
import struct
import tracemalloc
from dataclasses import replace
from functools import cache
from io import BytesIO
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from coldfusion_shared.errors import DigestMismatch, MalformedWeights
from coldfusion_shared.fusion.executor import threads
from coldfusion_shared.weights.checkpoint import CHUNK_ELEMENTS
from coldfusion_shared.weights.differences.apply import apply_difference
from coldfusion_shared.weights.differences.container import (
    HEAD_BYTES,
    MAX_BLOCK_BYTES,
    PREAMBLE_BYTES,
    Head,
    Kind,
    Pair,
)
from coldfusion_shared.weights.differences.write import write_difference
from tests.shared.checkpoints import BFLOAT16, DTYPE_NAMES, Array, file_bytes

FLOATS = [np.dtype(kind) for kind in (np.float64, np.float32, np.float16, ml_dtypes.bfloat16)]
MIB = 2**20


class Held:
    """A source of bytes in memory."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    @property
    def size(self) -> int:
        return len(self.raw)

    def read_into(self, start: int, buffer: memoryview) -> None:
        if start + len(buffer) > len(self.raw):
            raise MalformedWeights("It ends before.")
        buffer[:] = self.raw[start : start + len(buffer)]

    def close(self) -> None:
        pass


class Trickle:
    """A difference that comes in small parts, as from a socket."""

    def __init__(self, raw: bytes) -> None:
        self.file = BytesIO(raw)

    def read(self, size: int, /) -> bytes:
        return self.file.read(min(size, 1000))


def pair_of(old: bytes, new: bytes) -> Pair:
    digests = [hashlib.sha256(raw).hexdigest() for raw in (old, new)]
    return Pair(len(old), digests[0], len(new), digests[1])


def write(old: bytes, new: bytes, count: int = 1) -> bytes:
    out = BytesIO()
    size = write_difference(Held(old), Held(new), pair_of(old, new), out.write, threads(count))
    assert size == len(out.getvalue())
    return out.getvalue()


def apply(old: bytes, difference: bytes, pair: Pair, count: int = 1) -> bytes:
    out = BytesIO()
    apply_difference(Held(old), BytesIO(difference), pair, out.write, threads(count))
    return out.getvalue()


def round_trip(old: bytes, new: bytes) -> bytes:
    difference = write(old, new)
    assert apply(old, difference, pair_of(old, new)) == new
    return difference


def weights(*shape: int, seed: int = 0) -> Array:
    return (np.random.default_rng(seed).standard_normal(shape) * 0.02).astype(np.float32)


def moved(values: Array, relative: float = 1e-2) -> Array:
    return values + np.float32(relative) * weights(*values.shape, seed=1)


def heads(difference: bytes) -> list[Head]:
    """Return the heads of a good difference."""
    found, place = [], PREAMBLE_BYTES
    while place < len(difference):
        kind, size, payload, start = struct.unpack_from("<BIIQ", difference, place)
        found.append(Head(Kind(kind), size, payload, start))
        place += HEAD_BYTES + payload
    return found


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_any_two_files(old: bytes, new: bytes) -> None:
    round_trip(old, new)


@given(st.binary(max_size=300), st.data())
def test_a_file_and_one_like_it(old: bytes, data: st.DataObject) -> None:
    cut, gone = data.draw(st.integers(0, len(old))), data.draw(st.integers(0, 20))
    round_trip(old, old[:cut] + data.draw(st.binary(max_size=20)) + old[cut + gone :])


@st.composite
def layouts(draw: st.DrawFn) -> dict[str, Array]:
    names = draw(st.lists(st.sampled_from("abcdef"), unique=True, max_size=5))
    return {name: draw(arrays()) for name in names}


@st.composite
def arrays(draw: st.DrawFn) -> Array:
    dtype = draw(st.sampled_from(list(DTYPE_NAMES)))
    shape = tuple(draw(st.lists(st.integers(0, 5), max_size=3)))
    size = int(np.prod(shape)) * dtype.itemsize
    return np.frombuffer(draw(st.binary(min_size=size, max_size=size)), dtype).reshape(shape)


@given(layouts(), layouts(), st.booleans())
def test_any_two_safetensors_files(
    old: dict[str, Array], new: dict[str, Array], told: bool
) -> None:
    round_trip(file_bytes(old, {"format": "pt"} if told else None), file_bytes(new))


@given(layouts(), st.data())
def test_any_bits_of_the_same_layout(old: dict[str, Array], data: st.DataObject) -> None:
    # NaNs of all kinds, infinities, subnormal numbers and zeros of both signs among them.
    raw = file_bytes(old)
    body = sum(values.nbytes for values in old.values())
    changed = data.draw(st.binary(min_size=body, max_size=body))
    round_trip(raw, raw[: len(raw) - body] + changed)


@pytest.mark.parametrize("dtype", [np.dtype(np.float16), BFLOAT16])
def test_each_value_to_each_other_of_a_few(dtype: np.dtype[Any]) -> None:
    every = np.arange(2**16, dtype=np.uint16).view(dtype)
    for shift in (0, 1, 2**15 - 1, 2**15, 2**16 - 1):
        round_trip(file_bytes({"w": every}), file_bytes({"w": np.roll(every, shift)}))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("elements", [1, 7, CHUNK_ELEMENTS - 1, CHUNK_ELEMENTS + 1])
def test_tensors_of_all_float_dtypes_and_sizes(dtype: np.dtype[Any], elements: int) -> None:
    old = weights(elements)
    round_trip(file_bytes({"w": old.astype(dtype)}), file_bytes({"w": moved(old).astype(dtype)}))


@pytest.mark.parametrize(
    ("dtype", "relative", "most"),
    [
        (np.float32, 1e-2, 0.64),
        (np.float32, 1e-3, 0.54),
        (ml_dtypes.bfloat16, 1e-2, 0.27),
        (ml_dtypes.bfloat16, 1e-3, 0.13),
    ],
)
def test_floats_that_moved_little_take_little(dtype: Any, relative: float, most: float) -> None:
    old = weights(3 * CHUNK_ELEMENTS)
    new = file_bytes({"w": moved(old, relative).astype(dtype)})
    difference = round_trip(file_bytes({"w": old.astype(dtype)}), new)
    assert len(difference) < most * len(new)


def test_what_did_not_change_takes_a_head_for_each_block() -> None:
    raw = file_bytes({"w": weights(3 * CHUNK_ELEMENTS), "ids": np.arange(5)})
    difference = round_trip(raw, raw)
    assert {head.kind for head in heads(difference)} == {Kind.COPY}
    assert len(difference) == PREAMBLE_BYTES + 5 * HEAD_BYTES


def test_a_tensor_is_found_where_it_lies_now() -> None:
    values, ids = weights(10_000), np.arange(7)
    old = file_bytes({"w": values, "ids": ids})
    new = file_bytes({"head": weights(1000, seed=2), "ids": ids, "w": values})
    found = heads(round_trip(old, new))
    # The header is of another length, head.weight is new, and the two others were copied.
    assert [head.kind for head in found][-2:] == [Kind.COPY, Kind.COPY]
    assert [head.start for head in found][-2:] == [len(old) - ids.nbytes, len(old) - 40_056]


def test_noise_costs_no_more_than_heads() -> None:
    rng = np.random.default_rng(0)
    old, new = rng.bytes(MIB), rng.bytes(3 * MIB + 5)
    difference = round_trip(old, new)
    assert {head.kind for head in heads(difference)} == {Kind.RAW}
    assert len(difference) <= len(new) + PREAMBLE_BYTES + 8 * HEAD_BYTES


def test_what_is_simpler_than_its_difference_is_stored_by_itself() -> None:
    old, new = np.random.default_rng(0).bytes(MIB), bytes(MIB)
    difference = round_trip(old, new)
    assert {head.kind for head in heads(difference)} == {Kind.ZSTD}
    assert len(difference) < 1000


def test_threads_change_nothing() -> None:
    old = {"w": weights(700, 1000), "b": weights(700), "ids": np.arange(100)}
    new = {name: moved(array) if name != "ids" else array for name, array in old.items()}
    before, after = file_bytes(old), file_bytes(new)
    difference = write(before, after)
    assert write(before, after, count=3) == difference
    assert apply(before, difference, pair_of(before, after), count=3) == after


def test_a_difference_that_comes_in_small_parts() -> None:
    old, new = file_bytes({"w": weights(9000)}), file_bytes({"w": moved(weights(9000))})
    out, seen = BytesIO(), list[int]()
    source = Trickle(write(old, new))
    apply_difference(Held(old), source, pair_of(old, new), out.write, progress=seen.append)
    assert out.getvalue() == new
    assert sum(seen) == len(new)


@cache
def example() -> tuple[bytes, bytes, bytes]:
    """Return old, new, and their difference, with blocks of most kinds."""
    noise = np.random.default_rng(0)
    names = {"w": weights(40), "h": weights(90).astype(np.float16), "same": weights(60)}
    old = file_bytes({**names, "n": noise.integers(0, 256, 30, np.uint8)})
    after = {"w": moved(names["w"]), "h": moved(weights(90)).astype(np.float16)}
    after |= {"same": names["same"], "n": noise.integers(0, 256, 30, np.uint8)}
    new = file_bytes({**after, "zeros": np.zeros(80, np.float32)})
    return old, new, write(old, new)


def test_the_example_has_most_kinds() -> None:
    kinds = {head.kind for head in heads(example()[2])}
    assert kinds >= {Kind.COPY, Kind.RAW, Kind.ZSTD, Kind.F32}


def test_cut_off_anywhere() -> None:
    old, new, difference = example()
    for length in range(len(difference)):
        with pytest.raises(MalformedWeights) as error:
            apply(old, difference[:length], pair_of(old, new))
        assert error.value.hint


def test_altered_in_any_byte() -> None:
    old, new, difference = example()
    pair = pair_of(old, new)
    caught = 0
    for place in range(len(difference)):
        for flip in (0x01, 0x80, 0xFF):
            altered = bytearray(difference)
            altered[place] ^= flip
            try:
                # zstd has bits without a meaning; what comes through is right all the same.
                assert apply(old, bytes(altered), pair) == new
            except (MalformedWeights, DigestMismatch) as error:
                assert error.hint
                caught += 1
    assert caught > 2.9 * len(difference)


def test_goes_on_after_its_end() -> None:
    old, new, difference = example()
    with pytest.raises(MalformedWeights, match="goes on after its last block"):
        apply(old, difference + b"\0", pair_of(old, new))


def test_nothing_at_all_becomes_nothing() -> None:
    assert round_trip(b"", b"") == pair_of(b"", b"").preamble()


@given(st.binary(max_size=200))
def test_what_is_no_difference(raw: bytes) -> None:
    old, new, difference = example()
    for given_bytes in (raw, difference[:PREAMBLE_BYTES] + raw):
        with pytest.raises((MalformedWeights, DigestMismatch)):
            apply(old, given_bytes, pair_of(old, new))


def test_a_later_version() -> None:
    old, new, difference = example()
    with pytest.raises(MalformedWeights, match="is of version 2; only 1 is known"):
        apply(old, difference[:6] + b"\2\0" + difference[8:], pair_of(old, new))


def refused(old: bytes, difference: bytes, pair: Pair, match: str) -> None:
    with pytest.raises(DigestMismatch, match=match) as error:
        apply(old, difference, pair)
    assert error.value.hint


def test_the_wrong_old_file() -> None:
    old, new, difference = example()
    pair = pair_of(old, new)
    refused(old + b"\0", difference, pair, "The old file has 883 bytes; the .* from one of 882")
    place = old.index(weights(40).tobytes())
    other = old[:place] + bytes([old[place] ^ 1]) + old[place + 1 :]
    refused(other, difference, pair, "makes of the old file is not the new one")


def test_another_pair_than_the_one_asked_for() -> None:
    old, new, difference = example()
    pair = pair_of(old, new)
    refused(old, difference, replace(pair, old_sha256="0" * 64), "leads from .* not from 0000")
    refused(old, difference, replace(pair, new_sha256="0" * 64), "leads to .* not to 0000")
    refused(old, difference, replace(pair, new_size=7), r"not to .* \(7 bytes\)")


def test_files_that_are_not_the_pair_are_not_compared() -> None:
    old, new, _ = example()
    pair = pair_of(old, new)
    for wrong in (replace(pair, new_sha256="0" * 64), replace(pair, old_size=1)):
        with pytest.raises(DigestMismatch, match="not the ones that the difference is for"):
            write_difference(Held(old), Held(new), wrong, BytesIO().write)


def block(head: Head, payload: bytes) -> bytes:
    return head.pack() + payload


OLD = bytes(1000)
CLAIMED = Pair(1000, "0" * 64, 8 * MIB, "0" * 64)
BOMB = zstandard.ZstdCompressor().compress(bytes(64 * MIB))


@pytest.mark.parametrize(
    ("made", "match"),
    [
        (block(Head(Kind.ZSTD, MAX_BLOCK_BYTES, len(BOMB)), BOMB), "claims a content of 67108864"),
        (block(Head(Kind.ZSTD, 100, 10), b"no frame.."), "has a frame that is not one zstd frame"),
        (block(Head(Kind.RAW, 2 * MIB, 2 * MIB), b""), "claims to make 2097152 bytes where"),
        (block(Head(Kind.RAW, 0, 0), b""), "claims to make 0 bytes"),
        (block(Head(Kind.RAW, 5, 2**32 - 1), b""), "a payload of 4294967295 bytes to make 5"),
        (block(Head(Kind.ZSTD, 5, 5), b"12345"), "a payload of 5 bytes to make 5 as ZSTD"),
        (block(Head(Kind.ZSTD, 5, 0), b""), "a payload of 0 bytes"),
        (block(Head(Kind.COPY, 5, 5), b"12345"), "a payload of 5 bytes to make 5 as COPY"),
        (block(Head(Kind.COPY, 5, 0, 996), b""), "bytes from 996 on of an old file of 1000"),
        (block(Head(Kind.BYTES, 5, 3, 2**64 - 1), b"123"), "from 18446744073709551615 on"),
        (block(Head(Kind.RAW, 5, 5, 1), b"12345"), "bytes from 1 on"),
        (block(Head(Kind.F32, 6, 5), b"12345"), "makes 6 bytes, which are no whole F32"),
        (b"\x08" + Head(Kind.COPY, 5, 0).pack()[1:], "of a kind that is not known: 8"),
        (block(Head(Kind.RAW, 50, 50), b"1234"), "ends too early"),
        (b"", "Block 0 of the difference is missing"),
    ],
)
def test_a_block_that_cannot_be(made: bytes, match: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(MalformedWeights, match=match) as error:
            apply(OLD, CLAIMED.preamble() + made, CLAIMED)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * MIB
    assert str(error.value).startswith("Block 0 of the difference")


def test_a_frame_without_its_size_or_with_a_second_one() -> None:
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(100))
    twice = 2 * zstandard.ZstdCompressor().compress(bytes(100))
    for frame, match in ((unsized, "unknown size"), (twice, "not one zstd frame")):
        made = block(Head(Kind.ZSTD, 100, len(frame)), frame)
        with pytest.raises(MalformedWeights, match=match):
            apply(OLD, CLAIMED.preamble() + made, CLAIMED)


class Endless:
    """A large safetensors file that is computed where it is read."""

    def __init__(self, elements: int, relative: float) -> None:
        header = file_bytes({"w": np.empty(0, np.float32)})
        text = header.replace(b'"shape": [0]', b'"shape": [%d]' % elements)
        text = text.replace(b"[0, 0]", b"[0, %d]" % (4 * elements))[8:]
        self.head = len(text).to_bytes(8, "little") + text
        tile = weights(2**16)
        self.tile = (tile if not relative else moved(tile, relative)).tobytes()
        self.size = len(self.head) + 4 * elements

    def read_into(self, start: int, buffer: memoryview) -> None:
        if start + len(buffer) <= len(self.head):
            buffer[:] = self.head[start : start + len(buffer)]
            return
        place = (start - len(self.head)) % len(self.tile)
        for at in range(0, len(buffer), len(self.tile)):
            part = buffer[at : at + len(self.tile)]
            around = self.tile[place:] + self.tile[:place]
            part[:] = around[: len(part)]

    def close(self) -> None:
        pass

    def sha256(self) -> str:
        digest = hashlib.sha256(self.head)
        for _ in range((self.size - len(self.head)) // len(self.tile)):
            digest.update(self.tile)
        return digest.hexdigest()


def test_memory_does_not_grow_with_the_files() -> None:
    elements = 24 * MIB
    old, new = Endless(elements, 0), Endless(elements, 1e-2)
    pair = Pair(old.size, old.sha256(), new.size, new.sha256())
    spool = BytesIO()
    write_difference(old, new, pair, spool.write)
    difference = spool.getvalue()
    assert old.size > 90 * MIB
    for run in (
        lambda: write_difference(old, new, pair, len, threads(2)),
        lambda: apply_difference(old, BytesIO(difference), pair, len, threads(2)),
    ):
        tracemalloc.start()
        run()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 24 * MIB
