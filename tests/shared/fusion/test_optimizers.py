"""Server optimizers over several rounds, with their state in files, against torch and Flower."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from flwr.common import FitRes, Parameters, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.common.typing import Code, Status
from flwr.server.client_proxy import ClientProxy
from flwr.server.strategy import FedAdam, FedAvgM, FedYogi
from flwr.server.strategy.fedavg import FedAvg

from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.fusion import optimizers
from coldfusion_shared.fusion.engine import Onto
from coldfusion_shared.fusion.executor import Executor, Serial, threads
from coldfusion_shared.fusion.optimizers import Moment
from coldfusion_shared.fusion.views import state_views, weights_view
from coldfusion_shared.schemas.recipes import Recipe
from coldfusion_shared.weights.body import body
from tests.shared.checkpoints import Array, Tensors
from tests.shared.fusion.fusing import (
    SHAPES,
    Doubles,
    Views,
    added,
    carried_out,
    checkpoint,
    flat,
    full_updates,
    fuse,
    fused_update,
    matrix,
    plan_of,
    random_deltas,
    random_tensors,
)

ROUNDS = 3
START: dict[str, Array] = random_tensors(77, dtype=np.float64)


def updates_of_round(step: int) -> list[dict[str, Array]]:
    return random_deltas(3, scale=1e-2 * (1 + step), seed=step)


def mean_of_round(step: int) -> Doubles:
    mean: Doubles = matrix(updates_of_round(step)).mean(axis=0)
    return mean


def root_mean_square(values: Doubles) -> float:
    return float(np.sqrt(np.mean(values**2)))


def rounds(folder: Path, recipe: Recipe, executor: Executor | None = None) -> Iterator[Views]:
    """Fuse round after round, each onto the files of the last, and yield all views."""
    kept = optimizers.discover()[recipe.optimizer].state
    onto = Onto(checkpoint(folder, START))
    for step in range(ROUNDS):
        base = {name: t.values(0, t.span.elements).reshape(t.span.shape)
                for name, t in onto.base.tensors.items()}  # fmt: skip
        models = [added(base, delta) for delta in updates_of_round(step)]
        spans = body(onto.base.spans())
        views = [weights_view(onto.base.spans()), *state_views(kept, spans)]
        made = fuse(
            onto, full_updates(folder, onto.base, models), recipe, views=views, executor=executor
        )
        yield made
        state = {name: checkpoint(folder, made[name]).tensors for name in kept}
        onto = Onto(checkpoint(folder, made["weights"]), state=state, steps=step + 1)


def torch_rounds(
    make: Callable[[list[torch.Tensor]], torch.optim.Optimizer],
    settings: Callable[[int], dict[str, Any]] = lambda _: {},
) -> Iterator[Doubles]:
    """Take the same steps with an optimizer of torch's, in float64."""
    weights = torch.from_numpy(flat(START)).requires_grad_()
    optimizer = make([weights])
    for step in range(ROUNDS):
        optimizer.param_groups[0].update(settings(step))
        weights.grad = torch.from_numpy(-mean_of_round(step))
        optimizer.step()
        yield weights.detach().numpy().copy()


def assert_same_path(ours: Iterator[Views], theirs: Iterator[Doubles]) -> None:
    """The state is float32, so the steps agree to that."""
    before = flat(START)
    for made, wanted in zip(ours, theirs, strict=True):
        fused = flat(made["weights"])
        largest = np.abs(wanted - before).max()
        assert largest > 1e-3
        assert np.abs(fused - wanted).max() < 1e-6 * largest
        before = wanted


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9])
@pytest.mark.parametrize(("name", "nesterov"), [("momentum", False), ("nesterov", True)])
def test_momentum_is_torchs(name: str, nesterov: bool, beta: float, tmp_path: Path) -> None:
    recipe = Recipe(optimizer=name, optimizer_parameters={"beta": beta}, server_lr=0.6)
    theirs = torch_rounds(
        lambda weights: torch.optim.SGD(weights, 0.6, momentum=beta, nesterov=nesterov and beta > 0)
    )
    assert_same_path(rounds(tmp_path, recipe), theirs)


def test_the_defaults_are_those_of_diloco(tmp_path: Path) -> None:
    theirs = torch_rounds(
        lambda weights: torch.optim.SGD(weights, 0.7, momentum=0.9, nesterov=True)
    )
    assert_same_path(rounds(tmp_path, Recipe(optimizer="nesterov")), theirs)


