"""Files that are not what their encoding says: told when opened, or at the block that is wrong."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from coldfusion_shared.errors import (
    BadWeights,
    IncompatibleWeights,
    MalformedWeights,
    UndecodableUpdate,
)
from coldfusion_shared.weights.checkpoint import FileSource
from coldfusion_shared.weights.codecs import open_update
from coldfusion_shared.weights.codecs.frames import compress, max_frame
from tests.shared.checkpoints import BFLOAT16, Array, Tensors, file_bytes, raw_file, read_file
from tests.shared.weights.codecs.encoded import ALL, BLOCK, BLOCKED, Pair, normal, whole

SIZE = 2 * BLOCK + 100


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path, {"x": normal(SIZE), "ids": np.arange(4)})


def tampered(pair: Pair, encoding: str, **tensors: Array | None) -> None:
    """Encode, then write the file anew with other `tensors`, or without those that are null."""
    pair.encode(encoding)
    path = pair.file(encoding)
    found = read_file(path.read_bytes()) | {
        name.replace("__", ":").replace("_", "-"): values for name, values in tensors.items()
    }
    path.write_bytes(file_bytes({n: v for n, v in found.items() if v is not None}))


def index_of(pair: Pair, encoding: str) -> Array:
    pair.encode(encoding)
    return read_file(pair.file(encoding).read_bytes())["index:x"].copy()


def refused(
    pair: Pair, encoding: str, match: str, kind: type[BadWeights] = MalformedWeights
) -> BadWeights:
    with pytest.raises(kind, match=match) as error:
        pair.open(encoding)
    return error.value


@pytest.mark.parametrize("encoding", ALL)
def test_tensors_that_the_base_does_not_have(encoding: str, pair: Pair) -> None:
    tampered(pair, encoding, y=normal(3))
    error = refused(pair, encoding, "do not fit the base: 1 not in .*y", IncompatibleWeights)
    assert error.tensors == ("y",)


@pytest.mark.parametrize("encoding", ["delta", *BLOCKED])
def test_tensors_that_are_no_floats_are_never_in_it(encoding: str, pair: Pair) -> None:
    tampered(pair, encoding, ids=np.arange(4))
    assert refused(pair, encoding, "ids", IncompatibleWeights).tensors == ("ids",)


def test_of_whole_weights_they_are_ignored(pair: Pair) -> None:
    tampered(pair, "full", ids=np.arange(4))
    assert list(pair.open("full").names) == ["x"]


@pytest.mark.parametrize("encoding", BLOCKED)
def test_another_encodings_tensors(encoding: str, pair: Pair) -> None:
    other = next(name for name in BLOCKED if name != encoding)
    pair.encode(other)
    refused(pair, encoding, f"1 not in the base or not {encoding} .{other}:x", IncompatibleWeights)
    pair.encode("delta")
    refused(pair, encoding, "not in the base", IncompatibleWeights)


@pytest.mark.parametrize("missing", ["index", "data"])
@pytest.mark.parametrize("encoding", BLOCKED)
def test_a_companion_is_missing(encoding: str, missing: str, pair: Pair) -> None:
    pair.encode(encoding)
    name = "index:x" if missing == "index" else f"{encoding}:x"
    tampered(pair, encoding, **{name.replace(":", "__").replace("-", "_"): None})
    refused(pair, encoding, "1 without a companion .x.")


@pytest.mark.parametrize("encoding", BLOCKED)
@pytest.mark.parametrize(
    "change",
    [
        lambda index: index.astype(np.uint32),
        lambda index: index[:-1],
        lambda index: np.append(index, index[:1]),
        lambda index: index.reshape(1, -1),
        lambda index: np.zeros(0, np.uint16),
    ],
)
def test_an_index_of_another_form(
    encoding: str, change: Callable[[Array], Array], pair: Pair
) -> None:
    tampered(pair, encoding, index__x=change(index_of(pair, encoding)))
    refused(pair, encoding, "another dtype or number of blocks .index:x.")


def test_frames_of_another_form(pair: Pair) -> None:
    pair.encode("delta-int8")
    data = read_file(pair.file("delta-int8").read_bytes())["delta-int8:x"]
    for other in (data.view(np.int8), data.reshape(1, -1)):
        tampered(pair, "delta-int8", delta_int8__x=other)
        refused(pair, "delta-int8", "another dtype or number of blocks .delta-int8:x.")


@pytest.mark.parametrize("encoding", BLOCKED)
@pytest.mark.parametrize("moved", [(1, 0), (-1, 0), (2**15, 2**15), (0, -(2**16) + 1)])
def test_an_index_that_does_not_fit_the_data(
    encoding: str, moved: tuple[int, int], pair: Pair
) -> None:
    index = index_of(pair, encoding).astype(np.int64)
    index[:2] += moved
    tampered(pair, encoding, index__x=(index % 2**16).astype(np.uint16))
    assert refused(pair, encoding, "index that does not fit").tensors == ("x",)


@pytest.mark.parametrize("encoding", BLOCKED)
def test_frames_longer_than_their_content_can_be(encoding: str, pair: Pair) -> None:
    index = np.array([60_000, 60_000, 60_000], np.uint16)
    data = np.zeros(180_000, np.uint8)
    name = f"{encoding}__x".replace("-", "_")
    changes: dict[str, Array | None] = {"index__x": index, name: data}
    tampered(pair, encoding, **changes)
    refused(pair, encoding, "index that does not fit")


@pytest.mark.parametrize("empty", [0, 1, 2])
def test_a_frame_without_bytes(empty: int, pair: Pair) -> None:
    index = index_of(pair, "delta-int8")
    index[(empty + 1) % 3] += index[empty]
    index[empty] = 0
    tampered(pair, "delta-int8", index__x=index)
    refused(pair, "delta-int8", "index that does not fit")


@pytest.mark.parametrize("encoding", ["delta", "full"])
def test_another_dtype_or_shape(encoding: str, pair: Pair) -> None:
    for other in (normal(SIZE).astype(np.float16), normal(SIZE, 1), normal(SIZE - 1)):
        other = other.astype(BFLOAT16) if encoding == "delta" and other.itemsize > 2 else other
        tampered(pair, encoding, x=other)
        match = "1 of another (dtype or shape|shape or dtype) .x."
        refused(pair, encoding, match, IncompatibleWeights)


@pytest.mark.parametrize("encoding", ALL)
def test_other_files(encoding: str, pair: Pair) -> None:
    pair.encode(encoding)
    source = FileSource(pair.file(encoding))
    for files in (
        {},
        {"other.safetensors": source},
        {pair.file(encoding).name: source, "b": source},
    ):
        with pytest.raises(MalformedWeights, match="consists of"):
            open_update(encoding, files, pair.base.tensors)


@pytest.mark.parametrize("encoding", ALL)
def test_a_file_that_is_cut_or_no_safetensors(encoding: str, pair: Pair) -> None:
    pair.encode(encoding)
    path = pair.file(encoding)
    raw = path.read_bytes()
    for bad in (raw[:-1], raw + b"\0", raw[:100], b"", raw_file("[]"), b"PK\x03\x04" + raw):
        path.write_bytes(bad)
        with pytest.raises(MalformedWeights):
            pair.open(encoding)


BITS = BLOCK // 8


def contents(encoding: str) -> bytes:
    """Return a sound content of a block of one row."""
    scale = np.float32(1e-3).tobytes()
    if encoding == "delta-int8":
        return scale + b"\x05" * BLOCK
    if encoding == "delta-sign":
        return scale + b"\xaa" * BITS
    return scale + b"\x80" * BITS + b"\x05" * BITS


def with_frame(pair: Pair, encoding: str, frame: bytes) -> None:
    """Write a file whose second block, of three, is `frame`."""
    frames: list[bytes] = []
    pair.encode(encoding)
    tensors = read_file(pair.file(encoding).read_bytes())
    data, offset = tensors[f"{encoding}:x"].tobytes(), 0
    for length in tensors["index:x"].tolist():
        frames.append(data[offset : offset + length])
        offset += length
    frames[1] = frame
    changed: Tensors = {
        "index:x": np.array([len(found) for found in frames], np.uint16),
        f"{encoding}:x": np.frombuffer(b"".join(frames), np.uint8),
    }
    pair.file(encoding).write_bytes(file_bytes(changed))


def bad_block(pair: Pair, encoding: str, frame: bytes, match: str) -> None:
    with_frame(pair, encoding, frame)
    reader, span = pair.open(encoding), pair.base.tensors["x"].span
    with pytest.raises(UndecodableUpdate, match=f"Block 1 of tensor 'x' .*{match}") as error:
        whole(reader, span)
    assert error.value.tensors == ("x",)
    assert error.value.hint


@pytest.mark.parametrize("encoding", BLOCKED)
def test_a_sound_frame_of_anyones_making_is_read(encoding: str, pair: Pair) -> None:
    content = contents(encoding)
    for level, checksum in ((1, False), (19, True)):
        frame = zstandard.ZstdCompressor(level=level, write_checksum=checksum).compress(content)
        with_frame(pair, encoding, frame)
        decoded = whole(pair.open(encoding), pair.base.tensors["x"].span)
        assert np.abs(decoded[BLOCK : 2 * BLOCK]).max() > 0


def frame_header(size: int) -> bytes:
    """Return the header of a frame in one segment that claims a content of `size` bytes."""
    return b"\x28\xb5\x2f\xfd\xe0" + size.to_bytes(8, "little")


def run_length_bomb(size: int, repeated: int) -> bytes:
    """Return a frame that claims `size` bytes and holds `repeated` times 128 KiB of one byte."""
    # A block's header: last or not, 1 for a run, and how long it is.
    block = ((2**17 << 3) | (1 << 1)).to_bytes(3, "little") + b"\0"
    last = ((2**17 << 3) | (1 << 1) | 1).to_bytes(3, "little") + b"\0"
    return frame_header(size) + block * (repeated - 1) + last


@pytest.mark.parametrize("encoding", BLOCKED)
@pytest.mark.parametrize("claims", [2**17, 2**30, 2**40, 2**62, 2**64 - 1, 2**64 - 2])
def test_a_bomb_that_claims_what_it_holds(encoding: str, claims: int, pair: Pair) -> None:
    tracemalloc.start()
    try:
        bad_block(pair, encoding, run_length_bomb(claims, 400), "claims a content of")
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("encoding", BLOCKED)
def test_a_bomb_that_claims_little(encoding: str, pair: Pair) -> None:
    size = len(contents(encoding))
    bad_block(pair, encoding, run_length_bomb(size, 400), "is not one zstd frame")


@pytest.mark.parametrize("encoding", BLOCKED)
def test_contents_of_another_size(encoding: str, pair: Pair) -> None:
    content = contents(encoding)
    for other in (b"", b"\0", content[: len(content) // 3], content + b"\0" * 2**15):
        bad_block(pair, encoding, compress([other]), "claims a content of")


@pytest.mark.parametrize("encoding", BLOCKED)
def test_frames_that_are_none(encoding: str, pair: Pair) -> None:
    frame = compress([contents(encoding)])
    broken = zstandard.ZstdCompressor(write_checksum=True).compress(contents(encoding))
    swapped = broken[:-1] + bytes([broken[-1] ^ 1])
    skipped = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"abcd"
    whole_sized = len(contents(encoding))
    skipped_as_large = b"\x50\x2a\x4d\x18" + whole_sized.to_bytes(4, "little") + b"abcd"
    for bad in (
        frame[:-1],
        frame[:9],
        frame + b"\0",
        frame + frame,
        frame + skipped,
        skipped + frame,
        skipped_as_large,
        swapped,
        b"\0" * 50,
        b"x",
    ):
        bad_block(pair, encoding, bad, "")


@pytest.mark.parametrize("encoding", BLOCKED)
def test_frames_of_unknown_size_and_with_wide_windows(encoding: str, pair: Pair) -> None:
    content = contents(encoding)
    unknown = zstandard.ZstdCompressor(write_content_size=False).compress(content)
    bad_block(pair, encoding, unknown, "claims a content of unknown size")
    # A frame in segments, of a known size, with a window of 2^27 bytes: two bytes of size.
    size = len(content)
    assert 256 <= size < 65_536 + 256
    body = ((size << 3) | (1 << 1) | 1).to_bytes(3, "little") + b"\0"
    header = b"\x28\xb5\x2f\xfd\x40" + bytes([17 << 3]) + (size - 256).to_bytes(2, "little")
    bad_block(pair, encoding, header + body, "asks for a window of 134217728 bytes")


@pytest.mark.parametrize("encoding", BLOCKED)
def test_a_frame_that_needs_a_dictionary(encoding: str, pair: Pair) -> None:
    content = contents(encoding)
    samples: list[bytes | bytearray | memoryview[int]] = [
        bytes([n, n + 1] * 200) for n in range(250)
    ]
    dictionary = zstandard.train_dictionary(2000, samples)
    frame = zstandard.ZstdCompressor(dict_data=dictionary).compress(content)
    bad_block(pair, encoding, frame, "needs a dictionary")


@pytest.mark.parametrize("scale", [np.nan, np.inf, -np.inf, -1e-3])
@pytest.mark.parametrize("encoding", BLOCKED)
def test_scales_that_are_none(encoding: str, scale: float, pair: Pair) -> None:
    content = np.float32(scale).tobytes() + contents(encoding)[4:]
    bad_block(pair, encoding, compress([content]), "scale that is negative or not finite")


def test_values_beyond_their_scale(pair: Pair) -> None:
    for encoding in ("delta-int8", "delta-sparse"):
        content = np.float32(3.4e38).tobytes() + contents(encoding)[4:-1] + b"\x80"
        bad_block(pair, encoding, compress([content]), "-128")


def test_more_or_fewer_values_than_bits(pair: Pair) -> None:
    content = contents("delta-sparse")
    for other in (content[:-1], content + b"\x05"):
        bad_block(pair, "delta-sparse", compress([other]), "more or fewer values")


@pytest.mark.parametrize("encoding", ["delta-sign", "delta-sparse"])
def test_bits_beyond_the_last_value(encoding: str, tmp_path: Path) -> None:
    pair = Pair(tmp_path, {"x": normal(BLOCK), "y": normal(9)})
    pair.encode(encoding)
    tensors = read_file(pair.file(encoding).read_bytes())
    content = np.float32(1).tobytes() + b"\x00\x01" + b"\x05" * (encoding == "delta-sparse")
    frame = compress([content])
    tensors |= {
        "index:y": np.array([len(frame)], np.uint16),
        f"{encoding}:y": np.frombuffer(frame, np.uint8),
    }
    pair.file(encoding).write_bytes(file_bytes(tensors))
    with pytest.raises(UndecodableUpdate, match="Block 0 of tensor 'y' has bits beyond"):
        whole(pair.open(encoding), pair.base.tensors["y"].span)


def test_no_frame_is_longer_than_said() -> None:
    rng = np.random.default_rng(0)
    for size in (1, 2, 100, 1000, BLOCK + 260, 2 * BLOCK + 2300):
        content = rng.bytes(size)
        assert len(compress([content])) <= max_frame(size)
        assert len(compress([content[: size // 2], content[size // 2 :]])) <= max_frame(size)
    assert max_frame(BLOCK + 2**11 + 4 * 66) < 2**16


@settings(deadline=None, max_examples=150)
@given(
    data=st.data(),
    encoding=st.sampled_from(ALL),
)
def test_whatever_is_changed_is_refused_or_read_finite_or_found_by_screening(
    data: st.DataObject, encoding: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    pair = Pair(tmp_path_factory.mktemp("fuzz"), {"x": normal(3, 6000)})
    pair.encode(encoding)
    raw = bytearray(pair.file(encoding).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        # Half of them in the header and the index, where little changes much.
        last = data.draw(st.sampled_from([200, len(raw) - 1]))
        raw[data.draw(st.integers(0, last))] = data.draw(st.integers(0, 255))
    pair.file(encoding).write_bytes(raw)
    try:
        # As all do that read updates: what is not finite is for them to find.
        with np.errstate(over="ignore", invalid="ignore"):
            decoded = whole(pair.open(encoding), pair.base.tensors["x"].span)
    except BadWeights:
        return
    # Plain tensors come as they are, and so do NaN and infinity; the others cannot have any.
    assert encoding in ("delta", "full") or np.isfinite(decoded).all()
