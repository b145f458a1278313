"""Seeds that draw from one small pool: do errors and intervals still hold what they promise?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from coldfusion_shared.data import Split
from coldfusion_shared.evaluate.drawing import different, drawn, pool_share, with_replacement
from coldfusion_shared.evaluate.statistics import DIFFERENCES, SCORES, Variances, variances

SIZE, SEEDS, EXAMPLES = 40, 3, 60
# From all examples at every draw to ten times as many.
POOLS = (40, 42, 52, 79, 80, 120, 400)
# Worlds whose seeds draw alike; what is drawn depends on the seed alone.
TOGETHER = 20


@cache
def shares(pool: int, first: int) -> Any:
    """How much each example of a pool counts in the means of `SEEDS` seeds, (seeds, pool)."""
    split = Split({"text": tuple(range(pool))})
    rows = []
    for seed in range(first, first + SEEDS):
        counts = Counter(drawn(split, SIZE, seed)["text"])
        rows.append([counts[index] / SIZE for index in range(pool)])
    return np.array(rows)


def effects(rng: np.random.Generator, pool: int, worlds: int) -> Iterator[Any]:
    """What the training of each seed makes, (worlds, seeds): a mean over what it was drawn."""
    for first in range(0, worlds // TOGETHER * SEEDS, SEEDS):
        said = rng.standard_normal((TOGETHER, pool))
        yield SIZE**0.5 * said @ shares(pool, first).T


def trained(rng: np.random.Generator, pool: int, worlds: int) -> Any:
    return np.concatenate(list(effects(rng, pool, worlds)))


def spread(pool: int) -> float:
    """The variance of one seed's effect."""
    squares = [np.square(shares(pool, first)).sum(1).mean() for first in range(0, 150, SEEDS)]
    return float(SIZE * np.mean(squares))


def tables(pool: int, worlds: int, training: float) -> tuple[Any, Any, float]:
    """Whether two equally good bases are right, in percent, and how often each is on average."""
    rng = np.random.default_rng(pool)
    shape = (worlds, SEEDS, EXAMPLES)
    common = 1.0 + rng.standard_normal((worlds, 1, EXAMPLES))
    sides = [
        common
        + training * trained(rng, pool, worlds)[:, :, None]
        + 0.3 * rng.standard_normal((worlds, 1, EXAMPLES))
        + 0.3 * rng.standard_normal(shape)
        for _ in range(2)
    ]
    variance = 1.0 + training**2 * spread(pool) + 0.3**2 + 0.3**2
    one, other = (100.0 * (side > 0) for side in sides)
    return one, other, 100 * NormalDist().cdf(1.0 / variance**0.5)


def covered(points: Any, truth: float, found: Variances) -> float:
    return float((np.abs(points - truth) <= found.half_width()).mean())


@pytest.mark.parametrize("training", [0.1, 0.25])
@pytest.mark.parametrize("pool", POOLS)
def test_intervals_cover_the_truth_however_small_the_pool(pool: int, training: float) -> None:
    one, other, truth = tables(pool, 1500, training)
    share = pool_share(SIZE, pool)
    score = covered(one.mean((1, 2)), truth, variances(one, EXAMPLES, SCORES, share))
    gain = covered(
        (other - one).mean((1, 2)), 0.0, variances(other - one, EXAMPLES, DIFFERENCES, share)
    )
    assert 0.93 <= score <= 0.999 and 0.93 <= gain <= 0.999, (score, gain)


@pytest.mark.parametrize("pool", POOLS)
def test_the_standard_error_is_how_much_a_score_varies(pool: int) -> None:
    one, _, _ = tables(pool, 3000, 0.25)
    found = variances(one, EXAMPLES, SCORES, pool_share(SIZE, pool))
    assert 0.9 < found.total().mean() / one.mean((1, 2)).var() < 1.3