@pytest.mark.parametrize("scale", [0.01, 1.0])
def test_adam_is_torchs(scale: float, tmp_path: Path) -> None:
    parameters = {"beta1": 0.8, "beta2": 0.95, "tau": 1e-4, "scale": scale}
    recipe = Recipe(optimizer="adam", optimizer_parameters=parameters, server_lr=0.3)
    theirs = torch_rounds(
        lambda weights: torch.optim.Adam(weights, 0.3 * scale, (0.8, 0.95), 1e-4 * scale)
    )
    assert_same_path(rounds(tmp_path, recipe), theirs)


def test_adam_scales_itself_to_each_rounds_update(tmp_path: Path) -> None:
    def settings(step: int) -> dict[str, float]:
        scale = root_mean_square(mean_of_round(step))
        return {"lr": scale, "eps": 1e-3 * scale}

    theirs = torch_rounds(lambda weights: torch.optim.Adam(weights, betas=(0.9, 0.99)), settings)
    assert_same_path(rounds(tmp_path, Recipe(optimizer="adam")), theirs)


def test_yogi_is_fedopts_with_bias_correction(tmp_path: Path) -> None:
    def formula() -> Iterator[Doubles]:
        weights = flat(START)
        first, second = np.zeros(weights.size), np.zeros(weights.size)
        for step in range(ROUNDS):
            d = mean_of_round(step)
            first = 0.9 * first + 0.1 * d
            second = second - 0.01 * d**2 * np.sign(second - d**2)
            unbiased = second / (1 - 0.99 ** (step + 1))
            scale = root_mean_square(d)
            slope = np.sqrt(unbiased) + 1e-3 * scale
            weights = weights + scale * first / (1 - 0.9 ** (step + 1)) / slope
            yield weights

    assert_same_path(rounds(tmp_path, Recipe(optimizer="yogi")), formula())


def flower_rounds(strategy: FedAvg, first_round: int) -> Iterator[Doubles]:
    """Feed a strategy of Flower's one client a round, whose model is the mean."""
    weights = flat(START)
    proxy = cast(ClientProxy, None)
    for step in range(ROUNDS):
        model = ndarrays_to_parameters([weights + mean_of_round(step)])
        result = FitRes(Status(Code.OK, ""), model, 1, {})
        made, _ = strategy.aggregate_fit(first_round + step, [(proxy, result)], [])
        weights = parameters_to_ndarrays(cast(Parameters, made))[0]
        yield weights


def flower_start() -> Parameters:
    return ndarrays_to_parameters([flat(START)])


def test_momentum_is_flowers_fedavgm(tmp_path: Path) -> None:
    strategy = FedAvgM(
        initial_parameters=flower_start(),
        server_learning_rate=0.5,
        server_momentum=0.8,
        fit_metrics_aggregation_fn=lambda _: {},
    )
    recipe = Recipe(optimizer="momentum", optimizer_parameters={"beta": 0.8}, server_lr=0.5)
    assert_same_path(rounds(tmp_path, recipe), flower_rounds(strategy, 1))


def test_adam_is_flowers_fedadam(tmp_path: Path) -> None:
    # Its correction counts a step more than it has made, so it starts from 0 here; its tau is
    # added before the correction, so it is small here.
    strategy = FedAdam(initial_parameters=flower_start(), eta=0.1, tau=1e-12)
    parameters = {"tau": 1e-12, "scale": 1}
    recipe = Recipe(optimizer="adam", optimizer_parameters=parameters, server_lr=0.1)
    assert_same_path(rounds(tmp_path, recipe), flower_rounds(strategy, 0))


def test_yogis_state_is_flowers(tmp_path: Path) -> None:
    strategy = FedYogi(initial_parameters=flower_start(), beta_1=0.9, beta_2=0.99)
    recipe = Recipe(optimizer="yogi")
    for made, _ in zip(rounds(tmp_path, recipe), flower_rounds(strategy, 0), strict=True):
        assert strategy.m_t is not None
        assert strategy.v_t is not None
        assert flat(made["first"]) == pytest.approx(strategy.m_t[0], rel=1e-6, abs=1e-9)
        assert flat(made["second"]) == pytest.approx(strategy.v_t[0], rel=1e-6, abs=1e-12)


