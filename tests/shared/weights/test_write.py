"""Bodies and rebased bodies on disk: exact, whole or not there at all."""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from coldfusion_shared.errors import BadModel, IncompatibleWeights, StorageFull
from coldfusion_shared.weights.checkpoint import CHUNK_ELEMENTS, Checkpoint
from coldfusion_shared.weights.layout import weight_files
from coldfusion_shared.weights.write import write_body, write_rebased
from tests.shared.checkpoints import BFLOAT16, Array, read_file, write_file

rng = np.random.default_rng(7)


def floats(*shape: int, dtype: Any = np.float32) -> Array:
    return rng.standard_normal(shape).astype(dtype)


def base_tensors() -> dict[str, Array]:
    return {
        "encoder.weight": floats(3, 5),
        "embeddings.position_ids": np.arange(4),
        "embeddings.weight": floats(CHUNK_ELEMENTS + 17),
        "pooler.dense.weight": floats(2, 2),
        "norm.scale": np.array(rng.standard_normal(), np.float32),
        "norm.empty": floats(0, 4),
        "classifier.weight": floats(2, 3),
    }


def opened(folder: Path, name: str, tensors: dict[str, Array]) -> Checkpoint:
    return Checkpoint.from_file(write_file(folder / f"{name}.safetensors", tensors))


def finetuned_of(base: dict[str, Array]) -> dict[str, Array]:
    """Return a classifier over the body: under a module, in another order, with its own head."""
    body = {
        f"bert.{name}": array + np.asarray(0.5, array.dtype)
        for name, array in reversed(base.items())
        if name != "classifier.weight" and array.dtype == np.float32
    }
    return {"classifier.weight": floats(7, 3), "classifier.bias": floats(7), **body}


def test_the_body_is_written_under_the_bases_names_and_in_its_order(tmp_path: Path) -> None:
    base, out = base_tensors(), tmp_path / "deep" / "er" / "body.safetensors"
    with (
        opened(tmp_path, "base", base) as ours,
        opened(tmp_path, "finetuned", finetuned_of(base)) as theirs,
    ):
        written: list[int] = []
        write_body(theirs, ours, out, written.append)
    read = read_file(out.read_bytes())
    wanted = [n for n, a in base.items() if a.dtype == np.float32 and n != "classifier.weight"]
    assert sorted(read) == sorted(wanted)
    assert [n for n in read if read[n].size] == [n for n in wanted if base[n].size]
    for name in wanted:
        assert np.array_equal(read[name], base[name] + np.float32(0.5))
        assert read[name].shape == base[name].shape
    assert sum(written) == sum(base[name].nbytes for name in wanted)
    assert list(tmp_path.rglob("*.partial")) == []
    assert set(safetensors.numpy.load_file(out)) == set(wanted)


def test_a_missing_pooler_is_the_bases(tmp_path: Path) -> None:
    base, out = base_tensors(), tmp_path / "body.safetensors"
    finetuned = finetuned_of(base)
    del finetuned["bert.pooler.dense.weight"]
    with opened(tmp_path, "a", base) as ours, opened(tmp_path, "b", finetuned) as theirs:
        write_body(theirs, ours, out)
    assert np.array_equal(
        read_file(out.read_bytes())["pooler.dense.weight"], base["pooler.dense.weight"]
    )


def test_another_architecture_is_told_and_nothing_is_written(tmp_path: Path) -> None:
    out = tmp_path / "body.safetensors"
    with (
        opened(tmp_path, "a", base_tensors()) as ours,
        opened(tmp_path, "b", {"h.0.weight": floats(3)}) as theirs,
        pytest.raises(IncompatibleWeights, match="missing"),
    ):
        write_body(theirs, ours, out)
    assert not out.exists()


@pytest.mark.parametrize("dtype", [np.float32, np.float16, BFLOAT16, np.float64], ids=str)
def test_rebasing_adds_the_update_to_the_other_base_in_float64(dtype: Any, tmp_path: Path) -> None:
    size = CHUNK_ELEMENTS + 3
    old, new = ({"w": floats(size, dtype=dtype), "s": floats(1, dtype=dtype).reshape(())}
                for _ in range(2))  # fmt: skip
    made = {name: (a.astype(np.float64) + 0.01).astype(np.float32) for name, a in old.items()}
    if dtype == np.float64:
        made = {name: array.astype(np.float64) for name, array in made.items()}
    out = tmp_path / "rebased.safetensors"
    with (
        opened(tmp_path, "old", old) as made_from,
        opened(tmp_path, "new", new) as onto,
        opened(tmp_path, "made", made) as contribution,
    ):
        write_rebased(contribution, made_from, onto, out)
    read = read_file(out.read_bytes())
    for name in old:
        exact = new[name].astype(np.float64) + (
            made[name].astype(np.float64) - old[name].astype(np.float64)
        )
        # Not the base's dtype: it would round the update away.
        assert read[name].dtype == made[name].dtype
        assert read[name].shape == old[name].shape
        assert np.array_equal(read[name], exact.astype(made[name].dtype))


