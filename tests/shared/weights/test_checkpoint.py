"""Weights read by position: exact ranges, honest errors, the same bits from every source."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coldfusion_shared.errors import BadModel, MalformedWeights
from coldfusion_shared.fusion.engine import Onto, fused
from coldfusion_shared.fusion.executor import threads
from coldfusion_shared.fusion.plan import make_plan
from coldfusion_shared.fusion.updates import FullUpdate, Update
from coldfusion_shared.fusion.views import master_view, state_views, weights_view
from coldfusion_shared.schemas.recipes import Recipe
from coldfusion_shared.weights.body import body
from coldfusion_shared.weights.checkpoint import (
    CHUNK_ELEMENTS,
    ByteSource,
    Checkpoint,
    FileSource,
    chunks,
)
from tests.shared.checkpoints import BFLOAT16, DTYPE_NAMES, Array, file_bytes, write_file

rng = np.random.default_rng(3)


class MemorySource:
    """Bytes in memory, as an object store would hand them out."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.closed = False

    @property
    def size(self) -> int:
        return len(self.raw)

    def read_into(self, start: int, buffer: memoryview) -> None:
        buffer[:] = self.raw[start : start + len(buffer)]

    def close(self) -> None:
        self.closed = True


def written(folder: Path, raw: bytes) -> Path:
    (folder / "raw").write_bytes(raw)
    return folder / "raw"


def read(source: ByteSource, start: int, size: int) -> bytes:
    buffer = bytearray(size)
    source.read_into(start, memoryview(buffer))
    return bytes(buffer)


RAW = rng.bytes(100_000)


def test_any_range_of_a_file_is_read(tmp_path: Path) -> None:
    source = FileSource(written(tmp_path, RAW))
    assert source.size == len(RAW)
    for start, size in ((0, len(RAW)), (0, 0), (len(RAW), 0), (17, 4096), (len(RAW) - 1, 1)):
        assert read(source, start, size) == RAW[start : start + size]
    source.close()


@pytest.mark.parametrize(("start", "size"), [(0, 100_001), (100_000, 1), (10**9, 5)])
def test_beyond_the_end_there_is_nothing(start: int, size: int, tmp_path: Path) -> None:
    source = FileSource(written(tmp_path, RAW))
    with pytest.raises(MalformedWeights, match=r"raw became shorter"):
        read(source, start, size)
    source.close()


def test_a_file_that_shrinks_is_an_error_and_one_that_grows_is_none(tmp_path: Path) -> None:
    source = FileSource(written(tmp_path, RAW))
    with (tmp_path / "raw").open("ab") as file:
        file.write(b"more")
    assert source.size == len(RAW) and read(source, 0, len(RAW)) == RAW
    os.truncate(tmp_path / "raw", 1000)
    assert read(source, 0, 1000) == RAW[:1000]
    with pytest.raises(MalformedWeights) as caught:
        read(source, 999, 2)
    assert caught.value.hint is not None
    source.close()


def short_reads(most: int) -> Callable[[int, Any, int], int]:
    """Return a preadv that reads at most `most` bytes, as signals and networks make it."""
    reading = os.preadv

    def preadv(file: int, buffers: Any, start: int) -> int:
        return reading(file, [buffers[0][:most]], start)

    return preadv


@pytest.mark.parametrize("most", [1, 7, 4096])
def test_short_reads_are_gone_on_with(
    most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = FileSource(written(tmp_path, RAW))
    monkeypatch.setattr(os, "preadv", short_reads(most))
    assert read(source, 123, 9001) == RAW[123:9124]
    source.close()


def times_open(path: Path) -> int:
    """Return how often this process holds a file open; of others it may open and close any."""
    found = []
    for place in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found.append(place.readlink())
    return found.count(path.resolve())


def test_a_closed_file_gives_nothing_back_and_closes_once(tmp_path: Path) -> None:
    source = FileSource(written(tmp_path, RAW))
    assert times_open(tmp_path / "raw") == 1
    source.close()
    assert times_open(tmp_path / "raw") == 0
    with (tmp_path / "raw").open("rb") as other:
        source.close()
        assert other.read(5) == RAW[:5]
        with pytest.raises(MalformedWeights, match="cannot be read"):
            read(source, 0, 5)


def test_a_source_that_is_dropped_is_closed(tmp_path: Path) -> None:
    source = FileSource(written(tmp_path, RAW))
    assert times_open(tmp_path / "raw") == 1
    del source
    gc.collect()
    assert times_open(tmp_path / "raw") == 0


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FileSource(tmp_path / "nowhere")


def test_many_threads_read_one_file(tmp_path: Path) -> None:
    source = FileSource(written(tmp_path, RAW))
    starts = [int(start) for start in rng.integers(0, len(RAW) - 500, 400)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda start: read(source, start, 500), starts))
    assert found == [RAW[start : start + 500] for start in starts]
    source.close()


# Tensors and checkpoints.


@pytest.mark.parametrize("dtype", DTYPE_NAMES, ids=str)
def test_every_dtype_is_read_in_any_span(dtype: Any, tmp_path: Path) -> None:
    array = rng.integers(0, 2, (7, 11)).astype(dtype)
    with Checkpoint.from_file(write_file(tmp_path / "m.safetensors", {"w": array})) as model:
        tensor = model.tensors["w"]
        for start, stop in ((0, 77), (5, 6), (76, 77), (30, 30)):
            values = tensor.values(start, stop)
            assert values.dtype == dtype and np.array_equal(values, array.reshape(-1)[start:stop])