def test_the_state_is_float32_of_the_body_alone(tmp_path: Path) -> None:
    made = next(iter(rounds(tmp_path, Recipe(optimizer="adam"))))
    assert set(made) == {"weights", "first", "second"}
    for name in ("first", "second"):
        assert {key: array.shape for key, array in made[name].items()} == SHAPES
        assert all(array.dtype == np.float32 for array in made[name].values())


@pytest.mark.parametrize("optimizer", ["momentum", "nesterov", "adam", "yogi"])
@pytest.mark.parametrize("executor", [threads(2), threads(3)])
def test_threads_change_no_bit_of_weights_or_state(
    optimizer: str, executor: Executor, tmp_path: Path
) -> None:
    recipe = Recipe(optimizer=optimizer)
    pairs = zip(rounds(tmp_path, recipe, Serial()), rounds(tmp_path, recipe, executor), strict=True)
    for ours, theirs in pairs:
        assert ours.keys() == theirs.keys()
        for view, tensors in ours.items():
            assert all(tensors[n].tobytes() == theirs[view][n].tobytes() for n in tensors)


@pytest.mark.parametrize("optimizer", ["adam", "yogi"])
@pytest.mark.parametrize("size", [1e-8, 1e-4, 1.0, 1e3])
def test_the_first_adaptive_step_is_about_as_long_as_the_update(
    optimizer: str, size: float, tmp_path: Path
) -> None:
    deltas = random_deltas(4, scale=size)
    step = flat(fused_update(tmp_path, deltas, "mean", optimizer=optimizer))
    length = np.linalg.norm(matrix(deltas).mean(axis=0))
    assert 0.9 * length < np.linalg.norm(step) <= length


@pytest.mark.parametrize("optimizer", ["none", "momentum", "nesterov", "adam", "yogi"])
@pytest.mark.parametrize("method", ["mean", "median"])
def test_no_update_is_no_step(optimizer: str, method: str, tmp_path: Path) -> None:
    nothing = {name: np.zeros_like(array) for name, array in random_deltas(1)[0].items()}
    step = fused_update(tmp_path, [nothing] * 3, method, optimizer=optimizer)
    assert not flat(step).any()


@pytest.mark.parametrize("name", ["momentum", "nesterov", "adam", "yogi"])
def test_a_step_does_not_change_what_it_was_given(name: str) -> None:
    optimizer = optimizers.discover()[name]
    rng = np.random.default_rng(0)
    update = rng.standard_normal(10)
    state = {kept: rng.uniform(0, 1, 10) for kept in optimizer.state}
    before = [update.copy(), *(array.copy() for array in state.values())]
    optimizer.step(optimizer.parameters(), Moment(update, state, 2))
    assert all(np.array_equal(a, b) for a, b in zip(before, [update, *state.values()], strict=True))


def test_an_optimizers_parameter_out_of_range_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="'beta' of the server optimizer 'momentum'"):
        fused_update(
            tmp_path,
            random_deltas(2),
            "mean",
            optimizer="momentum",
            optimizer_parameters={"beta": 1},
        )


# The step's length.


@pytest.mark.parametrize("method", ["mean", "median", "ties"])
@pytest.mark.parametrize("server_lr", [0.1, 1.0, 2.5])
def test_the_server_learning_rate_is_a_factor(
    method: str, server_lr: float, tmp_path: Path
) -> None:
    deltas = random_deltas(4)
    plain = flat(fused_update(tmp_path, deltas, method))
    scaled = flat(fused_update(tmp_path, deltas, method, server_lr=server_lr))
    assert scaled == pytest.approx(server_lr * plain, rel=1e-12)


def orthogonal(count: int) -> list[dict[str, Array]]:
    return [
        {"w": np.eye(count, dtype=np.float32)[place] * np.float32(0.01)} for place in range(count)
    ]


def automatic(folder: Path, deltas: list[dict[str, Array]], **recipe: Any) -> float:
    base = checkpoint(folder, {name: np.zeros_like(array) for name, array in deltas[0].items()})
    updates = full_updates(folder, base, deltas)
    return plan_of(base, updates, Recipe(server_lr="auto", **recipe)).server_lr


