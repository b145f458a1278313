"""Xorbs and shards: what the real client has sent, anything that could be one, and lies."""

from __future__ import annotations

import hashlib
import struct
from contextlib import suppress
from pathlib import Path

import lz4.frame
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldfusion_server.xet import shard as shards
from coldfusion_server.xet import xorb as xorbs
from coldfusion_server.xet.shard import ShardFile, ShardReader, read_shard
from coldfusion_server.xet.xorb import Index, Walker, decode
from coldfusion_shared.errors import InvalidRequest, TooLarge
from tests.hub.xets import END, GROUPED, HEADER, LZ4, RAW, File, header, piece, shard, xorb_name

CAPTURED = Path(__file__).parent / "captured"
# What hf_xet 1.8.0 was given, in one push.
FLOATS = (np.arange(300, dtype=np.float32) * 0.001).tobytes()
TEXT = b'{"a": 1}' * 40
NAME = xorb_name("one")


def walked(raw: bytes, step: int = 2**20) -> tuple[bytes, Index]:
    """Return what is kept of a xorb that arrives in bits of `step` bytes, and its index."""
    walker = Walker()
    kept = b"".join(walker.feed(raw[at : at + step]) for at in range(0, len(raw), step))
    return kept, walker.finish()


def unpacked(raw: bytes, index: Index) -> list[bytes]:
    """Return what each piece of a xorb becomes."""
    view = memoryview(raw)
    return [
        decode(view[index.starts_at(number) : index.ends[number]])
        for number in range(len(index.ends))
    ]


def test_what_the_real_client_sends_is_read() -> None:
    raw = (CAPTURED / "hf_xet-1.8.0.xorb").read_bytes()
    kept, index = walked(raw)
    assert kept == raw
    assert {raw[index.starts_at(number) + 4] for number in range(2)} == {LZ4, GROUPED}
    assert unpacked(kept, index) == [TEXT, FLOATS]

    files = read_shard((CAPTURED / "hf_xet-1.8.0.shard").read_bytes())
    assert {file.sha256: file.size for file in files} == {
        hashlib.sha256(FLOATS).hexdigest(): len(FLOATS),
        hashlib.sha256(TEXT).hexdigest(): len(TEXT),
    }
    ranges = [(part.first, part.past) for file in files for part in file.segments]
    assert ranges == [(1, 2), (0, 1)]
    # The very hash that the client had put into the xorb's address.
    address = "8dc3380c63748710d5999b35499abb370efdb984af3164c0a8863cbf46d32e74"
    assert {part.xorb for file in files for part in file.segments} == {address}


PIECES = st.lists(
    st.tuples(
        st.one_of(
            st.binary(min_size=1, max_size=200),
            st.binary(min_size=1, max_size=9).map(lambda data: data * 100),
        ),
        st.sampled_from([RAW, LZ4, GROUPED]),
    ),
    min_size=1,
    max_size=12,
)


@given(pieces=PIECES, step=st.integers(1, 300), has_footer=st.booleans())
def test_any_xorb_comes_back_however_it_arrives(
    pieces: list[tuple[bytes, int]], step: int, has_footer: bool
) -> None:
    raw = b"".join(piece(data, kind) for data, kind in pieces)
    footer = b"XETBLOB" + b"\0" * 40
    footer += len(footer).to_bytes(4, "little")
    kept, index = walked(raw + footer * has_footer, step)
    assert kept == raw
    assert unpacked(kept, index) == [data for data, _ in pieces]
    assert index.size(0, len(pieces)) == sum(len(data) for data, _ in pieces)
    assert unpacked(kept, Index.from_bytes(index.to_bytes())) == [data for data, _ in pieces]


@given(raw=st.binary(max_size=200), step=st.integers(1, 50))
def test_any_bytes_are_a_xorb_or_refused(raw: bytes, step: int) -> None:
    try:
        kept, index = walked(raw, step)
    except InvalidRequest:
        return
    assert raw.startswith(kept) and index.stored == len(kept)


@given(data=st.binary(min_size=1, max_size=500), at=st.integers(0), bits=st.integers(1, 255))
def test_a_changed_piece_is_read_or_refused_and_never_longer(
    data: bytes, at: int, bits: int
) -> None:
    raw = bytearray(piece(data * 3, LZ4))
    raw[at % len(raw)] ^= bits
    with suppress(InvalidRequest):
        assert len(decode(memoryview(raw))) <= xorbs.MAX_PIECE_BYTES


