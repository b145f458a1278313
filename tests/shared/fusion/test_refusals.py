"""What must not be fused silently: other architectures, sources at fault, options without use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coldfusion_shared.errors import IncompatibleWeights, InvalidRequest, NonFiniteWeights
from coldfusion_shared.fusion.consensus import agreeing
from coldfusion_shared.fusion.folders import Contribution, Job, fuse_folders
from coldfusion_shared.fusion.plan import make_plan
from coldfusion_shared.fusion.sparsify.random import DropAndRescale
from coldfusion_shared.fusion.updates import FullUpdate, Scratch, Update
from coldfusion_shared.schemas.recipes import Recipe
from coldfusion_shared.weights.checkpoint import Checkpoint
from coldfusion_shared.weights.tied import fused_tensors
from tests.shared.checkpoints import Array, Tensors, write_file
from tests.shared.fusion.fusing import fused_update

LAYERS = ("encoder.layer.0.weight", "encoder.layer.1.weight")


def model(folder: Path, tensors: Tensors) -> Path:
    write_file(folder / "model.safetensors", tensors)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    return folder


def layers(seed: int, count: int = 2, base: Tensors | None = None) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    start = base or {}
    return {
        name: (start.get(name, 0) + 0.1 * rng.standard_normal((4, 3))).astype(np.float32)
        for name in [f"encoder.layer.{i}.weight" for i in range(count)]
    }


def fuse(tmp_path: Path, base: Tensors, *models: Tensors, out: str = "out", **recipe: Any) -> Any:
    contributions = [
        Contribution(f"c{i}", model(tmp_path / f"c{i}", tensors))
        for i, tensors in enumerate(models)
    ]
    place = tmp_path / "base"
    if not place.exists():
        model(place, base)
    return fuse_folders(Job(place, contributions, Recipe(**recipe), tmp_path / out))


def test_a_model_with_more_layers_is_refused_by_their_names(tmp_path: Path) -> None:
    base = layers(0)
    with pytest.raises(IncompatibleWeights, match="c1") as caught:
        fuse(tmp_path, base, layers(1, base=base), layers(2, count=4, base=base))
    assert "encoder.layer.2.weight" in caught.value.message


def test_heads_and_buffers_of_other_names_are_no_more_layers(tmp_path: Path) -> None:
    base = layers(0)
    further = {"classifier.weight": np.ones((2, 3), np.float32), "encoder.freq": np.ones(3, "f4")}
    fuse(tmp_path, base, {**layers(1, base=base), **further})


@pytest.mark.parametrize("recipe", [{}, {"method": "median"}, {"method": "norm_clipped_mean"}])
def test_a_base_that_is_not_finite_is_blamed_itself(recipe: Any, tmp_path: Path) -> None:
    base = layers(0)
    good = layers(1, base=base)
    base[LAYERS[1]][2, 1] = np.nan
    with pytest.raises(NonFiniteWeights, match="base") as caught:
        fuse(tmp_path, base, good, good | {}, **recipe)
    assert "Leave it out" not in (caught.value.hint or "")


@pytest.mark.parametrize("source", ["master", "optimizer/momentum"])
def test_a_master_or_a_state_that_is_not_finite_is_blamed_itself(
    source: str, tmp_path: Path
) -> None:
    base = layers(0)
    good = layers(1, base=base)
    recipe = {"optimizer": "momentum"}
    job = Job(
        model(tmp_path / "base", base),
        [Contribution("c", model(tmp_path / "c", good))],
        Recipe.model_validate(recipe),
        tmp_path / "v1",
        dtype="BF16",
    )
    fuse_folders(job)
    broken = layers(3)
    broken[LAYERS[0]][0, 0] = np.inf
    write_file(tmp_path / "v1" / source / "model.safetensors", broken)
    again = Job(tmp_path / "v1", job.contributions, job.recipe, tmp_path / "v2")
    with pytest.raises(NonFiniteWeights) as caught:
        # Its dtype is another one by now, so the contribution is counted from the first base.
        fuse_folders(
            Job(
                again.base,
                [Contribution("c", model(tmp_path / "d", _like(tmp_path / "v1")))],
                again.recipe,
                again.out,
            )
        )
    who = "base" if source == "master" else "optimizer"
    assert who in caught.value.message and "Contribution" not in caught.value.message


def _like(folder: Path) -> dict[str, Array]:
    with Checkpoint.from_folder(folder) as opened:
        return {
            name: tensor.values(0, tensor.span.elements).reshape(tensor.span.shape)
            for name, tensor in opened.tensors.items()
        }


@pytest.mark.parametrize("method", ["mean", "median", "krum", "model_stock", "trimmed_mean"])
def test_weights_that_a_method_does_not_look_at_are_refused(method: str, tmp_path: Path) -> None:
    zeros = {"w": np.zeros(3)}
    base = Checkpoint.from_file(write_file(tmp_path / "b.safetensors", zeros))
    updates = [Update(f"c{i}", FullUpdate(base.tensors, base.tensors), 1.0 + i) for i in range(3)]
    with pytest.raises(InvalidRequest, match="takes no weights"):
        make_plan(fused_tensors(base, ()).spans, updates, Recipe(method=method))


def test_fisher_information_that_lacks_a_tensor_counts_nothing_there(tmp_path: Path) -> None:
    base = {**layers(0), "pooler.dense.weight": np.full((2, 2), 5, np.float32)}
    models = [layers(seed, base=base) for seed in (1, 2)]
    for place, tensors in enumerate(models):
        information = {name: np.full(a.shape, place + 1, np.float32) for name, a in tensors.items()}
        write_file(tmp_path / f"c{place}" / "fisher.safetensors", information)
    fuse(tmp_path, base, *models, method="fisher")
    fused = _like(tmp_path / "out")
    assert np.array_equal(fused["pooler.dense.weight"], base["pooler.dense.weight"])
    weighted = (models[0][LAYERS[0]] + 2.0 * models[1][LAYERS[0]]) / 3
    assert np.allclose(fused[LAYERS[0]], weighted, atol=1e-5)


def test_breadcrumbs_keep_values_that_are_as_large_as_the_largest_that_stays(
    tmp_path: Path,
) -> None:
    deltas = [{"w": np.full((20, 10), value)} for value in (0.5, 0.25)]
    fused = fused_update(tmp_path, deltas, "breadcrumbs", {"density": 0.9, "gamma": 0.01})["w"]
    assert np.allclose(fused, 0.375)


def test_a_small_density_of_dare_is_not_biased(tmp_path: Path) -> None:
    ones = {"w": np.ones(2**21, np.float32)}
    zeros = {"w": np.zeros(2**21, np.float32)}
    one, zero = (
        Checkpoint.from_file(write_file(tmp_path / f"{i}.safetensors", t))
        for i, t in enumerate((ones, zeros))
    )
    span, scratch = one.tensors["w"].span, Scratch()
    reader = FullUpdate(one.tensors, zero.tensors)
    out = np.empty(span.elements, np.float32)
    DropAndRescale(1.5e-7, 0, "c").read(reader, None, span, 0, span.elements, out, scratch)
    kept = out[out > 0]
    # Draws are multiples of 2^-24; what is kept is divided by the share of them that is below.
    assert np.allclose(kept, 1 / (np.ceil(1.5e-7 * 2**24) / 2**24))


def test_no_order_decides_a_sign_and_no_scale_of_weights_is_lost() -> None:
    values = np.array([[-1.0], [1e8], [-1e8]], np.float32)
    for order in ([0, 1, 2], [1, 2, 0], [2, 1, 0]):
        found = agreeing(values[order], np.ones(3), normalize=True)
        assert found[0] < 0
    tiny = agreeing(values, np.full(3, 1e-50), normalize=True)
    assert np.array_equal(tiny, agreeing(values, np.ones(3), normalize=True))
