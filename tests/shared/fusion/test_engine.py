"""The fuse against its definition: torch's mean in float64, rounded once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given
from hypothesis import strategies as st

from coldfusion_shared.errors import InvalidRequest, NonFiniteWeights, UnknownName
from coldfusion_shared.fusion.engine import Onto, fused
from coldfusion_shared.fusion.executor import Executor, Serial, threads
from coldfusion_shared.fusion.methods import check_parameters
from coldfusion_shared.fusion.plan import make_plan
from coldfusion_shared.fusion.updates import FullUpdate, Update
from coldfusion_shared.fusion.views import weights_view
from coldfusion_shared.schemas.recipes import Recipe
from coldfusion_shared.weights.body import body
from coldfusion_shared.weights.checkpoint import CHUNK_ELEMENTS, Checkpoint
from tests.shared.checkpoints import BFLOAT16, Array, read_file, write_file

DTYPES = [np.dtype(np.float32), np.dtype(np.float16), BFLOAT16]
BITS: dict[int, Any] = {2: np.int16, 4: np.int32, 8: np.int64}
SIZE = 2 * CHUNK_ELEMENTS + 5


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


class Files:
    """Models on disk, opened."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self.stack, self.count = folder, stack, 0

    def __call__(self, *files: dict[str, Array]) -> Checkpoint:
        self.count += 1
        folder = self.folder / str(self.count)
        names = [f"model-{i}.safetensors" for i in range(len(files))]
        for name, tensors in zip(names, files, strict=True):
            write_file(folder / name, tensors)
        from coldfusion_shared.weights.checkpoint import FileSource

        sources = {name: FileSource(folder / name) for name in names}
        return self.stack.enter_context(Checkpoint(sources))


@pytest.fixture
def files(tmp_path: Path, stack: ExitStack) -> Files:
    return Files(tmp_path, stack)


MEAN = Recipe()


def fuse(
    base: Checkpoint,
    updates: list[Update],
    file: str = "model-0.safetensors",
    recipe: Recipe = MEAN,
    executor: Executor | None = None,
) -> bytes:
    plan = make_plan(body(base.spans()), updates, recipe, executor or Serial())
    view = weights_view(base.spans())
    pieces = fused(plan, Onto(base), [view], executor)
    raw = b"".join(bytes(piece.data) for piece in pieces if piece.file == file)
    assert len(raw) == view.size(base.headers[file].tensors)
    return raw


def update_of(base: Checkpoint, model: Checkpoint, name: str = "c0", prior: float = 1.0) -> Update:
    return Update(name, FullUpdate(model.tensors, base.tensors), prior)


def updates_of(base: Checkpoint, models: list[Checkpoint]) -> list[Update]:
    return [update_of(base, model, f"c{i}") for i, model in enumerate(models)]


def torch_mean(arrays: list[Array], dtype: np.dtype[Any]) -> Array:
    """Return torch's mean of `arrays` in float64, rounded once to `dtype`."""
    stacked = torch.stack([torch.from_numpy(a.astype(np.float64)) for a in arrays])
    mean = stacked.mean(dim=0)
    to = {"float32": torch.float32, "float16": torch.float16, "float64": torch.float64,
          "bfloat16": torch.bfloat16}[dtype.name]  # fmt: skip
    rounded = mean.to(to)
    # Through float64 and back: exact, and numpy knows no bfloat16 of torch's.
    return rounded.to(torch.float64).numpy().astype(dtype)


def ulps(ours: Array, theirs: Array) -> Array:
    """Return how many representable values lie between the two, element by element."""
    integer = BITS[ours.dtype.itemsize]
    keys = []
    for array in (ours, theirs):
        bits = array.view(integer).astype(np.int64)
        low = np.iinfo(integer).min
        keys.append(np.where(bits < 0, low - bits, bits))
    off: Array = np.abs(keys[0] - keys[1])
    return off


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6])
def test_the_mean_is_torchs_to_the_last_place(
    count: int, dtype: np.dtype[Any], files: Files
) -> None:
    rng = np.random.default_rng(count)
    scale = np.exp(rng.uniform(-8, 1, SIZE))
    base = (rng.standard_normal(SIZE) * scale).astype(dtype)
    models = [
        (base + rng.standard_normal(SIZE) * scale * 0.02).astype(np.float32) for _ in range(count)
    ]
    opened = files({"w": base})
    raw = fuse(opened, updates_of(opened, [files({"w": model}) for model in models]))
    fused = read_file(raw)["w"]
    off = ulps(fused, torch_mean(models, dtype))
    assert off.max() <= 1
    assert np.count_nonzero(off) <= 0.001 * SIZE
    # The test could not fail if nothing moved.
    assert not np.array_equal(fused, base)


