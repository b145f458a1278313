"""Encoded and decoded again: what the format says, no further off than it says, however cut."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from math import ceil, pi, sqrt
from pathlib import Path
from tempfile import TemporaryDirectory

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from coldfusion_shared.fusion.updates import Scratch
from coldfusion_shared.weights.codecs.blocks import Block
from coldfusion_shared.weights.codecs.delta_sparse import DeltaSparse
from coldfusion_shared.weights.codecs.encoding import WeightsEncoding
from tests.shared.checkpoints import BFLOAT16, Array, read_file
from tests.shared.weights.codecs.encoded import (
    ALL,
    BLOCK,
    BLOCKED,
    Floats,
    Pair,
    normal,
    part,
    read_by_the_format,
    row_of,
    whole,
)

SMALLEST = float(np.finfo(np.float32).smallest_subnormal)
LARGEST = float(np.finfo(np.float32).max)

SHAPES: dict[str, tuple[int, ...]] = {
    "two_blocks_and_a_bit": (55, 768),
    "convolution": (40, 30, 3, 3),
    "narrow": (5000, 4),
    "huge_rows": (2, 20_001),
    "vector": (17_000,),
    "scalar": (),
    "one": (1, 1),
    "no_rows": (0, 300),
    "whole_blocks": (2, BLOCK),
}


def update_of_all_shapes() -> dict[str, Array]:
    return {
        name: normal(*shape, scale=10.0**-place, seed=place)
        for place, (name, shape) in enumerate(SHAPES.items())
    }


@pytest.mark.parametrize("encoding", BLOCKED)
def test_a_file_is_what_the_format_says(encoding: str, tmp_path: Path) -> None:
    pair = Pair(tmp_path, update_of_all_shapes())
    decoded = pair.round_trip(encoding)
    by_format = read_by_the_format(encoding, pair.file(encoding).read_bytes(), SHAPES)
    for name in SHAPES:
        assert decoded[name].tobytes() == by_format[name].tobytes(), name


def test_delta_is_the_difference_in_bfloat16(tmp_path: Path) -> None:
    update = update_of_all_shapes()
    pair = Pair(tmp_path, update)
    decoded = pair.round_trip("delta")
    stored = read_file(pair.file("delta").read_bytes())
    assert set(stored) == {name for name, values in update.items() if values.size}
    for name, values in update.items():
        rounded = values.astype(BFLOAT16)
        assert np.array_equal(decoded[name], rounded.astype(np.float32))
        if values.size:
            assert np.array_equal(stored[name].view(np.uint16), rounded.view(np.uint16))


def test_full_is_exact_and_its_file_has_the_weights(tmp_path: Path) -> None:
    update = update_of_all_shapes()
    base = {name: normal(*values.shape, scale=0.1, seed=9) for name, values in update.items()}
    pair = Pair(tmp_path, update, base)
    decoded = pair.round_trip("full")
    for name, stored in read_file(pair.file("full").read_bytes()).items():
        assert np.array_equal(stored, base[name] + update[name])
        assert np.array_equal(decoded[name], stored - base[name])


def rows(values: Floats) -> list[Floats]:
    """Return the rows of all blocks, parts of rows among them, by the format's text."""
    row, flat = row_of(values.shape), values.reshape(-1)
    edges = {*range(0, flat.size, row), *range(0, flat.size, BLOCK), flat.size}
    ordered = sorted(edges)
    return [flat[a:b] for a, b in zip(ordered, ordered[1:], strict=False)]


def blocks(values: Floats) -> list[Floats]:
    flat = values.reshape(-1)
    return [flat[start : start + BLOCK] for start in range(0, flat.size, BLOCK)]


def test_int8_is_off_by_half_a_step_of_its_row(tmp_path: Path) -> None:
    update = update_of_all_shapes()
    decoded = Pair(tmp_path, update).round_trip("delta-int8")
    for name, values in update.items():
        for row, read in zip(rows(values), rows(decoded[name]), strict=True):
            largest = np.abs(row).max()
            assert np.abs(read.astype(float) - row).max() <= largest / 254 * (1 + 1e-4)
            assert np.abs(read).max() == largest


