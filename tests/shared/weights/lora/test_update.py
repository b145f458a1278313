"""Updates of adapters against their definition, dense and in float64."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as tries
from hypothesis import strategies as st

from coldfusion_shared.errors import NonFiniteWeights
from coldfusion_shared.fusion.updates import Scratch
from coldfusion_shared.weights.checkpoint import Checkpoint
from coldfusion_shared.weights.lora import LoraUpdate, strips
from coldfusion_shared.weights.lora.product import BLOCK_ELEMENTS, rectangles, sum_of_columns
from tests.shared.checkpoints import BFLOAT16, Array
from tests.shared.weights.lora.adapters import (
    SHAPES,
    adapter,
    base_of,
    close,
    decoded,
    normal,
    opened,
    pair,
    product,
    settings,
    values_of,
)

WIDE, SQUARE, WORDS = "encoder.wide.weight", "encoder.square.weight", "embeddings.words.weight"


@pytest.fixture
def base(tmp_path: Path) -> Checkpoint:
    return base_of(tmp_path)


@pytest.mark.parametrize("rslora", [False, True])
def test_plain_and_rank_stabilised(tmp_path: Path, base: Checkpoint, rslora: bool) -> None:
    tensors = {**pair("encoder.wide", 20, 12), **pair("encoder.square", 12, 12)}
    opened = adapter(tmp_path, settings(use_rslora=rslora), tensors, base)
    for name in (WIDE, SQUARE):
        expected = product(tensors, name.removesuffix(".weight"), rslora=rslora)
        assert close(decoded(opened, base, name), expected)
    assert set(opened.names) == {WIDE, SQUARE}
    assert not decoded(opened, base, "encoder.norm.weight").any()


def test_ranks_and_alphas_of_their_own(tmp_path: Path, base: Checkpoint) -> None:
    tensors = {**pair("encoder.wide", 20, 12, rank=3), **pair("encoder.square", 12, 12, rank=6)}
    config = settings(
        rank_pattern={"wide": 3, "encoder.square": 6}, alpha_pattern={r"^encoder\.sq.*": 5}
    )
    opened = adapter(tmp_path, config, tensors, base)
    assert close(decoded(opened, base, WIDE), product(tensors, "encoder.wide"))
    assert close(decoded(opened, base, SQUARE), product(tensors, "encoder.square", alpha=5))


def test_a_pattern_means_the_end_of_a_name(tmp_path: Path, base: Checkpoint) -> None:
    # "ide" is no whole part of the name, and of two that match the first one counts.
    config = settings(alpha_pattern={"ide": 100, "wide": 3, "encoder.wide": 50})
    tensors = pair("encoder.wide", 20, 12)
    opened = adapter(tmp_path, config, tensors, base)
    assert close(decoded(opened, base, WIDE), product(tensors, "encoder.wide", alpha=3))


def test_embeddings(tmp_path: Path, base: Checkpoint) -> None:
    rng = np.random.default_rng(1)
    a, b = normal(rng, (4, 50)), normal(rng, (12, 4))
    names = {
        "embeddings.words.lora_embedding_A": a,
        "embeddings.words.lora_embedding_B": b,
        # peft saves the table itself, too, when it is adapted.
        "embeddings.words.base_layer.weight": values_of(base, WORDS).astype(np.float32),
    }
    opened = adapter(tmp_path, settings(), names, base)
    expected = 2 * (b.astype(np.float64) @ a).T
    found = decoded(opened, base, WORDS)
    # The table is taken off again in float64.
    assert np.abs(found - expected).max() < 1e-6
    assert close(decoded(adapter(tmp_path, settings(), dict(list(names.items())[:2]), base), base,
                         WORDS), expected)  # fmt: skip


@pytest.mark.parametrize("start", [0.0, 1.0])
def test_dora(tmp_path: Path, base: Checkpoint, start: float) -> None:
    rng = np.random.default_rng(2)
    magnitude = np.abs(normal(rng, (12,))) + 1
    tensors: dict[str, Array] = {
        **pair("encoder.wide", 20, 12),
        "encoder.wide.lora_magnitude_vector": magnitude,
    }
    before = values_of(base, WIDE)
    if start:
        tensors["encoder.wide.base_layer.weight"] = (before + start).astype(np.float32)
    opened = adapter(tmp_path, settings(use_dora=True), tensors, base)
    moved = (before + start).astype(np.float32) + product(tensors, "encoder.wide")
    lengths = np.linalg.norm(moved, axis=1, keepdims=True)
    expected = magnitude[:, None].astype(np.float64) * moved / lengths - before
    assert np.abs(decoded(opened, base, WIDE) - expected).max() < 1e-6


def test_dora_of_embeddings_measures_their_columns(tmp_path: Path, base: Checkpoint) -> None:
    rng = np.random.default_rng(3)
    a, b, magnitude = normal(rng, (4, 50)), normal(rng, (12, 4)), np.abs(normal(rng, (12,))) + 1
    tensors = {
        "embeddings.words.lora_embedding_A": a,
        "embeddings.words.lora_embedding_B": b,
        "embeddings.words.lora_magnitude_vector.weight": magnitude,
    }
    opened = adapter(tmp_path, settings(use_dora=True), tensors, base)
    before = values_of(base, WORDS)
    moved = before + 2 * (b.astype(np.float64) @ a).T
    expected = magnitude * moved / np.linalg.norm(moved, axis=0) - before
    assert np.abs(decoded(opened, base, WORDS) - expected).max() < 1e-6


@pytest.mark.parametrize("flag", [False, True])
def test_conv1d_keeps_its_matrices_the_other_way_round(tmp_path: Path, flag: bool) -> None:
    rng = np.random.default_rng(4)
    # The bias of `up` tells: the flag is the last one that peft set, perhaps for the head.
    base = opened(
        tmp_path,
        {"up.weight": normal(rng, (12, 20)), "up.bias": normal(rng, (20,)),
         "across.weight": normal(rng, (12, 12)), "across.bias": normal(rng, (12,))},
    )  # fmt: skip
    tensors = {**pair("up", 12, 20), **pair("across", 12, 12)}
    found = adapter(tmp_path, settings(fan_in_fan_out=flag), tensors, base)
    for name in ("up", "across"):
        assert close(decoded(found, base, f"{name}.weight"), product(tensors, name).T)


@pytest.mark.parametrize("flag", [False, True])
def test_where_all_matrices_are_square_the_flag_decides(tmp_path: Path, flag: bool) -> None:
    base = opened(tmp_path, {"across.weight": normal(np.random.default_rng(5), (12, 12))})
    tensors = pair("across", 12, 12)
    found = adapter(tmp_path, settings(fan_in_fan_out=flag), tensors, base)
    expected = product(tensors, "across")
    assert close(decoded(found, base, "across.weight"), expected.T if flag else expected)


def test_whole_tensors_take_the_place_of_the_bases(tmp_path: Path, base: Checkpoint) -> None:
    rng = np.random.default_rng(6)
    norm, bias = normal(rng, (12,)), normal(rng, (12,))
    tensors = {
        "encoder.norm.weight": norm,
        "encoder.wide.base_layer.bias": bias,
        "classifier.weight": normal(rng, (2, 12)),
        "classifier.lora_A.weight": normal(rng, (4, 12)),
        **pair("encoder.wide", 20, 12),
    }
    found = adapter(tmp_path, settings(bias="lora_only"), tensors, base)
    assert set(found.names) == {"encoder.norm.weight", "encoder.wide.bias", WIDE}
    for name, value in (("encoder.norm.weight", norm), ("encoder.wide.bias", bias)):
        assert close(decoded(found, base, name), value.astype(np.float64) - values_of(base, name))


@pytest.mark.parametrize(("before", "after"), [("", "bert."), ("bert.", ""), ("bert.", "bert.")])
def test_names_with_and_without_the_bodys_module(tmp_path: Path, before: str, after: str) -> None:
    rng = np.random.default_rng(7)
    base = opened(
        tmp_path, {f"{before}{name}": normal(rng, shape) for name, shape in SHAPES.items()}
    )
    tensors = {f"{after}{name}": value for name, value in pair("encoder.wide", 20, 12).items()}
    # What the base has no pooler for is a part of the head.
    tensors |= pair(f"{after}pooler.dense", 12, 12)
    found = adapter(tmp_path, settings(), tensors, base)
    assert found.names == (f"{before}{WIDE}",)
    plain = pair("encoder.wide", 20, 12)
    assert close(decoded(found, base, f"{before}{WIDE}"), product(plain, "encoder.wide"))


def test_half_precision(tmp_path: Path) -> None:
    base = base_of(tmp_path, dtype=BFLOAT16)
    tensors = {name: value.astype(BFLOAT16) for name, value in pair("encoder.wide", 20, 12).items()}
    tensors["encoder.wide.lora_magnitude_vector"] = np.ones(12, np.float16)
    found = adapter(tmp_path, settings(use_dora=True), tensors, base)
    before = values_of(base, WIDE)
    moved = before + product(tensors, "encoder.wide")
    expected = moved / np.linalg.norm(moved, axis=1, keepdims=True) - before
    assert np.abs(decoded(found, base, WIDE) - expected).max() < 1e-6


class Large:
    """An adapter whose rows are longer than a block, and one with many rows."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(8)
        self.shapes = {"long": (4, BLOCK_ELEMENTS + 77), "many": (700, 53)}
        self.base = opened(
            folder, {f"{name}.weight": normal(rng, shape) for name, shape in self.shapes.items()}
        )
        self.tensors: dict[str, Array] = {}
        for name, (outer, inner) in self.shapes.items():
            self.tensors |= pair(name, inner, outer, rank=3)
            self.tensors[f"{name}.lora_magnitude_vector"] = normal(rng, (outer,))
        self.folder = folder

    def update(self) -> LoraUpdate:
        return adapter(self.folder, settings(r=3, use_dora=True), self.tensors, self.base)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Large:
    return Large(tmp_path_factory.mktemp("large"))


