"""Every weight method against a reference that works on the dense vectors, or somebody else's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, RecordDict
from flwr.server.strategy.aggregate import aggregate, aggregate_krum
from flwr.serverapp.strategy.multikrum import select_multikrum
from mergekit.merge_methods.api import merge_tensors
from scipy.optimize import minimize

from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.fusion.plan import Plan
from coldfusion_shared.fusion.views import weights_view
from coldfusion_shared.schemas.recipes import Recipe
from tests.shared.checkpoints import Array, Tensors
from tests.shared.fusion.fusing import (
    Doubles,
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

COUNTS = [1, 2, 3, 6, 9]


def shares(priors: Sequence[float]) -> Doubles:
    found: Doubles = np.array(priors, float) / sum(priors)
    return found


def norms(dense: Doubles) -> Doubles:
    found: Doubles = np.linalg.norm(dense, axis=1)
    return found


def assert_close(fused: Tensors, wanted: Doubles, relative: float = 1e-10) -> None:
    assert flat(fused) == pytest.approx(wanted, rel=relative, abs=relative * np.abs(wanted).max())


@pytest.mark.parametrize("count", COUNTS)
def test_mean_is_torchs(count: int, tmp_path: Path) -> None:
    deltas = random_deltas(count)
    fused = fused_update(tmp_path, deltas, "mean")
    assert_close(fused, torch.from_numpy(matrix(deltas)).mean(dim=0).numpy(), 1e-15)


@pytest.mark.parametrize("count", COUNTS)
def test_mean_onto_a_float32_base_is_torchs_rounded_once(count: int, tmp_path: Path) -> None:
    shape = {"w": (5000,)}
    arrays = [random_tensors(seed, shapes=shape) for seed in range(count + 1)]
    base = checkpoint(tmp_path, arrays[0])
    fused = fuse(base, full_updates(tmp_path, base, arrays[1:]), Recipe())["weights"]["w"]
    wanted = torch.from_numpy(matrix(arrays[1:])).mean(dim=0).float().numpy()
    assert np.count_nonzero(fused != wanted) <= 5
    assert np.allclose(fused, wanted, rtol=1.2e-7, atol=0)


@pytest.mark.parametrize("count", COUNTS)
def test_weighted_mean_is_flowers_fedavg(count: int, tmp_path: Path) -> None:
    deltas, examples = random_deltas(count), [1 + 7 * place for place in range(count)]
    fused = fused_update(tmp_path, deltas, "weighted_mean", lists={"prior": examples})
    (wanted,) = aggregate([([row], n) for row, n in zip(matrix(deltas), examples, strict=True)])
    assert_close(fused, wanted, 1e-14)


def test_weighted_mean_without_normalising_is_task_arithmetic(tmp_path: Path) -> None:
    deltas, priors = random_deltas(4), [0.3, 0.0, 2.0, 0.5]
    fused = fused_update(
        tmp_path, deltas, "weighted_mean", {"normalize": False}, lists={"prior": priors}
    )
    assert_close(fused, priors @ matrix(deltas), 1e-14)


def clipped_mean(dense: Doubles, longest: float, weights: Doubles) -> Doubles:
    clipped = [row * min(1, longest / np.linalg.norm(row)) for row in dense]
    found: Doubles = weights @ np.array(clipped)
    return found


@pytest.mark.parametrize("count", COUNTS)
def test_norm_clipped_mean_clips_each_update_to_the_median_norm(count: int, tmp_path: Path) -> None:
    deltas, priors = random_deltas(count), [1.0 + place for place in range(count)]
    dense = matrix(deltas)
    fused = fused_update(tmp_path, deltas, "norm_clipped_mean", lists={"prior": priors})
    assert_close(fused, clipped_mean(dense, float(np.median(norms(dense))), shares(priors)))


@pytest.mark.parametrize("longest", [1e-3, 0.1, 100.0])
def test_norm_clipped_mean_clips_to_a_norm_that_is_given(longest: float, tmp_path: Path) -> None:
    deltas = random_deltas(5)
    fused = fused_update(tmp_path, deltas, "norm_clipped_mean", {"max_norm": longest})
    assert_close(fused, clipped_mean(matrix(deltas), longest, np.full(5, 0.2)))


def test_clipping_leaves_little_of_one_site_at_a_thousand_times_the_scale(tmp_path: Path) -> None:
    # MediSwarm: a site with 0.6% of the data returned updates of 1000x the size.
    deltas = random_deltas(6, common=2.0)
    small = [166.0, 166.0, 166.0, 166.0, 166.0, 5.0]
    optimum = shares(small[:5]) @ matrix(deltas[:5])
    deltas[5] = {
        name: array * np.float32(1000) for name, array in random_deltas(1, seed=9)[0].items()
    }
    lists = {"prior": small}
    plain = flat(fused_update(tmp_path, deltas, "weighted_mean", lists=lists))
    clipped = flat(fused_update(tmp_path, deltas, "norm_clipped_mean", lists=lists))
    length = np.linalg.norm(optimum)
    assert np.linalg.norm(plain - optimum) > 3 * length
    assert np.linalg.norm(clipped - optimum) < 0.25 * length
    # What is left of it alone: its share, at the median length.
    without = clipped_mean(
        matrix(deltas[:5]), float(np.median(norms(matrix(deltas)))), shares(small)[:5]
    )
    assert np.linalg.norm(clipped - without) < 0.01 * length


@pytest.mark.parametrize("count", COUNTS)
def test_normalized_mean_is_the_mean_direction_at_the_mean_norm(count: int, tmp_path: Path) -> None:
    deltas, priors = random_deltas(count), [1.0 + place for place in range(count)]
    dense = matrix(deltas)
    wanted = norms(dense).mean() * shares(priors) @ (dense / norms(dense)[:, None])
    fused = fused_update(tmp_path, deltas, "normalized_mean", lists={"prior": priors})
    assert_close(fused, wanted)


def centered(dense: Doubles, radius: float, weights: Doubles, iterations: int) -> Doubles:
    center = np.zeros(dense.shape[1])
    for _ in range(iterations):
        away = dense - center
        clipped = [row * min(1, radius / max(float(np.linalg.norm(row)), 1e-300)) for row in away]
        center = center + weights @ np.array(clipped)
    return center


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("parameters", [{}, {"radius": 0.01}, {"radius": 0.05, "iterations": 20}])
def test_centered_clipping_walks_as_on_dense_vectors(
    count: int, parameters: dict[str, Any], tmp_path: Path
) -> None:
    deltas, priors = random_deltas(count), [1.0 + place for place in range(count)]
    dense = matrix(deltas)
    radius = parameters.get("radius", float(np.median(norms(dense))))
    wanted = centered(dense, radius, shares(priors), parameters.get("iterations", 3))
    fused = fused_update(tmp_path, deltas, "centered_clipping", parameters, lists={"prior": priors})
    assert_close(fused, wanted)


@pytest.mark.parametrize("t", [0.0, 0.25, 0.5, 1.0])
def test_slerp_goes_along_the_arc(t: float, tmp_path: Path) -> None:
    deltas = random_deltas(2)
    first, second = matrix(deltas)
    angle = np.arccos(first @ second / np.linalg.norm(first) / np.linalg.norm(second))
    wanted = (np.sin((1 - t) * angle) * first + np.sin(t * angle) * second) / np.sin(angle)
    assert_close(fused_update(tmp_path, deltas, "slerp", {"t": t}), wanted)


def test_slerp_of_parallel_updates_is_linear(tmp_path: Path) -> None:
    (delta,) = random_deltas(1)
    twice = {name: 2 * array for name, array in delta.items()}
    assert_close(fused_update(tmp_path, [delta, twice], "slerp"), 1.5 * flat(delta))


def test_slerp_takes_two(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="takes 2 contributions, and there are 3"):
        fused_update(tmp_path, random_deltas(3), "slerp")


def greedy(dense: Doubles, target: Doubles) -> Doubles:
    def score(rows: list[int]) -> float:
        return -float(np.linalg.norm(dense[rows].mean(axis=0) - target))

    order = sorted(range(len(dense)), key=lambda row: score([row]), reverse=True)
    soup = order[:1]
    for row in order[1:]:
        if score([*soup, row]) > score(soup):
            soup = [*soup, row]
    mean: Doubles = dense[soup].mean(axis=0)
    return mean


@pytest.mark.parametrize("seed", range(4))
def test_greedy_soup_adds_what_makes_the_score_better(seed: int, tmp_path: Path) -> None:
    deltas = random_deltas(6, seed=seed)
    target = flat(random_tensors(1000 + seed, 3e-3))
    zeros = checkpoint(tmp_path, {name: np.zeros(array.shape) for name, array in deltas[0].items()})
    updates = full_updates(tmp_path, zeros, deltas)

    def score(plan: Plan) -> float:
        return -float(np.linalg.norm(flat(carried_out(plan, zeros)["weights"]) - target))

    fused = fuse(zeros, updates, Recipe(method="greedy_soup"), score=score)["weights"]
    assert_close(fused, greedy(matrix(deltas), target))


def test_greedy_soup_takes_nothing_in_that_scores_the_same(tmp_path: Path) -> None:
    deltas = random_deltas(3)
    fused = fused_update(tmp_path, deltas, "greedy_soup", score=lambda plan: 1.0)
    assert_close(fused, matrix(deltas)[0], 1e-15)


def test_greedy_soup_without_a_score_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="chooses by score"):
        fused_update(tmp_path, random_deltas(3), "greedy_soup")


def sum_of_distances(point: Doubles, dense: Doubles, weights: Doubles) -> float:
    return float(weights @ norms(dense - point))


@pytest.mark.parametrize("count", [3, 5, 8])
@pytest.mark.parametrize("equal", [True, False])
def test_geometric_median_is_scipys_minimum(count: int, equal: bool, tmp_path: Path) -> None:
    deltas = random_deltas(count, scale=1.0)
    deltas[-1] = {name: array * np.float32(50) for name, array in deltas[-1].items()}
    priors = [1.0] * count if equal else [1 + 0.5 * (place % 2) for place in range(count)]
    dense, weights = matrix(deltas), shares(priors)
    fused = flat(fused_update(tmp_path, deltas, "geometric_median", lists={"prior": priors}))
    found = minimize(
        sum_of_distances, np.median(dense, axis=0), (dense, weights), "BFGS", options={"gtol": 1e-9}
    )
    # No distance counts as less than nu: that much may be lost where the median is an update.
    smallest = 1e-6 * float(np.median(norms(dense)))
    assert sum_of_distances(fused, dense, weights) <= found.fun * (1 + 1e-9) + smallest
    assert np.linalg.norm(fused - found.x) < 1e-3 * np.linalg.norm(found.x)
    # The outlier hardly moves it, which it does the mean.
    inner = dense[:-1].mean(axis=0)
    assert np.linalg.norm(fused - inner) < 0.5 * np.linalg.norm(weights @ dense - inner)


def test_geometric_median_is_an_update_with_more_than_half_of_the_weight(tmp_path: Path) -> None:
    deltas = random_deltas(4)
    fused = fused_update(
        tmp_path, deltas, "geometric_median", lists={"prior": [1.0, 5.0, 1.0, 1.0]}
    )
    assert_close(fused, matrix(deltas)[1], 1e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 6, 9])
@pytest.mark.parametrize("scale", [1e-4, 1.0])
def test_min_norm_is_scipys_shortest_combination(count: int, scale: float, tmp_path: Path) -> None:
    deltas = random_deltas(count, scale=scale, common=0.1)
    # One along another, and longer: a constraint that holds.
    deltas[-1] = {name: 3 * array for name, array in deltas[0].items()} if count > 2 else deltas[-1]
    dense = matrix(deltas)
    products = dense @ dense.T
    products /= products.max()
    found = minimize(
        lambda weights: weights @ products @ weights,
        np.full(count, 1 / count),
        jac=lambda weights: 2 * products @ weights,
        method="SLSQP",
        bounds=[(0, 1)] * count,
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1},
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    fused = flat(fused_update(tmp_path, deltas, "min_norm"))
    wanted = found.x @ dense
    assert np.linalg.norm(fused) <= np.linalg.norm(wanted) * (1 + 1e-9)
    assert np.linalg.norm(fused - wanted) < 1e-5 * np.linalg.norm(wanted)
    # It goes against none of the updates.
    assert (dense @ fused >= (fused @ fused) * (1 - 1e-6)).all()


def mergekit_stock(base: Tensors, models: Sequence[Tensors]) -> dict[str, Array]:
    return {
        name: merge_tensors(
            [torch.from_numpy(array), *(torch.from_numpy(model[name]) for model in models)],
            "model_stock",
            base_index=0,
            dtype=torch.float32,
        ).numpy()
        for name, array in base.items()
    }


@pytest.mark.parametrize("count", [2, 3, 6])
@pytest.mark.parametrize("common", [0.7, 3.0])
def test_model_stock_is_mergekits_where_updates_agree(
    count: int, common: float, tmp_path: Path
) -> None:
    # No scalars: the cosine of two numbers is 1 or -1.
    shapes = {"a.weight": (40, 30), "b.weight": (300,)}
    base, shared = random_tensors(1, shapes=shapes), random_tensors(2, common, shapes)
    models = [
        {name: base[name] + shared[name] + own[name] for name in base}
        for own in (random_tensors(10 + place, shapes=shapes) for place in range(count))
    ]
    opened = checkpoint(tmp_path, base)
    updates = full_updates(tmp_path, opened, models)
    fused = fuse(opened, updates, Recipe(method="model_stock"))["weights"]
    wanted = mergekit_stock(base, models)
    assert not np.array_equal(fused["a.weight"], base["a.weight"])
    for name in base:
        assert np.allclose(fused[name], wanted[name], rtol=1e-5, atol=1e-5)


def test_model_stock_stays_where_mergekit_turns_back(tmp_path: Path) -> None:
    base = {"w": np.ones(2, np.float32)}
    moves = ([1.0, 0.0], [-0.6, 0.8], [-0.6, -0.8])
    models = [{"w": base["w"] + np.array(move, np.float32)} for move in moves]
    opened = checkpoint(tmp_path, base)
    recipe = Recipe(method="model_stock")
    fused = fuse(opened, full_updates(tmp_path, opened, models), recipe)["weights"]
    assert np.array_equal(fused["w"], base["w"])
    # Theirs has t < 0 here (or, past the pole, far above 1).
    mean = np.mean([model["w"] for model in models], axis=0) - base["w"]
    theirs = mergekit_stock(base, models)["w"] - base["w"]
    ratio = float(theirs @ mean / (mean @ mean))
    assert ratio < 0 or ratio > 1


def flower_krum(dense: Doubles, byzantine: int, keep: int) -> Doubles:
    results: Any = [([row], 1) for row in dense]
    (found,) = aggregate_krum(results, byzantine, keep)
    return np.asarray(found, float)


@pytest.mark.parametrize(("count", "byzantine"), [(3, 0), (5, 1), (6, 1), (9, 3), (9, 0)])
@pytest.mark.parametrize("seed", range(3))
def test_krum_is_flowers_fed_updates(count: int, byzantine: int, seed: int, tmp_path: Path) -> None:
    deltas = random_deltas(count, seed=seed)
    fused = fused_update(tmp_path, deltas, "krum", {"byzantine": byzantine})
    # Of equal scores Flower takes what comes first, so what is nearer to all has to come first.
    dense = matrix(deltas)
    central = np.argsort([np.sum((dense - row) ** 2) for row in dense])
    assert_close(fused, flower_krum(dense[central], byzantine, 0), 1e-15)


@pytest.mark.parametrize(("count", "byzantine", "keep"), [(5, 1, 2), (6, 1, 5), (9, 3, 4)])
def test_multi_krum_is_flowers_fed_updates(
    count: int, byzantine: int, keep: int, tmp_path: Path
) -> None:
    deltas = random_deltas(count, seed=3)
    parameters = {"byzantine": byzantine, "keep": keep}
    fused = fused_update(tmp_path, deltas, "multi_krum", parameters)
    assert_close(fused, flower_krum(matrix(deltas), byzantine, keep), 1e-14)


def test_multi_krum_assumes_as_many_hostile_ones_as_it_can_bear(tmp_path: Path) -> None:
    deltas = random_deltas(8)
    fused = fused_update(tmp_path, deltas, "multi_krum")
    assert_close(fused, flower_krum(matrix(deltas), 2, 6), 1e-14)


def test_multi_krum_cannot_keep_more_than_there_are(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="needs at least 6 contributions"):
        fused_update(tmp_path, random_deltas(5), "multi_krum", {"keep": 6})


def test_krum_leaves_hostile_updates_out(tmp_path: Path) -> None:
    deltas = random_deltas(7, common=2.0)
    for place in (1, 4):
        deltas[place] = {name: -20 * array for name, array in deltas[place].items()}
    fused = flat(fused_update(tmp_path, deltas, "multi_krum", {"byzantine": 2}))
    honest = matrix(deltas)[[0, 2, 3, 5, 6]]
    assert fused == pytest.approx(honest.mean(axis=0), rel=1e-12)


def flower_raw_choice(models: Sequence[Tensors], byzantine: int) -> int:
    """Return which model flwr's message API picks when it is fed the models themselves."""
    contents = [
        RecordDict({"model": ArrayRecord([np.ascontiguousarray(a) for a in model.values()])})
        for model in models
    ]
    (chosen,) = select_multikrum(contents, byzantine, 1)
    return next(place for place, content in enumerate(contents) if content is chosen)


def test_krum_picks_right_where_distances_of_float32_weights_cancel(tmp_path: Path) -> None:
    # Weights of 1 and updates of 1e-4: what float32 loses of the squares is more than they differ.
    shape = {"w": (20_000,)}
    base = {"w": random_tensors(0, shapes=shape)["w"] + np.float32(3)}
    lengths = [1e-4, 9e-5, 1.1e-4, 5e-5, 1.2e-4, 1.3e-4, 9.5e-5]
    models = [
        added(base, random_tensors(1 + place, length, shape))
        for place, length in enumerate(lengths)
    ]
    dense = matrix(models) - flat(base)
    right = int(np.flatnonzero((dense == flower_krum(dense, 2, 0)).all(axis=1))[0])
    assert right == 3
    assert flower_raw_choice(models, 2) != right
    opened = checkpoint(tmp_path, base)
    plan = plan_of(opened, full_updates(tmp_path, opened, models), Recipe(method="krum"))
    assert np.array_equal(np.asarray(plan.weights), np.eye(7)[right])
    views = [weights_view(opened.spans())]
    assert np.array_equal(carried_out(plan, opened, views)["weights"]["w"], models[right]["w"])