def test_float64_is_off_by_roundings_of_float64_alone(files: Files) -> None:
    rng = np.random.default_rng(6)
    base = rng.standard_normal(1000)
    models = [base + 1e-3 * rng.standard_normal(1000) for _ in range(3)]
    opened = files({"w": base})
    raw = fuse(opened, updates_of(opened, [files({"w": model}) for model in models]))
    assert np.abs(read_file(raw)["w"] - np.mean(models, axis=0)).max() < 4e-15


@pytest.mark.parametrize("dtype", [np.dtype(np.float16), BFLOAT16], ids=lambda d: d.name)
def test_contributions_in_the_bases_small_dtype_fuse_too(
    dtype: np.dtype[Any], files: Files
) -> None:
    rng = np.random.default_rng(1)
    base = rng.standard_normal(5000).astype(dtype)
    models = [
        (base.astype(np.float64) * (1 + 0.1 * rng.standard_normal(5000))).astype(dtype)
        for _ in range(3)
    ]
    opened = files({"w": base})
    raw = fuse(opened, updates_of(opened, [files({"w": model}) for model in models]))
    off = ulps(read_file(raw)["w"], torch_mean(models, dtype))
    assert off.max() <= 1
    assert np.count_nonzero(off) <= 0.001 * 5000


@given(
    st.integers(1, 6).flatmap(
        lambda count: st.lists(
            st.lists(st.floats(-1000, 1000, width=32), min_size=4, max_size=4),
            min_size=count + 1,
            max_size=count + 1,
        )
    )
)
def test_the_mean_of_any_values_is_within_one_unit(
    tmp_path_factory: pytest.TempPathFactory, values: list[list[float]]
) -> None:
    arrays = [np.array(row, np.float32) for row in values]
    with ExitStack() as stack:
        files = Files(tmp_path_factory.mktemp("any"), stack)
        base = files({"w": arrays[0]})
        raw = fuse(base, updates_of(base, [files({"w": array}) for array in arrays[1:]]))
    fused = read_file(raw)["w"]
    mean = torch_mean(arrays[1:], np.dtype(np.float32))
    # Where the values cancel, a float64 sum in another order is off by its own last place.
    assert np.allclose(fused, mean, rtol=1.2e-7, atol=1e-12 * 1000)


def test_copies_of_one_contribution_give_that_contribution(files: Files) -> None:
    rng = np.random.default_rng(2)
    base = rng.standard_normal(1000).astype(np.float32)
    model = (base + rng.standard_normal(1000) * 1e-3).astype(np.float32)
    opened = files({"w": base})
    for count in (1, 2, 4):
        raw = fuse(opened, updates_of(opened, [files({"w": model}) for _ in range(count)]))
        assert np.array_equal(read_file(raw)["w"], model)


def test_the_same_inputs_give_the_same_bytes(files: Files) -> None:
    rng = np.random.default_rng(3)
    base = files({"w": rng.standard_normal(SIZE).astype(np.float32)})
    models = [files({"w": rng.standard_normal(SIZE).astype(np.float32)}) for _ in range(3)]
    assert fuse(base, updates_of(base, models)) == fuse(base, updates_of(base, models))


def test_the_output_is_safetensors_in_the_bases_order_with_heads_and_integers_its_own(
    files: Files,
) -> None:
    base_tensors: dict[str, Array] = {
        "z.weight": np.ones((2, 3), np.float32),
        "positions": np.arange(6).reshape(1, 6),
        "a.weight": np.ones(4, np.float32),
        "empty": np.ones((0, 3), np.float32),
        "scalar": np.ones((), np.float32),
        "mask": np.array([True, False]),
        "classifier.weight": np.full((2, 2), 5, np.float32),
    }
    theirs: dict[str, Array] = {
        "a.weight": np.full(4, 3, np.float32),
        "z.weight": np.full((2, 3), 3, np.float32),
        "empty": np.ones((0, 3), np.float32),
        "scalar": np.full((), 3, np.float32),
        "classifier.weight": np.full((2, 2), -1, np.float32),
        "positions": np.zeros((1, 6), np.int64),
    }
    base = files(base_tensors)
    raw = fuse(base, updates_of(base, [files(theirs)]))
    read = read_file(raw)
    assert [n for n in read if n != "empty"] == [n for n in base_tensors if n != "empty"]
    for name in ("z.weight", "a.weight", "scalar"):
        assert np.array_equal(read[name], np.full(base_tensors[name].shape, 3, np.float32))
    for name in ("positions", "mask", "classifier.weight", "empty"):
        assert np.array_equal(read[name], base_tensors[name])
        assert read[name].dtype == base_tensors[name].dtype
    library = safetensors.numpy.load(raw)
    assert all(np.array_equal(library[name], read[name]) for name in read)
    assert len(library) == len(base_tensors)