@pytest.mark.parametrize("method", ["mean", "median", "krum"])
def test_auto_is_one_for_equal_updates(method: str, tmp_path: Path) -> None:
    assert automatic(tmp_path, random_deltas(1) * 5, method=method) == pytest.approx(1)


@pytest.mark.parametrize("count", [2, 6, 16])
def test_auto_is_the_root_of_k_for_orthogonal_updates(count: int, tmp_path: Path) -> None:
    assert automatic(tmp_path, orthogonal(count)) == pytest.approx(np.sqrt(count))


def test_auto_makes_the_mean_as_long_as_one_update(tmp_path: Path) -> None:
    deltas = random_deltas(5)
    fused = flat(fused_update(tmp_path, deltas, "mean", server_lr="auto"))
    assert np.linalg.norm(fused) == pytest.approx(
        np.linalg.norm(matrix(deltas), axis=1).mean(), rel=1e-12
    )


@pytest.mark.parametrize(("cap", "wanted"), [({}, 4.0), ({"server_lr_cap": 1.5}, 1.5)])
def test_auto_is_capped(cap: dict[str, float], wanted: float, tmp_path: Path) -> None:
    assert automatic(tmp_path, orthogonal(25), **cap) == wanted
    opposite = [{"w": np.full(4, sign, np.float32)} for sign in (1, -1)]
    assert automatic(tmp_path, opposite, **cap) == wanted


def test_auto_without_any_update_is_one(tmp_path: Path) -> None:
    assert automatic(tmp_path, [{"w": np.zeros(4, np.float32)}] * 3) == 1


# Staleness and pull.


@pytest.mark.parametrize("method", ["mean", "median", "norm_clipped_mean"])
@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_a_late_update_counts_less(method: str, exponent: float, tmp_path: Path) -> None:
    deltas, ages = random_deltas(3), [0, 1, 3]
    late = fused_update(tmp_path, deltas, method, lists={"age": ages}, staleness_exponent=exponent)
    factors = [(1 + age) ** -exponent for age in ages]
    shorter = [
        {name: array.astype(np.float64) * factor for name, array in delta.items()}
        for delta, factor in zip(deltas, factors, strict=True)
    ]
    wanted = flat(fused_update(tmp_path, shorter, method))
    assert flat(late) == pytest.approx(wanted, rel=1e-6, abs=1e-9)


def test_the_default_factor_is_one_over_the_root(tmp_path: Path) -> None:
    deltas = random_deltas(1)
    late = fused_update(tmp_path, deltas, "mean", lists={"age": [3]})
    assert flat(late) == pytest.approx(flat(deltas[0]) / 2, rel=1e-12)


@pytest.mark.parametrize("optimizer", ["none", "momentum"])
@pytest.mark.parametrize("method", ["mean", "median"])
@pytest.mark.parametrize("pull", [0.0, 0.1, 1.0])
def test_the_pull_goes_to_the_pretrained_model(
    optimizer: str, method: str, pull: float, tmp_path: Path
) -> None:
    origin = random_tensors(5, dtype=np.float64)
    deltas = random_deltas(3)
    opened = checkpoint(tmp_path, START)
    onto = Onto(opened, origin=checkpoint(tmp_path, origin).tensors)
    updates = full_updates(tmp_path, opened, [added(START, delta) for delta in deltas])
    recipe = Recipe(method=method, optimizer=optimizer, server_lr=2.0, pull=pull)
    fused = flat(carried_out(plan_of(onto, updates, recipe), onto)["weights"])
    dense = matrix(deltas)
    d = dense.mean(axis=0) if method == "mean" else np.median(dense, axis=0)
    wanted = (1 - pull) * (flat(START) + 2 * d) + pull * flat(origin)
    assert fused == pytest.approx(wanted, rel=1e-7, abs=1e-8)


def test_a_pull_without_updates_that_move_is_interpolation(tmp_path: Path) -> None:
    origin: Tensors = random_tensors(5, dtype=np.float64)
    opened = checkpoint(tmp_path, START)
    onto = Onto(opened, origin=checkpoint(tmp_path, origin).tensors)
    made = fuse(onto, full_updates(tmp_path, opened, [START] * 2), Recipe(pull=0.25))
    wanted = 0.75 * flat(START) + 0.25 * flat(origin)
    assert flat(made["weights"]) == pytest.approx(wanted, rel=1e-13)
