"""What one pass measures, beside numpy's own sums over the whole update."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coldfusion_shared.fusion.executor import threads
from coldfusion_shared.screening.history import Past
from coldfusion_shared.screening.measures import RMS_FLOOR, Measures
from coldfusion_shared.screening.screen import Encoded, Screening, screen
from coldfusion_shared.weights.checkpoint import CHUNK_ELEMENTS, Checkpoint, FileSource
from coldfusion_shared.weights.codecs import weights_encoding
from tests.shared.checkpoints import BFLOAT16, Array, write_file

KEY = bytes(range(32))
DTYPES: list[Any] = [np.float32, np.float16, BFLOAT16, np.float64]


def base_of(seed: int, dtype: Any = np.float32) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "words.weight": (CHUNK_ELEMENTS // 8 + 3, 8), "layer.weight": (30, 30), "bias": (30,),
        "none": (0, 2),
    }  # fmt: skip
    tensors = {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}
    return {**tensors, "bias": np.zeros(30, dtype), "classifier.weight": np.ones(3, np.float32)}


def tuned_of(base: dict[str, Array], seed: int, size: float = 1e-2) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    tuned: dict[str, Array] = {}
    for name, values in base.items():
        if name == "classifier.weight":
            continue
        step = (size * rng.standard_normal(values.shape)).astype(np.float32)
        step[rng.random(values.shape) < 0.25] = 0
        tuned[name] = (values + step).astype(values.dtype if values.itemsize > 2 else np.float32)
    return tuned


def screened(
    folder: Path,
    base: dict[str, Array],
    tuned: dict[str, Array],
    encoding: str = "full",
    **options: Any,
) -> Screening:
    folder.mkdir(exist_ok=True)
    with (
        Checkpoint.from_file(write_file(folder / "base.safetensors", base)) as ours,
        Checkpoint.from_file(write_file(folder / "tuned.safetensors", tuned)) as theirs,
    ):
        kind = weights_encoding(encoding)
        kind.encode(theirs.tensors, ours.tensors, folder / "sent")
        sources = {name: FileSource(folder / "sent" / name) for name in kind.files}
        return screen(Encoded(encoding, sources), ours, key=KEY, **options)


def measured(outcome: Screening) -> Measures:
    assert outcome.measures is not None, outcome.findings
    return outcome.measures


def doubles(tensors: dict[str, Array]) -> Array:
    return np.concatenate([np.ravel(values).astype(np.float64) for values in tensors.values()])


@given(st.integers(0, 2**32), st.sampled_from(DTYPES), st.floats(1e-6, 1.0))
@settings(max_examples=12)
def test_all_numbers_are_those_of_the_whole_update(
    tmp_path_factory: pytest.TempPathFactory, seed: int, dtype: Any, size: float
) -> None:
    base = base_of(seed, dtype)
    tuned = tuned_of(base, seed + 1, size)
    found = measured(screened(tmp_path_factory.mktemp("m"), base, tuned))
    shared = {name: base[name] for name in tuned}
    before, after = doubles(shared), doubles(tuned)
    # As the reader computes it.
    update = doubles(
        {
            name: (tuned[name] - base[name].astype(tuned[name].dtype)).astype(np.float32)
            for name in tuned
        }
    )
    assert found.norm == pytest.approx(np.linalg.norm(update), rel=1e-5)
    assert found.base_norm == pytest.approx(np.linalg.norm(before), rel=1e-5)
    assert found.relative_norm == pytest.approx(found.norm / found.base_norm)
    cosine = before @ after / np.linalg.norm(before) / np.linalg.norm(after)
    assert found.cosine_to_base == pytest.approx(cosine, abs=1e-5)
    assert found.changed_share == np.count_nonzero(update) / update.size
    assert found.largest == np.abs(update).max()
    assert found.sketch.norm == pytest.approx(found.norm, rel=0.05)


def test_a_tensors_norm_is_relative_to_the_bases_or_to_the_floor(tmp_path: Path) -> None:
    base = base_of(0)
    tuned = {name: base[name].copy() for name in base if name != "classifier.weight"}
    tuned["layer.weight"] *= np.float32(1.5)
    tuned["bias"] += np.float32(0.02)
    norms = measured(screened(tmp_path, base, tuned)).tensor_norms
    assert norms == {
        "layer.weight": pytest.approx(0.5, rel=1e-4),
        "bias": pytest.approx(0.02 / RMS_FLOOR, rel=1e-4),
    }


@pytest.mark.parametrize("encoding", ["delta", "delta-int8", "delta-sparse", "delta-sign"])
def test_an_update_of_some_tensors_is_set_beside_the_whole_base(
    encoding: str, tmp_path: Path
) -> None:
    base = base_of(1)
    tuned = {"layer.weight": (base["layer.weight"] * 1.1).astype(np.float32)}
    whole = {name: values for name, values in base.items() if name != "classifier.weight"}
    found = measured(screened(tmp_path, base, {**whole, **tuned}, encoding))
    assert found.base_norm == pytest.approx(np.linalg.norm(doubles(whole)), rel=1e-5)
    assert list(found.tensor_norms) == ["layer.weight"]
    known = Past(base_norm=found.base_norm)
    again = measured(screened(tmp_path, base, {**whole, **tuned}, encoding, past=known))
    assert again.to_json() == found.to_json()


@pytest.mark.parametrize("encoding", ["full", "delta", "delta-int8"])
def test_one_update_in_two_forms_has_nearly_the_same_sketch(encoding: str, tmp_path: Path) -> None:
    base = base_of(2)
    tuned = tuned_of(base, 3)
    one = measured(screened(tmp_path / "full", base, tuned))
    other = measured(screened(tmp_path / "other", base, tuned, encoding))
    assert one.sketch.cosine(other.sketch) > 0.999
    assert (one.digest == other.digest) == (encoding == "full")


def test_threads_change_no_bit(tmp_path: Path) -> None:
    base = base_of(4)
    tuned = tuned_of(base, 5)
    one = measured(screened(tmp_path, base, tuned))
    other = measured(screened(tmp_path, base, tuned, executor=threads(3)))
    assert one.to_json() == other.to_json()
    assert (one.sketch.values == other.sketch.values).all()


def test_digest_and_sketch_follow_from_the_key(tmp_path: Path) -> None:
    base = base_of(6)
    tuned = tuned_of(base, 7)
    folder, given_in = tmp_path / "one", (base, tuned)
    one = measured(screened(folder, *given_in))
    with Checkpoint.from_file(folder / "base.safetensors") as ours:
        sent = {"model.safetensors": FileSource(folder / "sent" / "model.safetensors")}
        other = measured(screen(Encoded("full", sent), ours, key=bytes(32)))
    assert one.digest != other.digest
    assert abs(one.sketch.cosine(other.sketch)) < 0.1


@pytest.mark.parametrize("size", [1e-30, 1e-22, 1e9])
def test_sums_survive_the_ends_of_float32(size: float, tmp_path: Path) -> None:
    base: dict[str, Array] = {"w": np.zeros(1000, np.float32)}
    found = measured(screened(tmp_path, base, {"w": np.full(1000, size, np.float32)}))
    assert found.norm == pytest.approx(size * np.sqrt(1000), rel=1e-5)


def test_a_base_of_zeros_has_no_length_to_compare_with(tmp_path: Path) -> None:
    base: dict[str, Array] = {"w": np.zeros(10, np.float32)}
    found = measured(screened(tmp_path, base, {"w": np.arange(10, dtype=np.float32)}))
    assert found.relative_norm == 0
    assert found.cosine_to_base == 1


def test_measures_come_back_from_json(tmp_path: Path) -> None:
    base = base_of(8)
    found = measured(screened(tmp_path, base, tuned_of(base, 9)))
    again = Measures.from_json(json.loads(json.dumps(found.to_json())), found.sketch)
    assert again == found


def test_what_is_not_finite_has_no_measures(tmp_path: Path) -> None:
    base: dict[str, Array] = {"w": np.ones(10, np.float32)}
    path = write_file(tmp_path / "model.safetensors", {"w": np.full(10, np.nan, np.float32)})
    with Checkpoint.from_file(write_file(tmp_path / "base.safetensors", base)) as ours:
        outcome = screen(Encoded("full", {path.name: FileSource(path)}), ours)
    assert outcome.measures is None
    assert outcome.digest is None
    assert outcome.verdict == "reject"