BOMB = lz4.frame.compress(bytes(2**24))
LIES = {
    "a version that nobody knows": header(4, RAW, 4, version=1) + b"abcd",
    "a kind that nobody knows": header(4, 3, 4) + b"abcd",
    "nothing in it": header(0, RAW, 0),
    "nothing comes of it": header(4, LZ4, 0) + b"abcd",
    "two lengths of what is not compressed": header(3, RAW, 4) + b"abc",
    "larger than it becomes": header(5, LZ4, 4) + b"abcde",
    "more than a piece may become": header(4, LZ4, 2**17 + 1) + b"abcd",
}
BAD_FRAMES = {
    "no frame": header(4, LZ4, 4) + b"abcd",
    "becomes 16 MiB": header(len(BOMB), LZ4, 2**17) + BOMB,
    "becomes less": header(len(BOMB[:300]), LZ4, 2**17) + BOMB[:300],
    "becomes more by one": (raw := piece(b"abc" * 50, LZ4))[:5] + b"\x95\0\0" + raw[8:],
    "becomes less by one": raw[:5] + b"\x97\0\0" + raw[8:],
    "has more behind": header(len(raw) - 7, LZ4, 150) + raw[8:] + b"x",
    "is cut": header(len(raw) - 9, LZ4, 150) + raw[8:-1],
    "is shorter than it says": raw[:-1],
}


@pytest.mark.parametrize("raw", LIES.values(), ids=LIES)
def test_headers_that_lie_are_refused_before_the_piece_is_read(raw: bytes) -> None:
    with pytest.raises(InvalidRequest):
        Walker().feed(raw[:8])


@pytest.mark.parametrize("raw", BAD_FRAMES.values(), ids=BAD_FRAMES)
def test_pieces_that_become_something_else_are_refused(raw: bytes) -> None:
    with pytest.raises(InvalidRequest):
        decode(memoryview(raw))


GOOD = piece(b"abc" * 50, LZ4)


@pytest.mark.parametrize("raw", [b"", GOOD[:5], GOOD[:-1], GOOD + GOOD[:9], GOOD + b"XETBLOB1junk"])
def test_xorbs_that_are_cut_are_refused(raw: bytes) -> None:
    with pytest.raises(InvalidRequest):
        walked(raw)


def test_a_xorb_has_so_many_pieces_and_bytes() -> None:
    walker = Walker()
    walker.feed(piece(b"x") * xorbs.MAX_PIECES)
    with pytest.raises(TooLarge):
        walker.feed(piece(b"x"))
    walker = Walker()
    largest = header(2**17, RAW, 2**17)
    for _ in range(512):
        walker.feed(largest)
        walker.feed(bytes(2**17))
    with pytest.raises(TooLarge):
        walker.feed(largest)
    with pytest.raises(TooLarge):
        Walker().feed(GOOD + b"XETBLOB" + bytes(xorbs.MAX_FOOTER_BYTES))


FILES = st.lists(
    st.builds(
        File,
        st.lists(
            st.tuples(
                st.integers(0, 2**256 - 1).map(lambda number: f"{number:064x}"),
                st.integers(0, 99),
                st.integers(100, 200),
                st.integers(200, 2**17),
            ),
            max_size=5,
        ),
        st.none() | st.binary(min_size=32, max_size=32).map(bytes.hex),
        st.booleans(),
    ),
    max_size=5,
)


@given(files=FILES, step=st.integers(1, 500), has_xorbs=st.booleans())
def test_any_shard_is_read_however_it_arrives(
    files: list[File], step: int, has_xorbs: bool
) -> None:
    xorb = b"\3" * 32 + struct.pack("<IIII", 0, 2, 10, 10) + b"\4" * 96
    raw = shard(files, (xorb + END if has_xorbs else END) + b"tables of older clients")
    reader = ShardReader()
    for at in range(0, len(raw), step):
        reader.feed(raw[at : at + step])
    read = [
        (file.sha256, [(part.xorb, part.first, part.past, part.size) for part in file.segments])
        for file in reader.finish()
    ]
    assert read == [(file.sha256, file.ranges) for file in files]


@given(raw=st.binary(max_size=300))
def test_any_bytes_are_a_shard_or_refused(raw: bytes) -> None:
    for content in (raw, shard([File([(NAME, 0, 1, 9)])])[:64] + raw):
        with suppress(InvalidRequest, TooLarge):
            assert all(isinstance(file, ShardFile) for file in read_shard(content))


@pytest.mark.parametrize(
    "part", [(0, 0, 9), (2, 1, 9), (0, 8193, 9000), (0, 1, 0), (0, 1, 2**17 + 1), (0, 9, 8)]
)
def test_ranges_that_cannot_be_are_refused(part: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidRequest):
        read_shard(shard([File([(NAME, *part)])]))


def test_shards_that_are_cut_or_of_another_kind_are_refused() -> None:
    whole = shard([File([(NAME, 0, 1, 9)], sha256=NAME)])
    assert len(read_shard(whole)) == 1
    for end in range(0, len(whole), 24):
        with pytest.raises(InvalidRequest):
            read_shard(whole[:end])
    for raw in (
        b"x" + whole[1:],
        HEADER + struct.pack("<QQ", 3, 0) + whole[48:],
        shard([File([(NAME, 0, 1, 9)], flags=1)]),
    ):
        with pytest.raises(InvalidRequest):
            read_shard(raw)


def test_a_shard_names_so_much() -> None:
    with pytest.raises(TooLarge):
        read_shard(shard([File()] * (shards.MAX_FILES + 1)))
    promise = b"\1" * 32 + struct.pack("<IIQ", 0, shards.MAX_SEGMENTS + 1, 0)
    with pytest.raises(TooLarge):
        ShardReader().feed(shard([])[:48] + promise)