def test_sign_keeps_the_length_of_each_row_along_the_update(tmp_path: Path) -> None:
    update = update_of_all_shapes()
    decoded = Pair(tmp_path, update).round_trip("delta-sign")
    for name, values in update.items():
        for row, read in zip(rows(values.astype(float)), rows(decoded[name]), strict=True):
            sums = np.abs(row).sum()
            scale = min((row @ row) / sums, 2 * sums / row.size) if sums else 0.0
            # The sign of what is exactly zero is anybody's.
            wanted = np.where(row == 0, np.sign(read), np.sign(row)) * scale
            np.testing.assert_allclose(read, wanted, rtol=1e-6)
            np.testing.assert_allclose(np.abs(read), scale, rtol=1e-6)


def test_what_is_exactly_zero_pushes_no_way(tmp_path: Path) -> None:
    """As in a coarse dtype, where most of a small update rounds to nothing."""
    values = normal(64, 512)
    values[:, ::2] = 0
    decoded = Pair(tmp_path / "a", {"x": values}).round_trip("delta-sign")["x"]
    zeros, length = decoded[:, ::2], np.abs(decoded).mean()
    # 16,384 signs: a mean beyond 0.04 of the scale is 5 standard deviations away.
    assert abs(zeros.mean()) < 0.04 * length
    # Another contributor's are others, but for half of them.
    other = Pair(tmp_path / "b", {"x": -values}).round_trip("delta-sign")["x"]
    assert 0.4 < (np.sign(other[:, ::2]) == np.sign(zeros)).mean() < 0.6


def test_the_error_of_a_row_of_signs_is_never_longer_than_the_row(tmp_path: Path) -> None:
    outlier = np.full((1, 300), 1e-3, np.float32)
    outlier[0, 7] = 1.0
    update = {"x": np.concatenate([outlier, normal(3, 300)])}
    decoded = Pair(tmp_path, update).round_trip("delta-sign")["x"].astype(float)
    errors = np.linalg.norm(decoded - update["x"], axis=1)
    lengths = np.linalg.norm(update["x"].astype(float), axis=1)
    assert (errors <= lengths * (1 + 1e-6)).all()
    # What is normal is unbiased: its projection onto the update is the update.
    kept = (decoded * update["x"]).sum(axis=1) / lengths**2
    np.testing.assert_allclose(kept[1:], 1, rtol=1e-5)


@pytest.mark.parametrize("density", [0.01, 0.1, 0.5, 1.0])
def test_sparse_keeps_the_largest_and_nothing_else(density: float, tmp_path: Path) -> None:
    update = update_of_all_shapes()
    decoded = Pair(tmp_path, update).round_trip(DeltaSparse(density))
    for name, values in update.items():
        for block, read in zip(blocks(values), blocks(decoded[name]), strict=True):
            count = ceil(density * block.size)
            dropped = np.argsort(np.abs(block))[: block.size - count]
            kept = np.argsort(np.abs(block))[block.size - count :]
            assert not read[dropped].any()
            error = np.abs(read[kept].astype(float) - block[kept]).max()
            assert error <= np.abs(block).max() / 254 * (1 + 1e-4)


@settings(deadline=None, max_examples=100)
@given(
    # Few values, so that many are equal; and patterns that mislead a sample of every 16th.
    values=arrays.arrays(np.float32, st.integers(1, 600), elements=st.integers(0, 5).map(float)),
    stride=st.sampled_from([1, 2, 16]),
    density=st.floats(0.001, 1),
)
def test_the_largest_are_found_whatever_their_order(
    values: Floats, stride: int, density: float
) -> None:
    values[::stride] *= 7
    block = Block(0, values.size, values.size)
    parts = DeltaSparse(density).pack(values, block)
    decoded = np.empty_like(values)
    DeltaSparse().unpack(b"".join(parts), block, 0, values.size, decoded)
    count = min(ceil(density * values.size), int(np.count_nonzero(values)))
    assert np.count_nonzero(decoded) <= count
    # Of equal ones the first, as a stable sort has them.
    wanted = np.sort(np.argsort(-values, kind="stable")[:count])
    bits = np.frombuffer(parts[0][4:], np.uint8)
    assert np.array_equal(np.flatnonzero(np.unpackbits(bits)), wanted)


