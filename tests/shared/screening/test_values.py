"""Checks of values, in any place, of any tensor, in any dtype."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coldfusion_shared.schemas.contributions import Finding
from coldfusion_shared.screening.screen import Encoded, screen
from coldfusion_shared.weights.checkpoint import CHUNK_ELEMENTS, Checkpoint, FileSource
from tests.shared.checkpoints import BFLOAT16, Array, Tensors, write_file

SHAPES: dict[str, tuple[int, ...]] = {
    "words.weight": (CHUNK_ELEMENTS // 4 + 1, 4), "layer.weight": (6, 6), "twin.weight": (6, 6),
    "bias": (5,), "scale": (),
}  # fmt: skip
NAMES = sorted(SHAPES)
DTYPES: list[Any] = [np.float32, np.float16, BFLOAT16, np.float64]

names = st.sampled_from(NAMES)
some = st.sets(names)
places = st.integers(0, 2**40)


class Model:
    """A base of some dtype, and what is made from it."""

    def __init__(self, folder: Path, dtype: Any = np.float32) -> None:
        rng = np.random.default_rng(0)
        self.folder = folder
        self.tensors: dict[str, Array] = {
            name: np.asarray(rng.standard_normal(shape)).astype(dtype)
            for name, shape in SHAPES.items()
        }
        self.tensors["twin.weight"] = self.tensors["layer.weight"]
        self.base = Checkpoint.from_file(write_file(folder / "base.safetensors", self.tensors))

    def tuned(self, changed: Sequence[str] = NAMES) -> dict[str, Array]:
        """Return weights in float32 with a small change in some tensors, or the base's dtype."""
        rng = np.random.default_rng(1)
        return {
            name: np.asarray(
                values + (name in changed) * 0.05 * rng.standard_normal(values.shape)
            ).astype(np.float64 if values.dtype == np.float64 else np.float32)
            for name, values in self.tensors.items()
        }

    def findings(self, tensors: Tensors, frozen: Sequence[str] = ()) -> dict[str, Finding]:
        """Screen weights and return what each check says."""
        path = write_file(self.folder / "model.safetensors", tensors)
        source = FileSource(path)
        outcome = screen(Encoded("full", {path.name: source}, frozen), self.base)
        source.close()
        return {finding.check: finding for finding in outcome.findings}


@pytest.fixture(scope="module", params=DTYPES, ids=["F32", "F16", "BF16", "F64"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(tmp_path_factory.mktemp("model"), request.param)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    found = Model(tmp_path_factory.mktemp("plain"))
    yield found
    found.base.close()


def put(values: Array, place: int, value: float) -> Array:
    changed = values.copy()
    changed.reshape(-1)[place % values.size] = value
    return changed


@given(name=names, place=places, value=st.sampled_from([np.nan, np.inf, -np.inf, 2.0**40]))
@settings(max_examples=15)
def test_one_bad_value_anywhere_spoils_it_all(
    model: Model, name: str, place: int, value: float
) -> None:
    tuned = model.tuned()
    found = model.findings({**tuned, name: put(tuned[name], place, value)})
    assert found["finite"].verdict == "reject"
    assert found["finite"].tensors == [name]


@given(name=names, place=places)
@settings(max_examples=15)
def test_one_changed_value_anywhere_is_a_change(model: Model, name: str, place: int) -> None:
    same = model.tuned([])
    assert model.findings(same)["changed"].verdict == "reject"
    value = float(same[name].reshape(-1)[place % same[name].size]) + 0.5
    assert (
        model.findings({**same, name: put(same[name], place, value)})["changed"].verdict == "pass"
    )


@given(
    name=st.sampled_from(["words.weight", "layer.weight", "bias"]),
    value=st.floats(-3, 3, width=16),
)
@settings(max_examples=15)
def test_any_tensor_of_one_value_is_found(model: Model, name: str, value: float) -> None:
    tuned = model.tuned()
    wiped = np.full_like(tuned[name], value)
    finding = model.findings({**tuned, name: wiped})["constant"]
    assert finding.verdict == "quarantine"
    assert finding.tensors == [name]


@given(name=names, place=places)
@settings(max_examples=15)
def test_all_but_one_value_the_same_is_not_constant(model: Model, name: str, place: int) -> None:
    tuned = model.tuned()
    nearly = put(np.full_like(tuned[name], 0.5), place, 0.75)
    assert model.findings({**tuned, name: nearly})["constant"].verdict == "pass"


def test_what_was_constant_may_stay_so(tmp_path: Path) -> None:
    base = {"norm.weight": np.ones(8, np.float32), "w": np.arange(8, dtype=np.float32)}
    ours = Checkpoint.from_file(write_file(tmp_path / "base.safetensors", base))
    path = write_file(
        tmp_path / "model.safetensors", {"norm.weight": np.full(8, 0.9, "f4"), "w": base["w"] + 1}
    )
    outcome = screen(Encoded("full", {path.name: FileSource(path)}), ours)
    assert {one.check: one.verdict for one in outcome.findings}["constant"] == "pass"


@given(changed=some, frozen=some)
@settings(max_examples=25)
def test_what_is_frozen_and_changed_is_named(
    plain: Model, changed: set[str], frozen: set[str]
) -> None:
    found = plain.findings(plain.tuned(sorted(changed)), sorted(frozen))["frozen"]
    assert (found.verdict == "reject") == bool(changed & frozen)
    assert found.tensors == sorted(changed & frozen)


@given(changed=some)
@settings(max_examples=20)
def test_twins_come_apart_where_one_changes_alone_or_otherwise(
    plain: Model, changed: set[str]
) -> None:
    tensors = plain.tuned(sorted(changed))
    apart = bool(changed & {"layer.weight", "twin.weight"})
    assert (plain.findings(tensors)["tied"].verdict == "quarantine") == apart
    tensors["twin.weight"] = tensors["layer.weight"]
    assert plain.findings(tensors)["tied"].verdict == "pass"


@given(seed=st.integers(0, 2**32), size=st.floats(0.1, 3))
@settings(max_examples=15)
def test_weights_of_no_relation_are_found(plain: Model, seed: int, size: float) -> None:
    rng = np.random.default_rng((7, seed))
    random: dict[str, Array] = {
        name: np.asarray(size * rng.standard_normal(shape)).astype(np.float32)
        for name, shape in SHAPES.items()
    }
    finding = plain.findings(random)["unrelated"]
    assert finding.verdict == "quarantine"
    assert finding.measured is not None
    assert abs(finding.measured) < 0.1


def test_layers_that_begin_as_zeros_are_no_twins(tmp_path: Path) -> None:
    zeros = np.zeros((6, 6), np.float32)
    base = {"one.weight": zeros, "other.weight": zeros, "layer.weight": np.eye(6, dtype=np.float32)}
    rng = np.random.default_rng(2)
    moved = {name: (base[name] + 1e-3 * rng.standard_normal((6, 6))).astype("<f4") for name in base}
    source = FileSource(write_file(tmp_path / "model.safetensors", moved))
    with Checkpoint.from_file(write_file(tmp_path / "base.safetensors", base)) as opened:
        outcome = screen(Encoded("full", {"model.safetensors": source}), opened)
    source.close()
    verdicts = {finding.check: finding.verdict for finding in outcome.findings}
    assert verdicts["tied"] == "pass"
