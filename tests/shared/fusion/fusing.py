"""A fuse in one call, from dicts of arrays to the arrays of each view, by way of real files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coldfusion_shared.fusion.engine import Onto, fused
from coldfusion_shared.fusion.executor import Executor
from coldfusion_shared.fusion.plan import Plan, make_plan
from coldfusion_shared.fusion.updates import FullUpdate, Update
from coldfusion_shared.fusion.views import View, weights_view
from coldfusion_shared.schemas.recipes import Recipe
from coldfusion_shared.weights.body import body
from coldfusion_shared.weights.checkpoint import Checkpoint
from tests.shared.checkpoints import Array, Tensors, read_file, write_file

Doubles = npt.NDArray[np.float64]
Views = dict[str, dict[str, Array]]
Score = Callable[[Plan], float]

# A matrix, a vector and a scalar: 47 values in all.
SHAPES: dict[str, tuple[int, ...]] = {
    "embed.weight": (7, 5),
    "layer.bias": (11,),
    "layer.scale": (),
}


def checkpoint(folder: Path, tensors: Tensors) -> Checkpoint:
    """Write `tensors` to a new file in `folder` and open it."""
    place = next(folder / str(i) for i in count() if not (folder / str(i)).exists())
    return Checkpoint.from_file(write_file(place / "model.safetensors", tensors))


def full_updates(
    folder: Path, base: Checkpoint, models: Sequence[Tensors], **lists: Sequence[Any]
) -> list[Update]:
    """
    Return the updates c0, c1, ... of `models`, all finetuned from `base`.

    `lists` sets a field of each update, such as ``prior=[1, 2]``.
    """
    found = [
        Update(f"c{place}", FullUpdate(checkpoint(folder, model).tensors, base.tensors))
        for place, model in enumerate(models)
    ]
    for name, values in lists.items():
        pairs = zip(found, values, strict=True)
        found = [replace(update, **{name: value}) for update, value in pairs]
    return found


def plan_of(
    onto: Onto | Checkpoint,
    updates: Sequence[Update],
    recipe: Recipe,
    *,
    executor: Executor | None = None,
    score: Score | None = None,
    with_gram: bool = False,
) -> Plan:
    """Return the plan for `updates` onto a base."""
    base = onto.base if isinstance(onto, Onto) else onto
    spans = body(base.spans())
    return make_plan(spans, updates, recipe, executor, score=score, with_gram=with_gram)


def carried_out(
    plan: Plan,
    onto: Onto | Checkpoint,
    views: Sequence[View] | None = None,
    executor: Executor | None = None,
    **options: Any,
) -> Views:
    """
    Return the arrays of each view, by its name; the weights in the base's dtypes, unless set.

    `options` are those of `fused`.
    """
    full = onto if isinstance(onto, Onto) else Onto(onto)
    wanted = [weights_view(full.base.spans())] if views is None else views
    raw: dict[str, bytearray] = defaultdict(bytearray)
    for piece in fused(plan, full, wanted, executor, **options):
        raw[piece.view] += piece.data
    return {name: read_file(bytes(data)) for name, data in raw.items()}


def fuse(
    onto: Onto | Checkpoint,
    updates: Sequence[Update],
    recipe: Recipe,
    *,
    views: Sequence[View] | None = None,
    executor: Executor | None = None,
    score: Score | None = None,
) -> Views:
    """Plan and carry out."""
    plan = plan_of(onto, updates, recipe, executor=executor, score=score)
    return carried_out(plan, onto, views, executor)


def fused_update(
    folder: Path,
    deltas: Sequence[Tensors],
    method: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    executor: Executor | None = None,
    score: Score | None = None,
    lists: Mapping[str, Sequence[Any]] | None = None,
    **recipe: Any,
) -> dict[str, Doubles]:
    """Fuse `deltas` onto a base of float64 zeros, so that the result is d in full precision."""
    zeros = {name: np.zeros(array.shape) for name, array in deltas[0].items()}
    base = checkpoint(folder, zeros)
    updates = full_updates(folder, base, deltas, **(lists or {}))
    wanted = Recipe(method=method, parameters=dict(parameters or {}), **recipe)
    return fuse(base, updates, wanted, executor=executor, score=score)["weights"]


def random_tensors(
    seed: int,
    scale: float = 1.0,
    shapes: Mapping[str, tuple[int, ...]] = SHAPES,
    dtype: npt.DTypeLike = np.float32,
) -> dict[str, Array]:
    """Return normal values times `scale`."""
    rng = np.random.default_rng(seed)
    return {
        name: np.asarray(rng.standard_normal(shape) * scale).astype(dtype)
        for name, shape in shapes.items()
    }


def random_deltas(
    count: int, scale: float = 1e-2, seed: int = 0, common: float = 0.5
) -> list[dict[str, Array]]:
    """Return `count` updates with something in common, of somewhat different lengths."""
    shared = random_tensors(1000 + seed)
    lengths = np.random.default_rng(seed).uniform(0.5, 2, count) * scale
    found = []
    for place, length in enumerate(lengths):
        own = random_tensors(100 * seed + place)
        found.append(
            {
                name: np.asarray((common * shared[name] + own[name]) * length, np.float32)
                for name in own
            }
        )
    return found


def flat(tensors: Tensors) -> Doubles:
    """Return all values as one vector, float64."""
    return np.concatenate([array.astype(np.float64).ravel() for array in tensors.values()])


def matrix(deltas: Sequence[Tensors]) -> Doubles:
    """Return the updates as the rows of a dense matrix, float64."""
    return np.stack([flat(delta) for delta in deltas])


def added(base: Tensors, delta: Tensors) -> dict[str, Array]:
    """Return ``base + delta`` in the base's dtypes."""
    return {
        name: np.asarray(array.astype(np.float64) + delta[name]).astype(array.dtype)
        for name, array in base.items()
    }
