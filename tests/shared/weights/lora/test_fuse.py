"""Adapters of different ranks and a whole model in one round, against the dense definition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from coldfusion_shared.errors import NonFiniteWeights
from coldfusion_shared.fusion.engine import Onto, fused
from coldfusion_shared.fusion.executor import Serial, threads
from coldfusion_shared.fusion.gram import Gram, gram_pass
from coldfusion_shared.fusion.plan import make_plan
from coldfusion_shared.fusion.updates import FullUpdate, Update
from coldfusion_shared.fusion.views import weights_view
from coldfusion_shared.schemas.recipes import Recipe
from coldfusion_shared.weights.body import body
from coldfusion_shared.weights.checkpoint import CHUNK_ELEMENTS
from tests.shared.checkpoints import BFLOAT16, Array, read_file
from tests.shared.fusion.fusing import Doubles, fuse
from tests.shared.weights.lora.adapters import (
    adapter,
    normal,
    opened,
    pair,
    product,
    settings,
    values_of,
)

# Rows that end in the middle of a chunk.
SHAPES: dict[str, tuple[int, ...]] = {
    "tall.weight": (CHUNK_ELEMENTS // 100 + 9, 100),
    "small.weight": (12, 20),
    "norm.bias": (12,),
}


class Round:
    """A base, two adapters and a whole model, with what each of them does to the base."""

    def __init__(self, folder: Path, dtype: npt.DTypeLike = np.float32, prior: float = 1) -> None:
        rng = np.random.default_rng(0)
        self.before: dict[str, Array] = {
            name: normal(rng, shape).astype(dtype) for name, shape in SHAPES.items()
        }
        self.base = opened(folder, self.before)
        outer, inner = SHAPES["tall.weight"]
        low = {**pair("tall", inner, outer, rank=2), **pair("small", 20, 12, rank=2)}
        high = pair("small", 20, 12, rank=7, seed=1)
        high["small.lora_magnitude_vector"] = np.abs(normal(rng, (12,))) + 1
        full = {
            name: value.astype(np.float32) + normal(rng, value.shape, 0.1)
            for name, value in self.before.items()
        }
        self.updates = [
            Update("low", adapter(folder, settings(r=2, use_rslora=True), low, self.base)),
            Update(
                "high", adapter(folder, settings(r=7, use_dora=True), high, self.base), prior=prior
            ),
            Update("full", FullUpdate(opened(folder, full).tensors, self.base.tensors), age=1),
        ]
        moved = values_of(self.base, "small.weight") + product(high, "small")
        stretch = high["small.lora_magnitude_vector"][:, None] / np.linalg.norm(
            moved, axis=1, keepdims=True
        )
        zeros = {name: np.zeros(shape) for name, shape in SHAPES.items()}
        self.deltas: list[dict[str, Doubles]] = [
            {
                **zeros,
                "tall.weight": product(low, "tall", rslora=True),
                "small.weight": product(low, "small", rslora=True),
            },
            {**zeros, "small.weight": moved * stretch - values_of(self.base, "small.weight")},
            {name: full[name] - values_of(self.base, name) for name in SHAPES},
        ]


def carry_out(found: Round, recipe: Recipe, workers: int = 1) -> tuple[bytes, list[Gram]]:
    """Return the file, and the Gram matrix that was made on the way."""
    executor, grams = threads(workers), list[Gram]()
    plan = make_plan(body(found.base.spans()), found.updates, recipe, executor, with_gram=True)
    views = [weights_view(found.base.spans())]
    pieces = fused(plan, Onto(found.base), views, executor, compared=grams.append)
    return b"".join(bytes(piece.data) for piece in pieces), grams


def is_gram(gram: Gram, deltas: list[dict[str, Doubles]]) -> bool:
    flat = np.stack([np.concatenate([delta[name].ravel() for name in SHAPES]) for delta in deltas])
    return np.allclose(gram.total, flat @ flat.T, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, BFLOAT16, np.float64])
def test_the_mean_is_that_of_the_dense_updates(tmp_path: Path, dtype: npt.DTypeLike) -> None:
    found = Round(tmp_path, dtype, prior=2)
    recipe = Recipe(method="weighted_mean", staleness_exponent=0)
    raw, grams = carry_out(found, recipe)
    fused_weights = read_file(raw)
    for name, before in found.before.items():
        shares = zip((1 / 4, 2 / 4, 1 / 4), found.deltas, strict=True)
        exact = before.astype(float) + sum(share * delta[name] for share, delta in shares)
        expected = exact.astype(before.dtype).astype(float)
        # Updates are float32, and half-precision values may be rounded to either side.
        room = 1e-6 * np.abs(exact) + 1e-6 + (0.01 * np.abs(exact) if dtype == BFLOAT16 else 0)
        assert (np.abs(fused_weights[name] - expected) <= room).all(), name
    assert is_gram(grams[0], found.deltas)


def test_the_gram_matrix_is_that_of_the_dense_updates(tmp_path: Path) -> None:
    found = Round(tmp_path)
    gram = gram_pass(body(found.base.spans()), found.updates, Serial())
    assert is_gram(gram, found.deltas)


@pytest.mark.parametrize("method", ["mean", "median", "ties", "min_norm"])
def test_threads_change_no_bit(tmp_path: Path, method: str) -> None:
    found = Round(tmp_path)
    one, four = (carry_out(found, Recipe(method=method), workers)[0] for workers in (1, 4))
    assert one == four


def test_a_sick_adapter_is_not_fused(tmp_path: Path) -> None:
    found = Round(tmp_path)
    tensors: dict[str, Array] = pair("small", 20, 12, rank=2)
    tensors["small.lora_B.weight"][3, 1] = np.nan
    sick = Update("sick", adapter(tmp_path, settings(r=2), tensors, found.base))
    with pytest.raises(NonFiniteWeights, match=r"small\.lora_B\.weight"):
        fuse(found.base, [*found.updates, sick], Recipe())
