"""Encoding: the same bytes each time, nothing that did not change, whole or not there at all."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors

from coldfusion_shared.errors import (
    IncompatibleWeights,
    InvalidRequest,
    MalformedWeights,
    NonFiniteWeights,
    StorageFull,
    UnknownName,
)
from coldfusion_shared.fusion.executor import threads
from coldfusion_shared.fusion.updates import Scratch
from coldfusion_shared.weights.checkpoint import CHUNK_ELEMENTS, Checkpoint, StoredTensor
from coldfusion_shared.weights.codecs import discover, open_update, weights_encoding
from coldfusion_shared.weights.codecs.delta_sparse import DeltaSparse
from tests.shared.checkpoints import BFLOAT16, Array, read_file
from tests.shared.weights.codecs.encoded import ALL, BLOCKED, Pair, normal


def several() -> dict[str, Array]:
    return {
        "layer.0": normal(3 * CHUNK_ELEMENTS + 5),
        "layer.1": normal(80, 300, scale=1e-5),
        "bias": normal(30),
    }


def test_these_are_the_encodings() -> None:
    assert [name for name in discover() if name != "lora"] == ALL
    for name in ALL:
        assert discover()[name].name == name
        assert len(discover()[name].files) == 1
    with pytest.raises(UnknownName, match="No encoding"):
        open_update("zip", {}, {})


@pytest.mark.parametrize("encoding", ALL)
def test_the_bytes_are_the_same_each_time_and_with_threads(encoding: str, tmp_path: Path) -> None:
    pair = Pair(tmp_path, several())
    first = pair.encode(encoding)
    raw = pair.file(encoding).read_bytes()
    assert pair.encode(encoding) == first
    assert pair.file(encoding).read_bytes() == raw
    assert pair.encode(encoding, threads(3)) == first
    assert pair.file(encoding).read_bytes() == raw


@pytest.mark.parametrize("encoding", ALL)
def test_what_did_not_change_is_left_out(encoding: str, tmp_path: Path) -> None:
    base = {"frozen": normal(70, 300), **several(), "positions": np.arange(9), "empty": normal(0)}
    # What only changed the sign of its zero did not change.
    base["zeros"] = np.zeros(5, np.float32)
    update = {name: np.zeros_like(values) for name, values in base.items()} | several()
    pair = Pair(tmp_path, update, base)
    finetuned = dict(pair.finetuned.tensors)
    del finetuned["bias"]
    encoding_ = weights_encoding(encoding)
    done: list[int] = []
    encoding_.encode(finetuned, pair.base.tensors, tmp_path, done.append)
    stored = read_file(pair.file(encoding).read_bytes())
    given = {"frozen", "zeros", "empty"} if encoding == "full" else set()
    written = {"layer.0", "layer.1"} | given
    assert {name.rpartition(":")[2] for name in stored} == written
    assert set(pair.open(encoding).names) == written
    decoded = pair.decoded(encoding)
    assert not any(decoded[name].any() for name in ("frozen", "bias", "zeros", "empty"))
    assert "positions" not in decoded
    floats = [tensor.span for name, tensor in finetuned.items() if name != "positions"]
    assert sum(done) == sum(4 * span.elements for span in floats)


@pytest.mark.parametrize("encoding", ["delta", *BLOCKED])
def test_a_model_that_did_not_change_is_a_file_without_tensors(
    encoding: str, tmp_path: Path
) -> None:
    pair = Pair(tmp_path, {"x": np.zeros(70_000, np.float32)})
    encoded = pair.encode(encoding)
    assert (encoded.relative_error, encoded.cosine) == (0, 1)
    assert read_file(pair.file(encoding).read_bytes()) == {}
    assert not pair.decoded(encoding)["x"].any()


@pytest.mark.parametrize("dtype", [np.dtype(np.float16), BFLOAT16, np.dtype(np.float64)])
@pytest.mark.parametrize("encoding", ALL)
def test_other_dtypes(encoding: str, dtype: np.dtype[np.float64], tmp_path: Path) -> None:
    base = normal(40, 300, scale=1, seed=3).astype(dtype)
    pair = Pair(tmp_path, {"x": normal(40, 300, scale=0.1).astype(dtype)}, {"x": base})
    tuned = read_file((tmp_path / "tuned" / "m.safetensors").read_bytes())["x"]
    exact = tuned.astype(np.float64) - base.astype(np.float64)
    decoded = pair.round_trip(encoding)["x"]
    tolerance = {"full": 1e-6, "delta": 0.004, "delta-int8": 0.02}.get(encoding, 0.8)
    assert np.linalg.norm(decoded - exact) <= tolerance * np.linalg.norm(exact)


@pytest.mark.parametrize("encoding", ALL)
def test_float32_weights_of_a_bfloat16_base(encoding: str, tmp_path: Path) -> None:
    base = Pair(tmp_path / "a", {"x": normal(40, 300).astype(BFLOAT16)}).finetuned
    tuned = Pair(tmp_path / "b", {"x": normal(40, 300, seed=5)}).finetuned
    found = weights_encoding(encoding)
    found.encode(tuned.tensors, base.tensors, tmp_path)
    path = tmp_path / found.files[0]
    with Checkpoint.from_file(path) as opened:
        assert path.stat().st_size <= found.max_bytes(base.spans())
        reader = found.open(opened.sources, base.tensors)
        out = np.empty(12_000, np.float32)
        reader.read(base.tensors["x"].span, 0, 12_000, out, Scratch())
    exact = tuned.tensors["x"].values(0, 12_000) - base.tensors["x"].values(0, 12_000).astype(float)
    assert np.corrcoef(out, exact)[0, 1] > 0.6


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("encoding", ALL)
def test_what_is_not_finite_is_refused(encoding: str, value: float, tmp_path: Path) -> None:
    update = several()
    update["layer.1"][79, 299] = value
    pair = Pair(tmp_path, update)
    with pytest.raises(NonFiniteWeights, match="'layer.1'") as error:
        pair.encode(encoding)
    assert error.value.tensors == ("layer.1",)
    assert not list(tmp_path.glob("*.safetensors*"))


def test_a_difference_that_overflows_is_refused(tmp_path: Path) -> None:
    base = {"x": np.array([-3e38, 0], np.float32)}
    pair = Pair(tmp_path, {"x": np.array([0, 1], np.float32)}, base)
    tensors = Pair(tmp_path / "b", {"x": np.array([3e38, 0], np.float32)}).finetuned.tensors
    with pytest.raises(NonFiniteWeights, match="'x'"):
        weights_encoding("delta-int8").encode(tensors, pair.base.tensors, tmp_path)


@pytest.mark.parametrize("encoding", ALL)
def test_another_shape_is_refused(encoding: str, tmp_path: Path) -> None:
    base = Pair(tmp_path / "a", {"x": normal(3, 4), "y": normal(2)}).base
    tuned = Pair(tmp_path / "b", {"x": normal(4, 3), "z": normal(2)}).finetuned
    with pytest.raises(IncompatibleWeights) as error:
        weights_encoding(encoding).encode(tuned.tensors, base.tensors, tmp_path)
    assert set(error.value.tensors) == {"x", "z"}


@pytest.mark.parametrize("encoding", ALL)
def test_a_full_disk_leaves_nothing(
    encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    pair = Pair(tmp_path, several())
    monkeypatch.setattr("coldfusion_shared.weights.write.os.fsync", full)
    with pytest.raises(StorageFull, match="could not be written"):
        pair.encode(encoding)
    assert not list(tmp_path.glob("*.safetensors*"))


@pytest.mark.parametrize("encoding", ALL)
def test_the_safetensors_library_reads_it(encoding: str, tmp_path: Path) -> None:
    pair = Pair(tmp_path, several())
    pair.encode(encoding)
    raw = pair.file(encoding).read_bytes()
    found = safetensors.deserialize(raw)  # type: ignore[no-untyped-call]
    assert {name for name, _ in found} == set(read_file(raw))


@pytest.mark.parametrize("encoding", ALL)
def test_no_update_is_larger_than_said(encoding: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = {
        f"x{n}": rng.integers(0, 2**31, n, np.uint32).view(np.float32) for n in (1, 255, 99_999)
    }
    finite = {name: np.where(np.isfinite(v), v, 1).astype(np.float32) for name, v in noise.items()}
    pair = Pair(tmp_path, {**finite, "narrow": normal(50_000, 3), "scalar": normal()})
    found = DeltaSparse(1.0) if encoding == "delta-sparse" else weights_encoding(encoding)
    size, most = pair.encode(found).bytes, found.max_bytes(pair.base.spans())
    assert size <= most
    usual = Pair(tmp_path / "usual", {"x": normal(300_000), "y": normal(3)})
    assert usual.encode(found).bytes <= found.max_bytes(usual.base.spans())
    assert found.max_bytes(usual.base.spans()) <= 1.3 * usual.encode(found).bytes


def test_a_realistic_update_is_as_small_as_it_should_be(tmp_path: Path) -> None:
    embedding = normal(2000, 768, scale=1e-3)
    embedding[np.random.default_rng(2).random(2000) < 0.8] = 0
    pair = Pair(tmp_path, {"embedding": embedding, "dense": normal(768, 768, scale=1e-4)})
    full = 4 * (embedding.size + 768 * 768)
    assert pair.encode("delta-int8").bytes <= 0.26 * full
    assert pair.encode("delta-sign").bytes <= 0.04 * full
    dense = Pair(tmp_path / "dense", {"dense": normal(768, 768, scale=1e-4)})
    assert dense.encode("delta-int8").bytes <= 0.26 * 4 * 768 * 768
    assert dense.encode("delta-sparse").bytes <= 0.045 * 4 * 768 * 768
    assert dense.encode("delta-sign").bytes <= 0.04 * 4 * 768 * 768


@pytest.mark.parametrize("encoding", BLOCKED)
def test_names_too_long_for_a_prefix_are_refused_before_anything_is_computed(
    encoding: str, tmp_path: Path
) -> None:
    pair = Pair(tmp_path, {"x": normal(3)})

    def called(tensors: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
        tensor, name = tensors["x"], "n" * 495
        return {name: StoredTensor(replace(tensor.span, name=name), tensor.source)}

    with pytest.raises(MalformedWeights, match="impossible name"):
        weights_encoding(encoding).encode(
            called(pair.finetuned.tensors), called(pair.base.tensors), tmp_path
        )


@pytest.mark.parametrize("density", [0, -0.1, 1.5, float("nan")])
def test_densities_that_keep_nothing_or_too_much(density: float) -> None:
    with pytest.raises(InvalidRequest, match="density"):
        DeltaSparse(density)
