"""The cap on a round's step, and the step's norm, against the definition on dense vectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from coldfusion_shared.errors import NonFiniteWeights
from coldfusion_shared.fusion import optimizers
from coldfusion_shared.fusion.engine import Onto, Step, capped
from coldfusion_shared.fusion.executor import threads
from coldfusion_shared.fusion.optimizers import Moment
from coldfusion_shared.fusion.plan import CAPPING, FUSING, Plan
from coldfusion_shared.fusion.updates import Update
from coldfusion_shared.fusion.views import master_view, state_views, weights_view
from coldfusion_shared.schemas.recipes import Recipe
from coldfusion_shared.weights.body import body
from coldfusion_shared.weights.checkpoint import CHUNK_ELEMENTS, Checkpoint
from tests.shared.checkpoints import BFLOAT16, Array, Tensors
from tests.shared.fusion.fusing import (
    Doubles,
    Views,
    added,
    carried_out,
    checkpoint,
    flat,
    full_updates,
    fuse,
    matrix,
    plan_of,
    random_deltas,
    random_tensors,
)
from tests.shared.fusion.model_folders import fuse as fuse_folders
from tests.shared.fusion.model_folders import read_model, tiny_tensors, write_line
from tests.shared.fusion.test_folders import T5_NAMES, t5, three
from tests.shared.fusion.test_fusion_properties import METHODS, some, updates_for

START: dict[str, Array] = random_tensors(77, dtype=np.float64)
ORIGIN: dict[str, Array] = random_tensors(78, dtype=np.float64)
LARGE = {"a.weight": (2 * CHUNK_ELEMENTS + 77,), "b.weight": (13, 11), "c.bias": (5,)}


def norm(values: Doubles) -> float:
    return float(np.linalg.norm(values))


def stepped(
    onto: Onto | Checkpoint, updates: list[Update], recipe: Recipe, **options: Any
) -> tuple[Views, Step]:
    """Fuse, and return how far the base moved, too."""
    steps: list[Step] = []
    plan = plan_of(onto, updates, recipe, score=score_of_first if scored(recipe) else None)
    made = carried_out(plan, onto, stepped=steps.append, **options)
    (step,) = steps
    return made, step


def scored(recipe: Recipe) -> bool:
    return recipe.method == "greedy_soup"


def score_of_first(plan: Plan) -> float:
    return float(plan.tensor_weights("layer.bias")[0])


def assert_capped(before: Doubles, free: Doubles, found: Doubles, share: float) -> None:
    """The step is the one without a cap, scaled down to the cap."""
    limit, whole = share * norm(before), norm(free - before)
    assert limit < whole
    assert norm(found - before) == pytest.approx(limit, rel=1e-9)
    assert found - before == pytest.approx((free - before) * limit / whole, abs=1e-9 * limit)


# Every method, learning rate and pull.


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("pull", [0.0, 0.25])
def test_a_step_of_every_method_is_scaled_down_as_a_whole(
    name: str, pull: float, tmp_path: Path
) -> None:
    opened = checkpoint(tmp_path, START)
    onto = Onto(opened, origin=checkpoint(tmp_path, ORIGIN).tensors)
    models = [added(START, delta) for delta in random_deltas(some(name), scale=1.0)]
    updates = updates_for(name, tmp_path, opened, models)
    recipe = Recipe(method=name, server_lr=2.0, pull=pull)
    free, whole = stepped(onto, updates, recipe)
    if whole.norm == 0:
        pytest.fail("The test could not fail if nothing moved.")
    share = 0.3 * whole.relative_norm
    made, step = stepped(onto, updates, recipe.model_copy(update={"step_cap": share}))
    assert_capped(flat(START), flat(free["weights"]), flat(made["weights"]), share)
    assert step.factor == pytest.approx(0.3, rel=1e-9)
    assert step.relative_norm == pytest.approx(share, rel=1e-9)
    assert step.relative_norm <= share
    assert whole.factor == 1


@pytest.mark.parametrize("method", ["mean", "geometric_median", "median"])
@pytest.mark.parametrize("server_lr", [0.5, "auto", 50.0])
def test_the_cap_holds_at_any_learning_rate(
    method: str, server_lr: float | str, tmp_path: Path
) -> None:
    opened = checkpoint(tmp_path, START)
    updates = full_updates(tmp_path, opened, [added(START, d) for d in random_deltas(4, scale=1)])
    recipe = Recipe.model_validate({"method": method, "server_lr": server_lr, "step_cap": 0.01})
    made = fuse(opened, updates, recipe)["weights"]
    assert norm(flat(made) - flat(START)) == pytest.approx(0.01 * norm(flat(START)), rel=1e-9)


@pytest.mark.parametrize("optimizer", ["none", "momentum", "adam"])
def test_a_cap_that_is_not_reached_changes_no_byte(optimizer: str, tmp_path: Path) -> None:
    opened = checkpoint(tmp_path, random_tensors(3))
    updates = full_updates(tmp_path, opened, [random_tensors(4), random_tensors(5)])
    views = all_views(opened, optimizer)
    free = fuse(opened, updates, Recipe(optimizer=optimizer), views=views)
    recipe = Recipe(optimizer=optimizer, step_cap=10)
    made, step = stepped(opened, updates, recipe, views=views)
    assert step.factor == 1
    assert_same_bytes(made, free)


def assert_same_bytes(ours: Views, theirs: Views) -> None:
    assert ours.keys() == theirs.keys()
    for view, tensors in ours.items():
        assert all(tensors[name].tobytes() == theirs[view][name].tobytes() for name in tensors)


def test_a_base_of_zeros_stays_where_it_is(tmp_path: Path) -> None:
    opened = checkpoint(tmp_path, {"w": np.zeros(5)})
    updates = full_updates(tmp_path, opened, [{"w": np.ones(5)}])
    made, step = stepped(opened, updates, Recipe(step_cap=0.5))
    assert not made["weights"]["w"].any()
    assert (step.relative_norm, step.factor) == (0, 0)
    _, step = stepped(opened, updates, Recipe())
    assert step.relative_norm == np.inf


# Optimizers: their state must not carry a giant on.


def all_views(base: Checkpoint, optimizer: str) -> list[Any]:
    kept = optimizers.discover()[optimizer].state
    return [weights_view(base.spans()), *state_views(kept, body(base.spans()))]


def rounds(folder: Path, recipe: Recipe, sizes: list[float]) -> Iterator[tuple[Views, Step]]:
    """Fuse round after round, each with three updates times a size."""
    kept = optimizers.discover()[recipe.optimizer].state
    onto = Onto(checkpoint(folder, START))
    for place, size in enumerate(sizes):
        base = {name: tensor.values(0, tensor.span.elements).reshape(tensor.span.shape)
                for name, tensor in onto.base.tensors.items()}  # fmt: skip
        models = [added(base, delta) for delta in random_deltas(3, size, seed=place)]
        updates = full_updates(folder, onto.base, models)
        made, step = stepped(onto, updates, recipe, views=all_views(onto.base, recipe.optimizer))
        yield made, step
        state = {name: checkpoint(folder, made[name]).tensors for name in kept}
        onto = Onto(checkpoint(folder, made["weights"]), state=state, steps=place + 1)


def dense_rounds(
    recipe: Recipe, sizes: list[float]
) -> Iterator[tuple[Doubles, dict[str, Doubles]]]:
    """Return the same weights and states by the definition, on whole vectors in float64."""
    optimizer = optimizers.discover()[recipe.optimizer]
    parameters = optimizers.check_parameters(recipe.optimizer, recipe.optimizer_parameters)
    rate = recipe.server_lr if isinstance(recipe.server_lr, float) else optimizer.server_lr
    assert recipe.step_cap is not None
    weights = flat(START)
    state: Mapping[str, Doubles] = {name: np.zeros(weights.size) for name in optimizer.state}
    for place, size in enumerate(sizes):
        d = matrix(random_deltas(3, size, seed=place)).mean(axis=0)
        limit = recipe.step_cap * norm(weights)
        d = d * min(1, limit / (rate * norm(d)))
        scale = float(np.sqrt(np.mean(d**2)))
        moved, state = optimizer.step(parameters, Moment(d, state, place + 1, scale))
        step = rate * moved
        weights = weights + step * min(1, limit / norm(step))
        yield weights, dict(state)


@pytest.mark.parametrize("optimizer", ["momentum", "nesterov", "adam", "yogi"])
@pytest.mark.parametrize("sizes", [[0.01, 100.0, 0.01, 0.02], [0.05] * 5], ids=str)
def test_weights_and_state_are_those_of_the_definition(
    optimizer: str, sizes: list[float], tmp_path: Path
) -> None:
    recipe = Recipe(optimizer=optimizer, server_lr=0.8, step_cap=0.02)
    before, capped_rounds = flat(START), 0
    pairs = zip(rounds(tmp_path, recipe, sizes), dense_rounds(recipe, sizes), strict=True)
    for (made, step), (weights, state) in pairs:
        found = flat(made["weights"])
        assert found == pytest.approx(weights, abs=1e-6 * norm(weights - before))
        for name, values in state.items():
            assert flat(made[name]) == pytest.approx(values, rel=1e-5, abs=1e-7 * norm(values))
        assert step.relative_norm <= 0.02
        assert norm(found - before) == pytest.approx(step.norm, rel=1e-9)
        assert step.base_norm == pytest.approx(norm(before), rel=1e-12)
        capped_rounds += step.factor < 1
        before = found
    assert capped_rounds > 0


def test_a_giant_round_is_forgotten_as_soon_as_one_that_just_meets_the_cap(tmp_path: Path) -> None:
    recipe = Recipe(optimizer="momentum", step_cap=0.01)
    giant = [step.norm for _, step in rounds(tmp_path, recipe, [1e6, *[1e-9] * 30])]
    assert giant[0] == pytest.approx(0.01 * norm(flat(START)), rel=1e-9)
    # What is left of it is 0.9 of the round before: without the cut it would stay at the cap.
    ratios = np.array(giant[1:]) / giant[:-1]
    assert ratios == pytest.approx(0.9, rel=1e-3)


# The step's norm.


@pytest.mark.parametrize(
    "recipe",
    [{}, {"method": "krum"}, {"method": "median"}, {"pull": 0.5}, {"optimizer": "nesterov"},
     {"server_lr": 3.0}],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("with_gram", [False, True])
def test_the_norms_of_step_and_base_are_numpys(
    recipe: dict[str, Any], with_gram: bool, tmp_path: Path
) -> None:
    base = random_tensors(1, shapes=LARGE, dtype=np.float64)
    opened = checkpoint(tmp_path, base)
    onto = Onto(opened, origin=opened.tensors)
    models = [random_tensors(seed, shapes=LARGE) for seed in (2, 3, 4)]
    updates, steps = full_updates(tmp_path, opened, models), list[Step]()
    plan = plan_of(onto, updates, Recipe.model_validate(recipe), with_gram=with_gram)
    made = carried_out(plan, onto, stepped=steps.append)["weights"]
    assert steps[0].base_norm == pytest.approx(norm(flat(base)), rel=1e-12)
    assert steps[0].norm == pytest.approx(norm(flat(made) - flat(base)), rel=1e-12)
    assert steps[0].relative_norm == steps[0].norm / steps[0].base_norm
    # Measuring it changes nothing.
    assert_same_bytes({"weights": made}, carried_out(plan, onto))


def test_heads_and_integers_do_not_count_and_tied_tensors_count_once(tmp_path: Path) -> None:
    base = {**tiny_tensors(), "classifier.weight": np.full((2, 6), 1e6, np.float32)}
    place, contributions = write_line(tmp_path / "one", base, three(base))
    report = fuse_folders(place, contributions, tmp_path / "one" / "out")
    fused = read_model(tmp_path / "one" / "out")
    shared = [name for name, array in base.items()
              if array.dtype == np.float32 and name != "classifier.weight"]  # fmt: skip
    before, after = (flat({name: one[name] for name in shared}) for one in (base, fused))
    assert report.base_norm == pytest.approx(norm(before), rel=1e-9)
    assert report.step_norm == pytest.approx(norm(after - before), rel=1e-4)
    tied = t5(0, T5_NAMES)
    place, contributions = write_line(tmp_path / "two", tied, [t5(1, T5_NAMES), t5(2, T5_NAMES)])
    report = fuse_folders(place, contributions, tmp_path / "two" / "out", {"step_cap": 0.1})
    once = {name: array for name, array in tied.items() if name not in T5_NAMES[1:]}
    fused = read_model(tmp_path / "two" / "out")
    moved = flat({name: fused[name] for name in once}) - flat(once)
    assert report.base_norm == pytest.approx(norm(flat(once)), rel=1e-9)
    assert norm(moved) == pytest.approx(0.1 * norm(flat(once)), rel=1e-6)
    assert all(fused[name].tobytes() == fused[T5_NAMES[0]].tobytes() for name in T5_NAMES)


def test_the_cap_is_on_the_master_where_there_is_one(tmp_path: Path) -> None:
    master: Tensors = random_tensors(1)
    published = {name: array.astype(BFLOAT16) for name, array in master.items()}
    opened, fine = checkpoint(tmp_path, published), checkpoint(tmp_path, master)
    updates = full_updates(tmp_path, opened, [random_tensors(2), random_tensors(3)])
    views = [weights_view(opened.spans()), master_view(opened.spans())]
    made, step = stepped(fine, updates, Recipe(step_cap=1e-3), views=views)
    assert step.base_norm == pytest.approx(norm(flat(master)), rel=1e-12)
    moved = norm(flat(made["master"]) - flat(master))
    assert moved == pytest.approx(1e-3 * norm(flat(master)), rel=1e-3)
    for name, array in made["master"].items():
        assert made["weights"][name].tobytes() == array.astype(BFLOAT16).tobytes()


# The pass that the cap takes.


@pytest.mark.parametrize(
    "recipe",
    [{}, {"method": "norm_clipped_mean"}, {"method": "median"}, {"dare": {"density": 0.5}},
     {"optimizer": "nesterov"}, {"optimizer": "adam"}],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("step_cap", [1e-3, None])
def test_threads_change_no_bit_and_no_norm(
    recipe: dict[str, Any], step_cap: float | None, tmp_path: Path
) -> None:
    opened = checkpoint(tmp_path, random_tensors(1, shapes=LARGE))
    models = [random_tensors(seed, shapes=LARGE) for seed in (2, 3, 4)]
    updates = full_updates(tmp_path, opened, models)
    wanted = Recipe.model_validate({**recipe, "step_cap": step_cap})
    views = all_views(opened, wanted.optimizer)
    alone, step = stepped(opened, updates, wanted, views=views)
    assert (step.factor < 1) == (step_cap is not None)
    for count in (2, 3):
        shared = stepped(opened, updates, wanted, views=views, executor=threads(count))
        assert_same_bytes(shared[0], alone)
        assert shared[1] == step


def test_the_factor_is_in_the_plan_and_found_once(tmp_path: Path) -> None:
    opened = checkpoint(tmp_path, START)
    updates = full_updates(tmp_path, opened, [added(START, d) for d in random_deltas(2, scale=1)])
    passes: list[str] = []
    plan = plan_of(opened, updates, Recipe(step_cap=0.01))
    assert plan.cap is None
    decided = capped(plan, Onto(opened), progress=lambda phase, size: passes.append(phase))
    assert decided.cap is not None and 0 < decided.cap.step < 1 and decided.cap.update == 1
    assert set(passes) == {CAPPING}
    passes.clear()
    steps: list[Step] = []
    made = carried_out(
        decided, opened, stepped=steps.append, progress=lambda phase, size: passes.append(phase)
    )
    assert set(passes) == {FUSING}
    assert steps[0].factor == decided.cap.step
    assert_same_bytes(made, carried_out(plan, opened))
    free = plan_of(opened, updates, Recipe())
    assert capped(free, Onto(opened)) is free


def test_a_line_search_caps_each_rate_by_itself(tmp_path: Path) -> None:
    opened = checkpoint(tmp_path, START)
    updates = full_updates(tmp_path, opened, [added(START, d) for d in random_deltas(2)])
    plan = plan_of(opened, updates, Recipe(step_cap=0.02))
    found = []
    for rate in (0.1, 1.0, 10.0):
        steps: list[Step] = []
        carried_out(replace(plan, server_lr=rate), opened, stepped=steps.append)
        found.append(steps[0])
    assert found[0].factor == 1 and found[2].factor < 1
    assert all(step.relative_norm <= 0.02 for step in found)
    assert found[0].relative_norm < found[1].relative_norm


@pytest.mark.parametrize("optimizer", ["none", "momentum"])
@pytest.mark.parametrize("method", ["mean", "median"])
def test_what_is_not_finite_is_named_before_anything_is_written(
    method: str, optimizer: str, tmp_path: Path
) -> None:
    models = [random_tensors(place) for place in range(3)]
    models[1]["layer.bias"][4] = np.inf
    opened = checkpoint(tmp_path, random_tensors(9))
    updates = full_updates(tmp_path, opened, models)
    plan = plan_of(opened, updates, Recipe(method=method, optimizer=optimizer, step_cap=0.1))
    with pytest.raises(NonFiniteWeights, match=r"c1 .*'layer\.bias'"):
        capped(plan, Onto(opened), threads(2))


@pytest.mark.parametrize("value", [0, -0.1, 10.5, float("nan"), float("inf"), "auto"])
def test_a_cap_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(ValidationError, match="step_cap"):
        Recipe.model_validate({"step_cap": value})