@given(data=st.data(), name=st.sampled_from(["long", "many"]))
@tries(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_cut_changes_a_bit(large: Large, data: st.DataObject, name: str) -> None:
    span = large.base.tensors[f"{name}.weight"].span
    whole = decoded(large.update(), large.base, span.name).reshape(-1)
    cuts = data.draw(st.lists(st.integers(0, span.elements), max_size=12).map(sorted))
    update, scratch = large.update(), Scratch()
    for start, stop in zip([0, *cuts], [*cuts, span.elements], strict=True):
        out = np.empty(stop - start, np.float32)
        update.read(span, start, stop, out, scratch)
        assert out.tobytes() == whole[start:stop].tobytes()


def test_threads_read_the_same(large: Large, monkeypatch: pytest.MonkeyPatch) -> None:
    # So little that the factors are read again and again.
    monkeypatch.setattr(strips, "CACHE_BYTES", 1)
    shared = large.update()

    def read(turn: int) -> list[bytes]:
        names = ["long", "many"] if turn % 2 else ["many", "long"]
        found = {name: decoded(shared, large.base, f"{name}.weight") for name in names}
        return [found[name].tobytes() for name in ("long", "many")]

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(read, range(16)))
    assert all(result == results[0] for result in results)


@given(columns=st.integers(1, 40_000), data=st.data())
def test_rectangles_cover_a_span_in_its_order(columns: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, 100_000))
    stop = data.draw(st.integers(start, start + 100_000))
    place = start
    for part in rectangles(start, stop, columns):
        assert place == part.top * columns + part.left
        assert 0 < part.elements <= BLOCK_ELEMENTS
        # Its values follow each other.
        assert part.bottom == part.top + 1 or (part.left, part.right) == (0, columns)
        place += part.elements
    assert place == stop