@pytest.mark.parametrize("pool", [40, 52, 80])
def test_what_seeds_share_cannot_be_left_out(pool: int) -> None:
    one, _, _ = tables(pool, 1000, 0.5)
    found = variances(one, EXAMPLES, SCORES)
    assert found.total().mean() / one.mean((1, 2)).var() < 0.75


def test_averages_of_many_small_pools_are_covered_as_well() -> None:
    pools = (40, 52, 80, 120) * 2
    made = [tables(pool, 500, 0.25)[:2] for pool in pools]
    # The same numbers come of the same pool: other worlds for its second turn.
    gains = [np.roll(other - one, turn, axis=0) for turn, (one, other) in enumerate(made)]
    parts = [
        variances(gain, EXAMPLES, DIFFERENCES, pool_share(SIZE, pool))
        for gain, pool in zip(gains, pools, strict=True)
    ]
    columns = zip(*(vars(part).values() for part in parts), strict=True)
    found = Variances(*(np.stack(column, -1) for column in columns)).of_average()
    points = np.mean([gain.mean((1, 2)) for gain in gains], axis=0)
    assert 0.93 <= covered(points, 0.0, found) <= 0.995


def least_squares(rng: np.random.Generator, pool: int) -> Any:
    """What a real learner gets right of a fresh world, in percent, (seeds, examples)."""
    direction = np.full(12, 0.35)
    labels: Any = rng.choice([-1.0, 1.0], pool + EXAMPLES)
    points = labels[:, None] * direction + rng.standard_normal((len(labels), len(direction)))
    split = Split({"text": tuple(range(pool))})
    first = int(rng.integers(0, 10**6))
    rows = []
    for seed in range(first, first + SEEDS):
        chosen = list(drawn(split, SIZE, seed)["text"])
        weights = np.linalg.lstsq(points[chosen], labels[chosen], rcond=None)[0]
        rows.append(100.0 * (np.sign(points[pool:] @ weights) == labels[pool:]))
    return np.array(rows)


@pytest.mark.parametrize("pool", [40, 60, 80, 160])
def test_so_it_is_with_something_that_learns(pool: int) -> None:
    rng = np.random.default_rng(pool)
    made = np.stack([least_squares(rng, pool) for _ in range(600)])
    points = made.mean((1, 2))
    found = variances(made, EXAMPLES, SCORES, pool_share(SIZE, pool))
    # What it makes of single examples, beyond a mean over them, is taken for shared as well.
    assert 0.9 < found.total().mean() / points.var() < 1.8
    assert covered(points, float(points.mean()), found) >= 0.93


def test_what_is_shared_is_what_sampling_theory_says() -> None:
    # Without replacement: what is drawn, for each one that is left out.
    assert pool_share(100, 1000) == pytest.approx(100 / 900)
    assert pool_share(500, 1000) == pytest.approx(1)
    # With it: what is drawn, for each one that there is; so never without end.
    assert pool_share(501, 1000) == pytest.approx(0.501)
    assert pool_share(1000, 1000) == 1
    assert [with_replacement(500, pool) for pool in (999, 1000)] == [True, False]


def test_of_a_small_pool_some_examples_come_twice_and_labels_keep_their_shares() -> None:
    labels = [0] * 60 + [1] * 35 + [2] * 5
    split = Split({"text": tuple(range(100)), "label": tuple(labels)})
    draws = [drawn(split, 80, seed) for seed in range(20)]
    for one in draws:
        counts = Counter(one["label"])
        assert len(one) == 80 and counts[2] == 4 and abs(counts[0] - 48) <= 1
    found = np.mean([len(set(one["text"])) for one in draws])
    assert found == pytest.approx(different(80, 100), abs=3)
    # From twice as many on, none does.
    assert all(len(set(drawn(split, 50, seed)["text"])) == 50 for seed in range(20))


def test_about_632_of_a_thousand_differ() -> None:
    assert different(1000, 1000) == 632