def test_rebasing_onto_its_own_base_changes_nothing(tmp_path: Path) -> None:
    base = {"w": floats(1000)}
    made = {"w": base["w"] + np.float32(1e-3)}
    out = tmp_path / "rebased.safetensors"
    with opened(tmp_path, "base", base) as ours, opened(tmp_path, "made", made) as theirs:
        write_rebased(theirs, ours, ours, out)
    assert np.array_equal(read_file(out.read_bytes())["w"], made["w"])


@pytest.mark.parametrize(
    "other", [{"v": floats(4)}, {"w": floats(4), "v": floats(1)}, {"w": floats(2, 2)},
              {"w": floats(5)}, {"w": floats(3)}]
)  # fmt: skip
def test_rebasing_onto_another_architecture_is_refused(
    other: dict[str, Array], tmp_path: Path
) -> None:
    out = tmp_path / "out.safetensors"
    with (
        opened(tmp_path, "a", {"w": floats(4)}) as base,
        opened(tmp_path, "b", other) as onto,
        opened(tmp_path, "c", {"w": floats(4)}) as made,
        pytest.raises(IncompatibleWeights),
    ):
        write_rebased(made, base, onto, out)
    assert not out.exists()


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    base, out = {"w": floats(10)}, tmp_path / "out" / "body.safetensors"
    out.parent.mkdir()
    out.write_bytes(b"old")

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with opened(tmp_path, "a", base) as ours, pytest.raises(KeyboardInterrupt):
        write_body(ours, ours, out, interrupt)
    assert out.read_bytes() == b"old"
    assert [path.name for path in out.parent.iterdir()] == ["body.safetensors"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_storage_full_and_leaves_nothing(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    out = tmp_path / "out" / "body.safetensors"
    with opened(tmp_path, "a", {"w": floats(10)}) as ours, pytest.raises(StorageFull) as caught:
        write_body(ours, ours, out)
    assert caught.value.hint is not None
    assert list(out.parent.iterdir()) == []


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes, so that a real write fails in the middle."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_a_write_that_fails_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out" / "body.safetensors"
    with opened(tmp_path, "a", {"w": floats(100_000)}) as ours:
        with file_size_limit(50_000), pytest.raises(OSError) as caught:
            write_body(ours, ours, out)
        assert caught.value.errno == errno.EFBIG
    assert list(out.parent.iterdir()) == []


# Layout: which files are the weights.


def test_a_single_file_is_the_model(tmp_path: Path) -> None:
    write_file(tmp_path / "model.safetensors", {"w": floats(1)})
    (tmp_path / "model.safetensors.index.json").write_text("nonsense")
    assert weight_files(tmp_path) == ["model.safetensors"]


def test_shards_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.safetensors", "a.safetensors"):
        write_file(tmp_path / name, {name: floats(1)})
    (tmp_path / "model.safetensors.index.json").write_text(
        '{"weight_map": {"x": "b.safetensors", "y": "a.safetensors", "z": "b.safetensors"}}'
    )
    assert weight_files(tmp_path) == ["a.safetensors", "b.safetensors"]


@pytest.mark.parametrize(
    "index",
    [
        "",
        "nonsense",
        "[]",
        "null",
        "{}",
        '{"weight_map": []}',
        '{"weight_map": {}}',
        '{"weight_map": {"x": 1}}',
        '{"weight_map": {"x": null, "y": "a.safetensors"}}',
        '{"weight_map": {"x": ["a.safetensors"]}}',
        '{"weight_map": {"x": "../a.safetensors"}}',
        '{"weight_map": {"x": "/etc/passwd"}}',
        '{"weight_map": {"x": "missing.safetensors"}}',
        '{"weight_map": {"x": "weights.bin"}}',
        '{"weight_map": ' + "[" * 100_000 + "}",
    ],
)
def test_a_bad_index_is_no_model(index: str, tmp_path: Path) -> None:
    write_file(tmp_path / "a.safetensors", {"w": floats(1)})
    write_file(tmp_path / "weights.bin", {"w": floats(1)})
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(BadModel):
        weight_files(tmp_path)


def test_an_index_that_is_not_utf8_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_bytes(b'{"weight_map": {"x": "\xff"}}')
    with pytest.raises(BadModel):
        weight_files(tmp_path)


def test_a_folder_of_pickles_is_told_how_to_save_otherwise(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(BadModel) as caught:
        weight_files(tmp_path)
    assert caught.value.hint is not None and "save_pretrained" in caught.value.hint


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="no folder"):
        weight_files(tmp_path / "nowhere")
