"""What holds for every fusion method, whatever the shapes, dtypes and number of contributions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coldfusion_shared.errors import InvalidRequest, NonFiniteWeights
from coldfusion_shared.fusion.executor import Executor, Serial, threads
from coldfusion_shared.fusion.methods import CoordinateMethod, WeightMethod, discover
from coldfusion_shared.fusion.plan import Plan
from coldfusion_shared.fusion.updates import Update
from coldfusion_shared.schemas.recipes import Recipe
from coldfusion_shared.weights.checkpoint import CHUNK_ELEMENTS, Checkpoint
from tests.shared.checkpoints import BFLOAT16, Array, Tensors
from tests.shared.fusion.fusing import (
    Doubles,
    Score,
    carried_out,
    checkpoint,
    flat,
    full_updates,
    fuse,
    fused_update,
    matrix,
    random_deltas,
    random_tensors,
)

METHODS = sorted(discover())
# Krum's rule with one neighbour left ties for the two that are nearest to each other, so the order
# of the contributions decides; Bulyan always comes to that. Tests of their own show it.
SYMMETRIC = [name for name in METHODS if discover()[name].symmetric]
# With one contribution, its own model is the definition of these.
OWN_MODEL: dict[str, dict[str, Any]] = {
    "mean": {},
    "weighted_mean": {},
    "norm_clipped_mean": {},
    "normalized_mean": {},
    "geometric_median": {},
    "centered_clipping": {},
    "min_norm": {},
    "greedy_soup": {},
    "median": {},
    "trimmed_mean": {},
    "ties": {"density": 1},
    "breadcrumbs": {"density": 1},
    "della": {"density": 1},
    "sce": {},
}
DTYPES = [np.dtype(np.float32), np.dtype(np.float16), BFLOAT16, np.dtype(np.float64)]
# The distance from 1 to the next value.
PRECISION = {DTYPES[0]: 2.0**-23, DTYPES[1]: 2.0**-10, BFLOAT16: 2.0**-7, DTYPES[3]: 2.0**-52}
FEW = settings(max_examples=3)


def fewest(name: str) -> int:
    method = discover()[name]
    return method.minimum(method.parameters())


def most(name: str, otherwise: int) -> int:
    maximum = discover()[name].maximum
    return otherwise if maximum is None else maximum


def some(name: str, count: int = 5) -> int:
    """Return `count`, or what the method can work on instead."""
    return min(max(fewest(name), count), most(name, count))


def needs_fisher(name: str) -> bool:
    method = discover()[name]
    return isinstance(method, CoordinateMethod) and method.needs_fisher


def random_score(onto: Checkpoint) -> Score:
    """Return a score that reads the base that it is given, as a real one does."""

    def score(plan: Plan) -> float:
        weights = flat(carried_out(plan, onto)["weights"])
        with np.errstate(over="ignore"):
            return float(np.cos(np.arange(weights.size)) @ weights)

    return score


def score_for(name: str, onto: Checkpoint) -> Score | None:
    method = discover()[name]
    asks = isinstance(method, WeightMethod) and method.needs_score
    return random_score(onto) if asks else None


def updates_for(
    name: str, folder: Path, base: Checkpoint, models: Sequence[Tensors]
) -> list[Update]:
    """Return updates with everything that the method may ask for."""
    lists: dict[str, list[Any]] = {}
    if discover()[name].uses_prior:
        lists["prior"] = [1 + 0.25 * (i % 3) for i in range(len(models))]
    if needs_fisher(name):
        lists["fisher"] = [
            checkpoint(
                folder,
                {
                    key: np.full(array.shape, 1 + place, np.float32)
                    for key, array in models[0].items()
                },
            ).tensors
            for place in range(len(models))
        ]
    return full_updates(folder, base, models, **lists)


def fuse_by(
    name: str,
    base: Checkpoint,
    updates: Sequence[Update],
    parameters: dict[str, Any] | None = None,
    executor: Executor | None = None,
) -> dict[str, Array]:
    recipe = Recipe(method=name, parameters=parameters or {})
    score = score_for(name, base)
    return fuse(base, updates, recipe, executor=executor, score=score)["weights"]


def update_by(name: str, folder: Path, deltas: Sequence[Tensors]) -> Doubles:
    """Return d in full precision."""
    base = checkpoint(folder, {key: np.zeros(array.shape) for key, array in deltas[0].items()})
    return flat(fuse_by(name, base, updates_for(name, folder, base, deltas)))


@dataclass(frozen=True)
class Case:
    """A base and models of random shapes and dtypes."""

    base: dict[str, Array]
    models: list[dict[str, Array]]


def noisy(array: Array, rng: np.random.Generator, dtype: np.dtype[Any]) -> Array:
    noise = rng.standard_normal(array.shape) * 0.05
    return np.asarray(array.astype(np.float64) + noise).astype(dtype)


@st.composite
def cases(draw: st.DrawFn, low: int, high: int) -> Case:
    count = draw(st.integers(low, high))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    sides = st.lists(st.integers(0, 9), max_size=3).map(tuple)
    shapes = [(), (0,), (5,), *draw(st.lists(sides, max_size=3)), (40, 30)]
    base = {
        f"layer.{place}": noisy(np.zeros(shape), rng, draw(st.sampled_from(DTYPES)))
        for place, shape in enumerate(shapes)
    }
    own = [draw(st.booleans()) for _ in range(count)]
    models = [
        {
            name: noisy(array, rng, array.dtype if same else np.dtype(np.float32))
            for name, array in base.items()
        }
        for same in own
    ]
    return Case(base, models)


def assert_same_bytes(one: Tensors, other: Tensors) -> None:
    assert one.keys() == other.keys()
    for name, array in one.items():
        assert array.dtype == other[name].dtype
        assert array.shape == other[name].shape
        assert array.tobytes() == other[name].tobytes(), name


@pytest.mark.parametrize("name", METHODS)
@FEW
@given(data=st.data())
def test_executors_change_no_bit(
    name: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    case = data.draw(cases(fewest(name), most(name, 12)))
    folder = tmp_path_factory.mktemp("fuse")
    base = checkpoint(folder, case.base)
    updates = updates_for(name, folder, base, case.models)
    alone = fuse_by(name, base, updates, executor=Serial())
    assert {key: array.dtype for key, array in alone.items()} == {
        key: array.dtype for key, array in case.base.items()
    }
    for count in (2, 3):
        assert_same_bytes(fuse_by(name, base, updates, executor=threads(count)), alone)


@pytest.mark.parametrize("name", METHODS)
def test_executors_change_no_bit_over_several_chunks(name: str, tmp_path: Path) -> None:
    shapes = {"a.weight": (CHUNK_ELEMENTS + 77,), "b.weight": (13, 11), "c.weight": (600, 220)}
    tensors = [random_tensors(seed, 0.1, shapes) for seed in range(some(name, 3) + 1)]
    base = checkpoint(tmp_path, tensors[0])
    updates = updates_for(name, tmp_path, base, tensors[1:])
    alone = fuse_by(name, base, updates, executor=Serial())
    for count in (2, 3):
        assert_same_bytes(fuse_by(name, base, updates, executor=threads(count)), alone)


@pytest.mark.parametrize("name", SYMMETRIC)
@FEW
@given(data=st.data())
def test_the_order_of_contributions_is_without_meaning(
    name: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    count = data.draw(st.integers(4 if name == "krum" else fewest(name), 12))
    deltas = random_deltas(count, seed=data.draw(st.integers(0, 100)))
    order = data.draw(st.permutations(range(count)))
    folder = tmp_path_factory.mktemp("fuse")
    base = checkpoint(folder, {key: np.zeros(array.shape) for key, array in deltas[0].items()})
    updates = updates_for(name, folder, base, deltas)
    fused = flat(fuse_by(name, base, updates))
    permuted = flat(fuse_by(name, base, [updates[place] for place in order]))
    assert permuted == pytest.approx(fused, rel=1e-6, abs=1e-6 * np.abs(matrix(deltas)).max())


@pytest.mark.parametrize(("name", "count"), [("krum", 3), ("bulyan", 7)])
def test_the_order_decides_no_tie(name: str, count: int, tmp_path: Path) -> None:
    deltas = random_deltas(count)
    base = checkpoint(tmp_path, {key: np.zeros(array.shape) for key, array in deltas[0].items()})
    updates = updates_for(name, tmp_path, base, deltas)
    fused = [flat(fuse_by(name, base, updates[::step])) for step in (1, -1)]
    assert fused[0] == pytest.approx(fused[1], rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", OWN_MODEL)
@FEW
@given(case=cases(1, 1))
def test_one_contribution_alone_becomes_the_base(
    name: str, case: Case, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("fuse")
    base = checkpoint(folder, case.base)
    updates = updates_for(name, folder, base, case.models)
    fused = fuse_by(name, base, updates, OWN_MODEL[name])
    for key, array in fused.items():
        model = case.models[0][key]
        if isinstance(discover()[name], WeightMethod):
            assert np.array_equal(array, model.astype(array.dtype))
        else:
            # The update itself is float32.
            values = model.astype(np.float64)
            sizes = np.abs(values) + np.abs(case.base[key].astype(np.float64))
            step = max(PRECISION[array.dtype], PRECISION[DTYPES[0]])
            assert (np.abs(array.astype(np.float64) - values) <= step * sizes + 1e-7).all()


@pytest.mark.parametrize("name", METHODS)
@FEW
@given(data=st.data())
def test_updates_of_zero_leave_the_base(
    name: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    case = data.draw(cases(1, 1))
    count = data.draw(st.integers(fewest(name), most(name, 12)))
    folder = tmp_path_factory.mktemp("fuse")
    base = checkpoint(folder, case.base)
    fused = fuse_by(name, base, updates_for(name, folder, base, [case.base] * count))
    for key, array in fused.items():
        if array.dtype == np.float64:
            # Models by weights that sum up to 1, with roundings in float64.
            assert np.allclose(array, case.base[key], rtol=1e-14, atol=0)
        else:
            assert array.tobytes() == case.base[key].tobytes()


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("exponent", [100, -100])
def test_updates_of_any_size_fuse_alike(name: str, exponent: int, tmp_path: Path) -> None:
    # 2**100 is 1e30; a power of two, so that nothing is rounded otherwise.
    deltas = random_deltas(some(name, 7), scale=1.0)
    scaled = [
        {key: np.asarray(array * np.float32(2.0**exponent)) for key, array in delta.items()}
        for delta in deltas
    ]
    plain, fused = update_by(name, tmp_path, deltas), update_by(name, tmp_path, scaled)
    assert np.isfinite(fused).all()
    assert plain.any()
    assert fused * 2.0**-exponent == pytest.approx(plain, rel=1e-6, abs=1e-9)


def dense_clipped(dense: Doubles) -> Doubles:
    lengths = np.linalg.norm(dense, axis=1)
    scale = np.minimum(1, np.median(lengths) / lengths)
    clipped: Doubles = (dense * scale[:, None]).mean(axis=0)
    return clipped


@pytest.mark.parametrize("exponent", [100, -50, -100])
def test_sce_selects_alike_at_any_size(exponent: int, tmp_path: Path) -> None:
    deltas = random_deltas(3, scale=1.0)
    scaled = [
        {key: np.asarray(array * np.float32(2.0**exponent)) for key, array in delta.items()}
        for delta in deltas
    ]
    plain, fused = (
        flat(fused_update(tmp_path, those, "sce", {"select_topk": 0.5}))
        for those in (deltas, scaled)
    )
    assert fused * 2.0**-exponent == pytest.approx(plain, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("size", [1e6, 1e15, 1e30])
def test_one_huge_update_is_clipped_and_counts_as_the_median_one(
    size: float, tmp_path: Path
) -> None:
    deltas = random_deltas(5, scale=1.0)
    deltas[3] = {key: np.asarray(array * np.float32(size)) for key, array in deltas[3].items()}
    fused = flat(fused_update(tmp_path, deltas, "norm_clipped_mean"))
    assert fused == pytest.approx(dense_clipped(matrix(deltas)), rel=1e-6)


ROBUST = ["geometric_median", "krum", "multi_krum", "bulyan", "median", "trimmed_mean",
          "centered_clipping", "norm_clipped_mean", "min_norm"]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "size"),
    [(name, size) for name in ROBUST for size in (1e6, 1e15, 1e20, 1e30)],
)
def test_one_huge_update_does_not_move_a_robust_method_far(
    name: str, size: float, tmp_path: Path
) -> None:
    deltas = random_deltas(7, scale=1.0)
    honest = np.abs(np.delete(matrix(deltas), 3, axis=0)).max()
    deltas[3] = {key: np.asarray(array * np.float32(size)) for key, array in deltas[3].items()}
    fused = flat(fused_update(tmp_path, deltas, name))
    assert np.abs(fused).max() < 3 * honest


NON_FINITE = [(np.nan, DTYPES[0]), (np.inf, DTYPES[1]), (-np.inf, DTYPES[2]), (np.inf, DTYPES[3])]


@pytest.mark.parametrize(
    ("name", "value", "dtype"),
    [
        pytest.param(
            name,
            value,
            dtype,
            id=f"{name}-{value}-{dtype.name}",
        )
        for name in METHODS
        for value, dtype in NON_FINITE
    ],
)
def test_what_is_not_finite_is_refused_by_name(
    name: str, value: float, dtype: np.dtype[Any], tmp_path: Path
) -> None:
    models: list[dict[str, Array]] = [
        random_tensors(place, dtype=dtype) for place in range(some(name, 3))
    ]
    models[1]["layer.bias"][7] = value
    base = checkpoint(tmp_path, random_tensors(99, dtype=dtype))
    updates = updates_for(name, tmp_path, base, models)
    with pytest.raises(NonFiniteWeights, match=r"c1 .*'layer\.bias'") as caught:
        fuse_by(name, base, updates)
    assert caught.value.tensors == ("layer.bias",)


@pytest.mark.parametrize("name", METHODS)
def test_what_is_not_finite_is_found_beyond_the_first_chunk(name: str, tmp_path: Path) -> None:
    shapes = {"a.weight": (CHUNK_ELEMENTS + 77,)}
    models = [random_tensors(place, shapes=shapes) for place in range(some(name, 3))]
    models[-1]["a.weight"][-1] = np.nan
    base = checkpoint(tmp_path, random_tensors(99, shapes=shapes))
    updates = updates_for(name, tmp_path, base, models)
    with pytest.raises(NonFiniteWeights, match=f"{updates[-1].id} .*'a.weight'"):
        fuse_by(name, base, updates, executor=threads(2))


@pytest.mark.parametrize("name", ["breadcrumbs", "ties", "norm_clipped_mean"])
def test_what_is_not_finite_is_refused_without_any_weight_too(name: str, tmp_path: Path) -> None:
    deltas = random_deltas(3)
    deltas[1]["layer.bias"][7] = np.nan
    with pytest.raises(NonFiniteWeights, match=r"c1 .*'layer\.bias'"):
        fused_update(tmp_path, deltas, name, lists={"prior": [1.0, 0.0, 1.0]})


@pytest.mark.parametrize(
    ("name", "parameters", "needed"),
    [
        *((name, {}, fewest(name)) for name in METHODS if fewest(name) > 1),
        ("krum", {"byzantine": 2}, 7),
        ("multi_krum", {"byzantine": 3}, 9),
        ("multi_krum", {"keep": 5}, 5),
        ("bulyan", {"byzantine": 1}, 7),
        ("bulyan", {"byzantine": 2}, 11),
    ],
)
def test_too_few_contributions_are_refused_with_the_number_that_is_needed(
    name: str, parameters: dict[str, Any], needed: int, tmp_path: Path
) -> None:
    deltas = random_deltas(needed)
    assert flat(fused_update(tmp_path, deltas, name, parameters)).any()
    wanted = f"{name!r} needs at least {needed} contributions .* there are {needed - 1}"
    with pytest.raises(InvalidRequest, match=wanted):
        fused_update(tmp_path, deltas[1:], name, parameters)


@pytest.mark.parametrize("name", METHODS)
def test_no_contribution_at_all_is_refused(name: str, tmp_path: Path) -> None:
    base = checkpoint(tmp_path, random_tensors(1))
    with pytest.raises(InvalidRequest, match="needs at least"):
        fuse_by(name, base, [])


@pytest.mark.parametrize("name", METHODS)
def test_an_unknown_parameter_is_refused_by_name(name: str, tmp_path: Path) -> None:
    base = checkpoint(tmp_path, random_tensors(1))
    updates = updates_for(name, tmp_path, base, [random_tensors(i) for i in range(some(name))])
    with pytest.raises(InvalidRequest, match=f"'strength' of the fusion method {name!r}"):
        fuse_by(name, base, updates, {"strength": 3})
