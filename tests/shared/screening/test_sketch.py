"""Sketches: linear, of one value whatever the order, and near enough to what they stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.screening.sketch import (
    GROUP,
    KEY_BYTES,
    SIZE,
    Floats,
    Sketch,
    Sketcher,
    SketchSum,
)

KEY = bytes(range(KEY_BYTES))
SKETCHER = Sketcher(KEY)
# Five standard deviations of a cosine, and of a length.
COSINE = 5 / sqrt(SIZE)
LENGTH = 5 / sqrt(2 * SIZE)

Update = Mapping[str, Floats]

# Longer than a group, longer than a row, shorter than a row, and one value.
SIZES = {"words.weight": GROUP + 9_000, "layer.weight": 20_000, "bias": 384, "scale": 1}

seeds = st.integers(0, 2**32)
keys = st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES)
# What all but a few keys fulfil is tried with the same ones each time.
CHANCE = settings(max_examples=40, derandomize=True)


def drawn(seed: int, sizes: Mapping[str, int] = SIZES) -> dict[str, Floats]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(size, np.float32) for name, size in sizes.items()}


def sketch(update: Update, sketcher: Sketcher = SKETCHER) -> Sketch:
    total = SketchSum()
    for name, values in update.items():
        for part in sketcher.parts(name, 0, values):
            total.add(part)
    return total.sketch()


def flat(update: Update) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.concatenate([update[name].astype(np.float64) for name in SIZES if name in update])


def cosine(one: Update, other: Update) -> float:
    a, b = flat(one), flat(other)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def combined(one: Update, other: Update, share: float) -> dict[str, Floats]:
    """Return a mixture whose cosine to `one` is about `share`."""
    rest = np.float32(sqrt(1 - share**2))
    return {name: np.float32(share) * one[name] + rest * other[name] for name in one}


def close(one: Sketch, other: Sketch) -> bool:
    return bool(np.allclose(one.values, other.values, rtol=1e-5, atol=1e-5 * one.norm / sqrt(SIZE)))


@given(seeds, seeds, st.floats(-100, 100, width=32))
@settings(max_examples=20)
def test_a_sketch_is_linear(one: int, other: int, factor: float) -> None:
    a, b = drawn(one), drawn(other)
    scaled = {name: a[name] + np.float32(factor) * b[name] for name in a}
    expected = Sketch(sketch(a).values + np.float32(factor) * sketch(b).values)
    assert np.allclose(
        sketch(scaled).values, expected.values, atol=1e-5 * (sketch(a).norm + sketch(scaled).norm)
    )


def test_two_sketches_are_added() -> None:
    a, b = drawn(1), drawn(2)
    both = {name: a[name] + b[name] for name in a}
    assert close(sketch(a) + sketch(b), sketch(both))


@given(st.permutations(list(SIZES)), seeds)
@settings(max_examples=20)
def test_the_order_of_tensors_changes_no_bit(order: Sequence[str], seed: int) -> None:
    update = drawn(seed)
    shuffled = sketch({name: update[name] for name in order})
    assert np.allclose(shuffled.values, sketch(update).values, rtol=1e-6, atol=1e-9)


@given(st.lists(st.integers(0, SIZES["words.weight"]), max_size=6), seeds)
@settings(max_examples=20)
def test_how_a_tensor_is_cut_changes_nothing(cuts: list[int], seed: int) -> None:
    values = drawn(seed)["words.weight"]
    places = sorted({0, *cuts, values.size})
    total = SketchSum()
    for start, stop in zip(places, places[1:], strict=False):
        for part in SKETCHER.parts("words.weight", start, values[start:stop]):
            total.add(part)
    assert close(total.sketch(), sketch({"words.weight": values}))


@given(keys, seeds, seeds, st.floats(-1, 1))
@CHANCE
def test_cosines_are_near_the_exact_ones(key: bytes, one: int, other: int, share: float) -> None:
    sketcher = Sketcher(key)
    a = drawn(one)
    b = combined(a, drawn(other), share)
    assert abs(sketch(a, sketcher).cosine(sketch(b, sketcher)) - cosine(a, b)) < COSINE


@given(keys, seeds, seeds, st.floats(1e-6, 1e3))
@CHANCE
def test_distances_are_off_by_a_percent_or_two(
    key: bytes, one: int, other: int, apart: float
) -> None:
    sketcher = Sketcher(key)
    a, noise = drawn(one), drawn(other)
    b = {name: a[name] + np.float32(apart) * noise[name] for name in a}
    exact = float(np.linalg.norm(flat(a) - flat(b)))
    # What float32 loses of two long sketches that are all but the same.
    lost = 1e-6 * float(np.linalg.norm(flat(a)))
    assert sketch(a, sketcher).distance(sketch(b, sketcher)) == pytest.approx(
        exact, rel=LENGTH, abs=lost
    )


@given(keys, st.sampled_from([256, 384, 512, 768, 1024, 4096]), seeds)
@CHANCE
def test_updates_of_one_dimension_alone_are_told_apart(key: bytes, width: int, seed: int) -> None:
    """Models move a few dimensions of all rows; they must not all fall into a few buckets."""
    rng = np.random.default_rng(seed)
    sketcher, rows = Sketcher(key), 2 * GROUP // width
    updates = []
    for _ in range(2):
        values = np.zeros((rows, width), np.float32)
        values[:, width // 3] = rng.standard_normal(rows)
        updates.append({"words.weight": values.reshape(-1)})
    a, b = updates
    # So few values fall together by chance more roughly than many do.
    assert abs(sketch(a, sketcher).cosine(sketch(b, sketcher)) - cosine(a, b)) < 2 * COSINE
    assert sketch(a, sketcher).norm == pytest.approx(float(np.linalg.norm(flat(a))), rel=0.2)


@given(
    st.sampled_from(sorted(SIZES)), st.integers(0, 2**31), st.floats(2.0**-30, 2.0**30, width=32)
)
@settings(max_examples=30)
def test_one_value_is_kept_exactly(name: str, place: int, value: float) -> None:
    values = np.zeros(SIZES[name], np.float32)
    values[place % values.size] = value
    found = sketch({name: values})
    assert np.count_nonzero(found.values) == 1
    assert found.norm == pytest.approx(value, rel=1e-6)


def test_the_error_is_that_of_so_many_buckets() -> None:
    """The mean over many pairs of the squared error of the cosine is 1 / SIZE, and not more."""
    updates = [drawn(seed, {"layer.weight": 60_000}) for seed in range(16)]
    sketches = [sketch(update) for update in updates]
    errors = [
        sketches[i].cosine(sketches[j])
        - float(
            updates[i]["layer.weight"] @ updates[j]["layer.weight"]
            / np.linalg.norm(updates[i]["layer.weight"])
            / np.linalg.norm(updates[j]["layer.weight"])
        )
        for i in range(16)
        for j in range(i)
    ]  # fmt: skip
    assert np.mean(np.square(errors)) == pytest.approx(1 / SIZE, rel=0.5)
    assert abs(np.mean(errors)) < 4 / sqrt(SIZE * len(errors))


def test_sketches_of_two_keys_have_nothing_in_common() -> None:
    update = drawn(3)
    others = [sketch(update, Sketcher(bytes([n]) * KEY_BYTES)) for n in range(4)]
    assert all(abs(sketch(update).cosine(other)) < COSINE for other in others)


def test_the_same_values_in_another_tensor_are_another_update() -> None:
    values = drawn(4)["layer.weight"]
    one, other = (sketch({name: values}) for name in ("layer.0.weight", "layer.1.weight"))
    assert abs(one.cosine(other)) < COSINE


def test_swapped_values_are_another_update() -> None:
    values = drawn(5)["layer.weight"]
    assert abs(sketch({"w": values}).cosine(sketch({"w": values[::-1].copy()}))) < COSINE


def test_a_sketch_comes_back_from_its_text() -> None:
    found = sketch(drawn(6))
    assert (Sketch.from_text(found.to_text()).values == found.values).all()
    assert len(found.to_text()) < 45_000


@pytest.mark.parametrize("text", ["", "AAAA", "not base64", "é", "A" * (SIZE * 4)])
def test_what_is_no_sketch_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="not the text of a sketch"):
        Sketch.from_text(text)


def test_the_sketch_of_nothing_is_at_right_angles_to_all() -> None:
    nothing = SketchSum().sketch()
    assert nothing.norm == 0
    assert nothing.cosine(sketch(drawn(7))) == 0
    assert nothing.cosine(nothing) == 0