def dense(pair: Pair, encoding: str, update: dict[str, Array]) -> tuple[float, float]:
    """Return relative error and cosine, from whole vectors."""
    decoded = pair.decoded(encoding)
    one = np.concatenate([values.reshape(-1).astype(float) for values in update.values()])
    two = np.concatenate([decoded[name].reshape(-1).astype(float) for name in update])
    lengths = np.linalg.norm(one) * np.linalg.norm(two)
    return float(np.linalg.norm(two - one) / np.linalg.norm(one)), float(one @ two / lengths)


@pytest.mark.parametrize("encoding", ALL)
def test_what_is_measured_is_so(encoding: str, tmp_path: Path) -> None:
    update = update_of_all_shapes()
    pair = Pair(tmp_path, update)
    encoded = pair.encode(encoding)
    error, cosine = dense(pair, encoding, update)
    assert encoded.bytes == pair.file(encoding).stat().st_size
    assert encoded.relative_error == pytest.approx(error, rel=1e-6)
    assert encoded.cosine == pytest.approx(cosine, rel=1e-9)


def test_errors_of_normal_values_are_the_known_ones(tmp_path: Path) -> None:
    pair = Pair(tmp_path, {"weight": normal(200, 768)})
    delta, int8 = pair.encode("delta"), pair.encode("delta-int8")
    sparse, sign = pair.encode("delta-sparse"), pair.encode("delta-sign")
    # Rounding errors are spread evenly: a step by the root of 12.
    assert delta.relative_error < 2**-9
    assert int8.relative_error == pytest.approx(3.2 / 127 / sqrt(12), rel=0.1)
    # Of the square of normal values beyond 1.645, which are a tenth of them, 43.9% is there.
    assert sparse.relative_error == pytest.approx(sqrt(1 - 0.439), rel=0.02)
    assert sign.relative_error == pytest.approx(sqrt(pi / 2 - 1), rel=0.01)
    assert sign.cosine == pytest.approx(sqrt(2 / pi), rel=0.01)


@pytest.mark.parametrize("encoding", ALL)
def test_rows_that_did_not_change_stay_exactly_so(encoding: str, tmp_path: Path) -> None:
    values = normal(300, 256)
    still = np.random.default_rng(1).random(300) < 0.8
    values[still] = 0
    decoded = Pair(tmp_path, {"embedding": values}).round_trip(encoding)["embedding"]
    assert not decoded[still].any()
    assert not np.signbit(decoded[still]).any()
    # With a tenth kept of all, a row may be left without any.
    assert encoding == "delta-sparse" or decoded[~still].any(axis=1).all()