@pytest.mark.parametrize("width", [1, 2, 3, 7, 64, 1001])
def test_sums_of_columns(width: int) -> None:
    values = np.arange(3 * width, dtype=float).reshape(3, width)
    assert sum_of_columns(values.copy()).tolist() == values.sum(axis=1).tolist()


@pytest.mark.parametrize("part", ["lora_A.weight", "lora_B.weight", "lora_magnitude_vector"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_named(
    tmp_path: Path, base: Checkpoint, part: str, bad: float
) -> None:
    tensors = pair("encoder.wide", 20, 12)
    tensors["encoder.wide.lora_magnitude_vector"] = np.ones(12, np.float32)
    tensors[f"encoder.wide.{part}"].flat[3] = bad
    found = adapter(tmp_path, settings(use_dora=True), tensors, base)
    assert not decoded(found, base, SQUARE).any()
    with pytest.raises(NonFiniteWeights, match=part.replace(".", r"\.")):
        decoded(found, base, WIDE)


def test_what_overflows_is_infinite(tmp_path: Path, base: Checkpoint) -> None:
    tensors = pair("encoder.wide", 20, 12, scale=1e15)
    found = adapter(tmp_path, settings(lora_alpha=1e20), tensors, base)
    assert np.isinf(decoded(found, base, WIDE)).any()