def test_values_go_into_a_buffer_that_is_given(tmp_path: Path) -> None:
    array = rng.standard_normal(50).astype(np.float32)
    with Checkpoint.from_file(write_file(tmp_path / "m.safetensors", {"w": array})) as model:
        buffer = np.zeros(4 * 60, np.uint8)
        values = model.tensors["w"].values(10, 40, buffer)
    assert np.shares_memory(values, buffer) and np.array_equal(values, array[10:40])
    assert not buffer[4 * 30 :].any()


def test_a_scalar_and_an_empty_tensor_are_read(tmp_path: Path) -> None:
    tensors = {"scalar": np.array(3.5, np.float32), "empty": np.zeros((0, 4), np.float32)}
    with Checkpoint.from_file(write_file(tmp_path / "m.safetensors", tensors)) as model:
        assert model.tensors["scalar"].values(0, 1).tolist() == [3.5]
        assert model.tensors["empty"].values(0, 0).size == 0


@pytest.mark.parametrize(
    "elements", [0, 1, CHUNK_ELEMENTS - 1, CHUNK_ELEMENTS, 3 * CHUNK_ELEMENTS + 1]
)
def test_the_grid_covers_every_element_once(elements: int) -> None:
    spans = list(chunks(elements))
    assert [place for start, stop in spans for place in (start, stop)][1:-1] == [
        edge for start, _ in spans[1:] for edge in (start, start)
    ]
    assert sum(stop - start for start, stop in spans) == elements
    assert all(start % CHUNK_ELEMENTS == 0 for start, _ in spans)


def test_a_checkpoint_closes_all_its_sources() -> None:
    sources = {name: MemorySource(file_bytes({name: np.ones(3)})) for name in "abc"}
    with Checkpoint(sources) as model:
        assert list(model.tensors) == ["a", "b", "c"]
        assert not any(source.closed for source in sources.values())
    assert all(source.closed for source in sources.values())


@pytest.mark.parametrize("raw", [b"", b"1234567", b"\xff" * 8, b"\x02" + bytes(7) + b"[]"])
def test_a_source_that_is_no_weights_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedWeights):
        Checkpoint({"m": MemorySource(raw)})


def test_a_tensor_in_two_files_is_refused() -> None:
    raw = file_bytes({"w": np.ones(3)})
    with pytest.raises(MalformedWeights, match="'w'"):
        Checkpoint({"a": MemorySource(raw), "b": MemorySource(raw)})


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadModel):
        Checkpoint.from_folder(tmp_path)


# Storage changes no bit of a fuse.


def line_of_files() -> list[dict[str, bytes]]:
    """Return a base of two files and three contributions of one, by name."""

    def tensors(seed: int, before: dict[str, Array] | None = None) -> dict[str, Array]:
        draw = np.random.default_rng(seed)
        shapes = {"encoder.weight": (3, CHUNK_ELEMENTS // 2), "encoder.bias": (9,)}
        return {
            name: (draw.standard_normal(shape) + (0 if before is None else before[name])).astype(
                BFLOAT16 if name == "encoder.bias" else np.float32
            )
            for name, shape in shapes.items()
        }

    base = tensors(0)
    parts = {f"{place}": file_bytes({name: base[name]}) for place, name in enumerate(base)}
    return [parts, *({"0": file_bytes(tensors(seed, base))} for seed in (1, 2, 3))]


def fuse_bytes(models: list[Checkpoint], recipe: Recipe, count: int) -> dict[str, bytes]:
    """Return the bytes of every file of every view."""
    base, *finetuned = models
    spans = body(base.spans())
    updates = [
        Update(f"c{place}", FullUpdate(model.tensors, base.tensors))
        for place, model in enumerate(finetuned)
    ]
    plan = make_plan(spans, updates, recipe, threads(count), with_gram=True)
    views = [weights_view(base.spans(), "F16"), master_view(base.spans())]
    views += state_views(plan.kinds.optimizer.state, spans)
    made: dict[str, bytes] = {}
    for piece in fused(plan, Onto(base), views, threads(count)):
        key = f"{piece.view}/{piece.file}"
        made[key] = made.get(key, b"") + bytes(piece.data)
    return made


@pytest.mark.parametrize(
    "recipe",
    [{}, {"method": "geometric_median"}, {"method": "ties"}, {"method": "trimmed_mean"},
     {"optimizer": "yogi", "server_lr": "auto"}],
    ids=str,
)  # fmt: skip
def test_files_and_memory_fuse_to_the_same_bytes(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = line_of_files()
    wanted = Recipe.model_validate(recipe)
    memory = [Checkpoint({n: MemorySource(r) for n, r in parts.items()}) for parts in raw]
    files: list[Checkpoint] = []
    for place, parts in enumerate(raw):
        folder = tmp_path / str(place)
        folder.mkdir()
        for name, content in parts.items():
            (folder / name).write_bytes(content)
        files.append(Checkpoint({name: FileSource(folder / name) for name in parts}))
    exact = fuse_bytes(memory, wanted, 1)
    assert len(exact) >= 4
    assert fuse_bytes(files, wanted, 1) == exact
    monkeypatch.setattr(os, "preadv", short_reads(50_001))
    assert fuse_bytes(files, wanted, 3) == exact
    for model in files:
        model.close()