HARD: dict[str, Floats] = {
    "largest": np.array([LARGEST, -LARGEST, 0, 1e38, 1, SMALLEST], np.float32),
    "smallest": np.array([SMALLEST, -SMALLEST, 3 * SMALLEST, 0], np.float32),
    "equal": np.full((3, 300), 1e-3, np.float32),
    "equal_magnitudes": np.where(np.arange(20_000) % 3, -1e-3, 1e-3).astype(np.float32),
    "scalar": np.array(-2.5, np.float32),
    "single": np.array([7e-5], np.float32),
    "one_in_many": np.eye(1, 40_000, 39_999, dtype=np.float32),
    "wide": np.array([LARGEST, *[SMALLEST] * 300], np.float32),
}


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("encoding", ALL)
def test_extremes(encoding: str, name: str, tmp_path: Path) -> None:
    values = HARD[name]
    decoded = Pair(tmp_path, {name: values}).round_trip(encoding)[name]
    assert np.isfinite(decoded).all()
    error = np.abs(decoded.astype(float) - values)
    largest = float(np.abs(values).max())
    if encoding == "delta-int8":
        assert error.max() <= largest / 254 * (1 + 1e-4) + SMALLEST
    if encoding == "delta":
        top = float(ml_dtypes.finfo(ml_dtypes.bfloat16).max)  # type: ignore[no-untyped-call]
        bounds = np.maximum(np.abs(values) * 2.0**-8, np.abs(values) - top)
        assert (error <= bounds + 2.0**-134).all()
    if name.startswith(("equal", "scalar", "single", "one_in")) and encoding == "delta-sparse":
        kept = decoded != 0
        np.testing.assert_allclose(decoded[kept], values[kept], rtol=1e-6)
        assert kept.sum() >= min(ceil(0.1 * values.size), np.count_nonzero(values))
    if name in ("equal", "equal_magnitudes", "scalar", "single") and encoding == "delta-sign":
        np.testing.assert_allclose(decoded, values, rtol=1e-6)


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(deadline=None, max_examples=60)
@given(
    values=arrays.arrays(
        np.float32, arrays.array_shapes(min_dims=0, max_dims=3, max_side=40), elements=FLOATS
    ),
    encoding=st.sampled_from(ALL),
)
def test_any_values_come_back_as_near_as_they_should(values: Floats, encoding: str) -> None:
    with TemporaryDirectory() as folder:
        decoded = Pair(Path(folder), {"x": values}).round_trip(encoding)["x"]
    exact = values.astype(float)
    error = np.abs(decoded.astype(float) - exact)
    size = np.abs(exact)
    if encoding == "full":
        assert not error.any()
    if encoding == "delta":
        assert (error <= size * 2.0**-8 + 2.0**-134).all()
    if encoding == "delta-int8":
        assert error.max() <= size.max() / 254 * (1 + 1e-4) + SMALLEST
    if encoding == "delta-sparse":
        assert (error <= np.maximum(size, size.max() / 254 * (1 + 1e-4) + SMALLEST)).all()
    if encoding == "delta-sign":
        assert np.abs(decoded).max() <= size.max()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("large"), {"weight": normal(70, 768), "bias": normal(9)})


@settings(deadline=None, max_examples=50)
@given(data=st.data(), encoding=st.sampled_from(ALL))
def test_any_cut_equals_the_whole(data: st.DataObject, encoding: str, large: Pair) -> None:
    large.encode(encoding)
    reader, span = large.open(encoding), large.base.tensors["weight"].span
    edges = data.draw(st.lists(st.integers(0, span.elements), max_size=12))
    scratch = Scratch()
    expected, ordered = whole(reader, span), sorted({0, *edges, span.elements})
    found = [part(reader, span, a, b, scratch) for a, b in zip(ordered, ordered[1:], strict=False)]
    assert np.concatenate(found).tobytes() == expected.tobytes()
    start, stop = sorted((data.draw(st.integers(0, span.elements)), ordered[-2]))
    assert part(reader, span, start, stop, scratch).tobytes() == expected[start:stop].tobytes()


@pytest.mark.parametrize("encoding", ALL)
def test_threads_that_read_in_turns_get_the_same(encoding: str, large: Pair) -> None:
    large.encode(encoding)
    span = large.base.tensors["weight"].span
    readers = [large.open(encoding) for _ in range(3)]
    expected, scratch = whole(readers[0], span), Scratch()
    places = [
        (start, min(start + 2**11, span.elements)) for start in range(0, span.elements, 2**11)
    ]

    def right(place: tuple[int, int]) -> bool:
        wanted = expected[slice(*place)].tobytes()
        return all(part(reader, span, *place, scratch).tobytes() == wanted for reader in readers)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(right, [*places, *reversed(places)]))


@pytest.mark.parametrize("encoding", [DeltaSparse(0.02), DeltaSparse(1.0)])
def test_a_reader_needs_no_density(encoding: WeightsEncoding, tmp_path: Path) -> None:
    pair = Pair(tmp_path, {"x": normal(20_000)})
    kept = np.count_nonzero(pair.round_trip(encoding)["x"])
    assert kept <= 20_000 if encoding.__dict__["density"] == 1 else kept <= ceil(0.02 * 20_000) + 1


@pytest.mark.parametrize("encoding", BLOCKED)
def test_index_tensors_come_first_and_metadata_says_nothing(encoding: str, tmp_path: Path) -> None:
    pair = Pair(tmp_path, update_of_all_shapes())
    pair.encode(encoding)
    raw = pair.file(encoding).read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    assert header["__metadata__"] == {"format": "pt"}
    names = list(read_file(raw))
    index = [name for name in names if name.startswith("index:")]
    assert names[: len(index)] == index
    assert len(names) == 2 * len(index)
