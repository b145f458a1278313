"""Do intervals hold what they promise? Bases, seeds and test examples of which all is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from coldfusion_shared.evaluate.comparison import compare
from coldfusion_shared.evaluate.jackknife import pseudo_values
from coldfusion_shared.evaluate.statistics import (
    DIFFERENCES,
    SCORES,
    Variances,
    joined,
    variances,
)
from coldfusion_shared.tasks.scores import macro_f1, matthews
from tests.shared.evaluate.measured import entry, evaluated, result

# What a test makes at once, in numbers.
ROOM = 1_000_000


@dataclass(frozen=True)
class World:
    """
    A base is right on an example where a sum of normal numbers is above zero.

    Attributes:
        ease: the mean of that sum.
        examples: how much examples differ in it, for all bases and seeds.
        seeds: how much the seeds' training does.
        both: how much a seed's training does on single examples.
        own: the same three for each base by itself.
        gain: what the second base has more.
    """

    ease: float
    examples: float
    seeds: float
    both: float
    own: tuple[float, float, float]
    gain: float = 0.0

    def scores(self) -> tuple[float, float]:
        """The true ones of the two bases, in percent."""
        parts = (self.examples, self.seeds, self.both, *self.own)
        spread = sum(part**2 for part in parts) ** 0.5
        first, second = (
            100 * NormalDist().cdf(ease / spread) for ease in (self.ease, self.ease + self.gain)
        )
        return first, second

    def measured(self, rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[Any, Any]:
        """What both get, in percent, (worlds, data sets, seeds, examples)."""
        common = self.ease + _effects(rng, shape, self.examples, self.seeds, self.both)
        before, after = (common + more + _effects(rng, shape, *self.own) for more in (0, self.gain))
        return 100.0 * (before > 0), 100.0 * (after > 0)


def _effects(
    rng: np.random.Generator, shape: tuple[int, ...], examples: float, seeds: float, both: float
) -> Any:
    worlds, datasets, count, size = shape
    return (
        examples * rng.standard_normal((worlds, datasets, 1, size), np.float32)
        + seeds * rng.standard_normal((worlds, datasets, count, 1), np.float32)
        + both * rng.standard_normal(shape, np.float32)
    )


TYPICAL = World(1.0, 1.0, 0.1, 0.3, (0.5, 0.1, 0.2))
# Training examples matter more than test examples.
UNSTEADY = World(0.7, 1.0, 0.3, 0.3, (0.3, 0.3, 0.2))
# Bases differ by nothing but chance on single examples.
RANDOM = World(0.7, 0.5, 0.0, 0.3, (0.0, 0.0, 1.0))
# A base and its successor, which agree on nearly all.
NEAR = World(1.0, 1.5, 0.1, 0.2, (0.1, 0.02, 0.05))
# Both are nearly always right.
EASY = World(3.5, 1.5, 0.1, 0.3, (0.4, 0.1, 0.2))
WORLDS = {
    "typical": TYPICAL,
    "unsteady": UNSTEADY,
    "random": RANDOM,
    "near": NEAR,
    "easy": EASY,
}


def differences(
    world: World, seeds: int, sizes: tuple[int, ...], worlds: int
) -> tuple[Any, Variances]:
    """Measured average differences, in points, (worlds,), and their variances."""
    rng = np.random.default_rng(len(sizes) * 1000 + sizes[0] + seeds)
    chunk = max(1, ROOM // (seeds * sum(sizes)))
    points, found = [], []
    for begun in range(0, worlds, chunk):
        many = min(chunk, worlds - begun)
        tables = [world.measured(rng, (many, 1, seeds, size)) for size in sizes]
        gains = [after - before for before, after in tables]
        points.append(np.mean([gain.mean((1, 2, 3)) for gain in gains], axis=0))
        parts = [variances(gain[:, 0], gain.shape[-1], DIFFERENCES) for gain in gains]
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        found.append(Variances(*(np.stack(column, -1) for column in columns)).of_average())
    columns = zip(*(vars(part).values() for part in found), strict=True)
    return np.concatenate(points), Variances(*map(np.concatenate, columns))


def covered(world: World, seeds: int, sizes: tuple[int, ...], worlds: int) -> float:
    points, found = differences(world, seeds, sizes, worlds)
    first, second = world.scores()
    return float((np.abs(points - (second - first)) <= found.half_width()).mean())


SIZES = {
    "56": ((56,), 2000),
    "500": ((500,), 1000),
    "10x56": ((56,) * 10, 1000),
    "10x500": ((500,) * 10, 400),
}


@pytest.mark.parametrize(("sizes", "worlds"), SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("seeds", [3, 5])
def test_equal_bases_are_rarely_called_better_or_worse(
    seeds: int, sizes: tuple[int, ...], worlds: int
) -> None:
    wrong = 1 - covered(TYPICAL, seeds, sizes, worlds)
    # 400 worlds are uncertain by one point themselves.
    assert 0.005 <= wrong <= 0.07, wrong


@pytest.mark.parametrize(("sizes", "worlds"), SIZES.values(), ids=SIZES)
def test_intervals_cover_the_true_difference(sizes: tuple[int, ...], worlds: int) -> None:
    share = covered(replace(TYPICAL, gain=0.15), 3, sizes, worlds)
    assert 0.93 <= share <= 0.995, share


@pytest.mark.parametrize("name", [name for name in WORLDS if name != "typical"])
@pytest.mark.parametrize("sizes", [(56,), (56,) * 10, (56, 56, 500)], ids=str)
def test_they_do_so_in_other_worlds(name: str, sizes: tuple[int, ...]) -> None:
    # Where few examples decide, and three seeds, they cover more: never less.
    assert covered(replace(WORLDS[name], gain=0.15), 3, sizes, 1000) >= 0.93


def test_neither_source_of_chance_can_be_left_out() -> None:
    points, found = differences(TYPICAL, 3, (500,), 1000)
    # Each part holds the rest, and is read as a t-test or a bootstrap of it would be.
    seeds, examples = (1.96 * np.sqrt(part) for part in (found.seeds, found.examples))
    assert (np.abs(points) <= seeds).mean() < 0.85
    assert (np.abs(points) <= examples).mean() < 0.85


def test_one_unseen_example_matters_where_bases_nearly_agree() -> None:
    points, found = differences(replace(EASY, gain=0.15), 3, (56,), 1000)
    first, second = EASY.scores()[0], replace(EASY, gain=0.15).scores()[1]
    without = replace(found, unseen=np.zeros_like(found.unseen)).half_width()
    assert (np.abs(points - (second - first)) <= without).mean() < 0.8


def test_a_true_gain_is_found() -> None:
    world = replace(TYPICAL, gain=0.15)
    points, found = differences(world, 3, (500,) * 10, 100)
    assert 3 < world.scores()[1] - world.scores()[0] < 4
    assert (points - found.half_width() > 0).mean() > 0.9


def test_a_score_s_standard_error_is_how_much_it_varies() -> None:
    rng = np.random.default_rng(5)
    for world in (TYPICAL, UNSTEADY):
        scores, _ = world.measured(rng, (4000, 1, 3, 100))
        found = variances(scores, 100, SCORES)
        varies = scores.mean((2, 3)).var()
        assert 0.93 < found.total().mean() / varies < 1.35


@pytest.mark.parametrize("scorer", [macro_f1, matthews])
def test_metrics_that_are_no_means_are_covered_as_well(scorer: Any) -> None:
    covers = []
    for number in range(200):
        rng = np.random.default_rng(number)
        labels: Any = rng.choice(4, 100, p=[0.5, 0.3, 0.15, 0.05])
        bases: list[Any] = [
            np.where(right[0, 0] > 0, labels, (labels + 1) % 4)
            for right in TYPICAL.measured(rng, (1, 1, 3, 100))
        ]
        before, after = (pseudo_values(labels, guesses, scorer) for guesses in bases)
        was, now = (np.mean([scorer(labels, seed) for seed in guesses]) for guesses in bases)
        found = joined([variances(after - before, 100, DIFFERENCES)]).of_average()
        covers.append(abs(now - was) <= found.half_width())
    assert np.mean(covers) >= 0.93


def test_so_it_is_through_the_whole_comparison() -> None:
    datasets = (entry("one"), entry("other"))
    verdicts = []
    for number in range(100):
        rng = np.random.default_rng(number)
        tables = TYPICAL.measured(rng, (1, len(datasets), 3, 60))
        bases = [
            evaluated(
                datasets,
                [
                    result(found, [1] * 60, (right / 100).astype(int).tolist())
                    for found, right in zip(datasets, table[0], strict=True)
                ],
            )
            for table in tables
        ]
        verdicts.append(compare(*bases).verdict)
    assert set(verdicts) <= {"better", "worse", "no difference"}
    assert sum(verdict != "no difference" for verdict in verdicts) <= 10