def test_a_model_of_three_files_keeps_its_files(files: Files) -> None:
    shards = [{f"layer.{i}.weight": np.full(5, i, np.float32)} for i in range(3)]
    base = files(*shards)
    whole = {name: array + 1 for shard in shards for name, array in shard.items()}
    updates = updates_of(base, [files(whole)])
    for index, shard in enumerate(shards):
        read = read_file(fuse(base, updates, f"model-{index}.safetensors"))
        assert list(read) == list(shard)
        assert np.array_equal(read[f"layer.{index}.weight"], np.full(5, index + 1, np.float32))


def test_updates_count_from_their_own_base(files: Files) -> None:
    newest = files({"w": np.full(9, 10, np.float32)})
    older = files({"w": np.full(9, 1, np.float32)})
    first = update_of(newest, files({"w": np.full(9, 14, np.float32)}), "first", 0.5)
    second = update_of(older, files({"w": np.full(9, 3, np.float32)}), "second", 0.25)
    recipe = Recipe(method="weighted_mean", parameters={"normalize": False})
    read = read_file(fuse(newest, [first, second], recipe=recipe))
    assert np.array_equal(read["w"], np.full(9, 10 + 0.5 * 4 + 0.25 * 2, np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.dtype(np.float32), BFLOAT16], ids=lambda d: d.name)
def test_a_value_that_is_no_number_is_named_with_its_contribution(
    value: float, dtype: np.dtype[Any], files: Files
) -> None:
    base = files({"v": np.ones(3, dtype), "w": np.ones(SIZE, dtype)})
    good = {"v": np.ones(3, dtype), "w": np.ones(SIZE, dtype)}
    bad = {"v": np.ones(3, dtype), "w": np.ones(SIZE, dtype)}
    bad["w"][-1] = value
    with pytest.raises(NonFiniteWeights) as caught:
        fuse(base, updates_of(base, [files(good), files(bad)]))
    assert "c1" in caught.value.message and "'w'" in caught.value.message
    assert caught.value.tensors == ("w",)


def test_opposite_infinities_are_no_warning_but_an_error(files: Files) -> None:
    base = files({"w": np.ones(3, np.float32)})
    models = [files({"w": np.full(3, v, np.float32)}) for v in (np.inf, -np.inf)]
    with pytest.raises(NonFiniteWeights, match="c0"):
        fuse(base, updates_of(base, models))


@pytest.mark.parametrize(
    ("dtype", "sent"),
    [(np.float16, np.float32), (np.float32, np.float32), (np.float64, np.float64)],
)
def test_a_fused_value_beyond_its_dtype_is_an_error(dtype: Any, sent: Any, files: Files) -> None:
    largest = float(np.finfo(dtype).max)
    base = files({"w": np.full(3, largest, dtype)})
    older = files({"w": np.full(3, -largest, dtype)})
    update = update_of(older, files({"w": np.full(3, largest, sent)}))
    with pytest.raises(NonFiniteWeights):
        fuse(base, [update])


def test_a_signalling_nan_is_found_like_any_other(files: Files) -> None:
    bits = np.array([0x7F800001, 0x3F800000], np.uint32)
    base = files({"w": np.ones(2, np.float32)})
    with pytest.raises(NonFiniteWeights, match="c0"):
        fuse(base, updates_of(base, [files({"w": bits.view(np.float32)})]))


def test_unknown_methods_and_parameters_are_refused_by_name() -> None:
    with pytest.raises(UnknownName, match="nonsense"):
        check_parameters("nonsense", {})
    with pytest.raises(InvalidRequest, match="strength"):
        check_parameters("mean", {"strength": 3})


def test_ml_dtypes_bfloat16_rounds_to_even_as_torch_does() -> None:
    values = np.random.default_rng(0).standard_normal(10_000).astype(np.float64)
    theirs = torch.from_numpy(values).to(torch.bfloat16).to(torch.float64).numpy()
    assert np.count_nonzero(values.astype(ml_dtypes.bfloat16).astype(np.float64) != theirs) <= 10


@pytest.mark.parametrize("count", [1, 2, 5])
def test_threads_change_no_bit(count: int, files: Files) -> None:
    rng = np.random.default_rng(count)
    shapes = {"a.weight": (SIZE,), "b.weight": (3, 5), "c.weight": (CHUNK_ELEMENTS + 1,)}
    models = [
        {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
        for _ in range(4)
    ]
    base, *others = (files(model) for model in models)
    updates = updates_of(base, others)
    alone = fuse(base, updates)
    assert fuse(base, updates, executor=threads(count)) == alone


def test_threads_pass_on_what_goes_wrong(files: Files) -> None:
    values = np.ones(SIZE, np.float32)
    broken = values.copy()
    broken[-1] = np.nan
    base, good, bad = files({"w": values}), files({"w": 2 * values}), files({"w": broken})
    with pytest.raises(NonFiniteWeights, match="c1"):
        fuse(base, updates_of(base, [good, bad]), executor=threads(3))
