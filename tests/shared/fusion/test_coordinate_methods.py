"""Every coordinate method, and what it stands on, against a reference or by its expectation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.server.strategy.aggregate import (
    aggregate_bulyan,
    aggregate_krum,
    aggregate_median,
    aggregate_trimmed_avg,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from mergekit.merge_methods.api import merge_tensors
from scipy.stats import trim_mean

from coldfusion_shared.errors import InvalidRequest, NonFiniteWeights
from coldfusion_shared.fusion.order import network, ranked_rows
from coldfusion_shared.fusion.sparsify import Sparse, Sparsifier, rank
from coldfusion_shared.fusion.sparsify.draws import draw_key, uniform_draws
from coldfusion_shared.fusion.sparsify.magnitude import MagnitudeBand
from coldfusion_shared.fusion.sparsify.random import MAX_ROW, DropAndRescale, MagnitudePrune
from coldfusion_shared.fusion.sparsify.rank import Stream, kth_largest
from coldfusion_shared.fusion.updates import Floats, FullUpdate, Scratch
from coldfusion_shared.schemas.recipes import Dare, Recipe
from tests.shared.checkpoints import Array, Tensors
from tests.shared.fusion.fusing import (
    Doubles,
    checkpoint,
    flat,
    full_updates,
    fuse,
    fused_update,
    matrix,
    random_deltas,
    random_tensors,
)

COUNTS = [1, 2, 3, 4, 7, 10]
SHAPES = {"a.weight": (31, 29), "b.weight": (500,)}


def wide_deltas(count: int, seed: int = 0, scale: float = 0.1) -> list[dict[str, Array]]:
    return [random_tensors(100 * seed + place, scale, SHAPES) for place in range(count)]


def as_results(dense: Doubles) -> Any:
    return [([row], 1) for row in dense]


@pytest.mark.parametrize("count", COUNTS)
def test_median_is_numpys_torchs_and_flowers(count: int, tmp_path: Path) -> None:
    deltas = random_deltas(count)
    dense = matrix(deltas)
    fused = flat(fused_update(tmp_path, deltas, "median"))
    assert fused == pytest.approx(np.median(dense, axis=0), rel=1e-6, abs=1e-12)
    assert fused == pytest.approx(aggregate_median(as_results(dense))[0], rel=1e-6, abs=1e-12)
    if count % 2:
        assert np.array_equal(fused, torch.from_numpy(dense).median(dim=0).values.numpy())


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("beta", [0.0, 0.1, 0.2, 0.4])
def test_trimmed_mean_is_scipys_and_flowers(count: int, beta: float, tmp_path: Path) -> None:
    deltas = random_deltas(count)
    dense = matrix(deltas)
    fused = flat(fused_update(tmp_path, deltas, "trimmed_mean", {"beta": beta}))
    assert fused == pytest.approx(trim_mean(dense, beta, axis=0), rel=1e-12, abs=1e-16)
    (flower,) = aggregate_trimmed_avg(as_results(dense), beta)
    assert fused == pytest.approx(flower, rel=1e-12, abs=1e-16)


def test_the_median_of_two_huge_values_is_finite(tmp_path: Path) -> None:
    deltas = [{"w": np.full(3, value, np.float32)} for value in (3e38, 3.2e38)]
    fused = fused_update(tmp_path, deltas, "median")["w"]
    assert fused == pytest.approx(np.full(3, 3.1e38), rel=1e-6)


def chosen_by_krum(dense: Doubles, byzantine: int) -> list[int]:
    remaining, chosen = list(range(len(dense))), list[int]()
    while len(chosen) < len(dense) - 2 * byzantine:
        scores = []
        for row in remaining:
            squares = sorted(
                float(np.sum((dense[row] - dense[other]) ** 2))
                for other in remaining
                if other != row
            )
            nearest = max(1, len(remaining) - byzantine - 2)
            # Of the two that are each other's nearest, the one that is nearer to the others.
            scores.append((round(sum(squares[:nearest]), 9), sum(squares)))
        chosen.append(remaining.pop(scores.index(min(scores))))
    return chosen


def dense_bulyan(dense: Doubles, byzantine: int) -> Doubles:
    chosen = dense[chosen_by_krum(dense, byzantine)]
    order = np.argsort(np.abs(chosen - np.median(chosen, axis=0)), axis=0)
    nearest = np.take_along_axis(chosen, order, axis=0)[: len(chosen) - 2 * byzantine]
    mean: Doubles = nearest.mean(axis=0)
    return mean


@pytest.mark.parametrize(("count", "byzantine"), [(3, 0), (7, 1), (9, 1), (11, 2), (12, 2)])
@pytest.mark.parametrize("seed", range(3))
def test_bulyan_is_the_dense_one_and_flowers(
    count: int, byzantine: int, seed: int, tmp_path: Path
) -> None:
    deltas = random_deltas(count, seed=seed)
    dense = matrix(deltas)
    fused = flat(fused_update(tmp_path, deltas, "bulyan", {"byzantine": byzantine}))
    wanted = dense_bulyan(dense, byzantine)
    assert fused == pytest.approx(wanted, rel=1e-6, abs=1e-9)
    # Of equal scores Flower takes what comes first, so what is nearer to all has to come first.
    central = np.argsort([np.sum((dense - row) ** 2) for row in dense])
    flower = aggregate_bulyan(as_results(dense[central]), byzantine, aggregate_krum, to_keep=0)
    assert fused == pytest.approx(np.asarray(flower[0]), rel=1e-6, abs=1e-9)


def test_bulyan_bears_the_hostile_ones_that_it_is_told_of(tmp_path: Path) -> None:
    deltas = random_deltas(11, common=2.0)
    honest = matrix(deltas)[2:]
    for place in (0, 1):
        deltas[place] = {name: array * np.float32(1e6) for name, array in deltas[place].items()}
    fused = flat(fused_update(tmp_path, deltas, "bulyan", {"byzantine": 2}))
    assert (fused >= honest.min(axis=0)).all()
    assert (fused <= honest.max(axis=0)).all()


def mergekit(
    method: str, deltas: Sequence[Tensors], parameters: Mapping[str, Any] | None = None
) -> Doubles:
    """Return what mergekit makes of `deltas` onto zeros, in float32."""
    fused = {}
    for name, array in deltas[0].items():
        tensors = [np.zeros_like(array), *(delta[name] for delta in deltas)]
        fused[name] = merge_tensors(
            [torch.from_numpy(np.asarray(tensor)) for tensor in tensors],
            method,
            parameters=parameters,
            base_index=0,
            dtype=torch.float32,
        ).numpy()
    return flat(fused)


PRIORS = [[1.0, 1.0, 1.0, 1.0], [0.2, 3.0, 1.0, 0.7]]


@pytest.mark.parametrize("density", [0.05, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("priors", PRIORS)
@pytest.mark.parametrize("normalize", [True, False])
def test_ties_is_mergekits(
    density: float, priors: list[float], normalize: bool, tmp_path: Path
) -> None:
    deltas = wide_deltas(4)
    parameters = {"density": density, "normalize": normalize, "scale": 1.5}
    fused = fused_update(tmp_path, deltas, "ties", parameters, lists={"prior": priors})
    theirs = {"density": density, "normalize": normalize, "lambda": 1.5, "weight": priors}
    assert flat(fused) == pytest.approx(mergekit("ties", deltas, theirs), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("density", [0.05, 0.9, 0.999])
@pytest.mark.parametrize("gamma", [0.0, 0.01, 0.3])
@pytest.mark.parametrize(("elect", "normalize"), list(product([True, False], repeat=2)))
def test_breadcrumbs_is_mergekits(
    density: float,
    gamma: float,
    elect: bool,
    normalize: bool,
    tmp_path: Path,
) -> None:
    deltas, priors = wide_deltas(4), PRIORS[1]
    parameters = {
        "density": density,
        "gamma": gamma,
        "elect_sign": elect,
        "normalize": normalize,
    }
    fused = fused_update(tmp_path, deltas, "breadcrumbs", parameters, lists={"prior": priors})
    theirs = {"density": density, "gamma": gamma, "normalize": normalize, "weight": priors}
    method = "breadcrumbs_ties" if elect else "breadcrumbs"
    assert flat(fused) == pytest.approx(mergekit(method, deltas, theirs), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("topk", [0.01, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("count", [2, 3, 6])
def test_sce_is_mergekits(topk: float, count: int, tmp_path: Path) -> None:
    # Not smaller: theirs floors the sum of the squares at 1e-6.
    deltas = wide_deltas(count, scale=1.0)
    deltas[0] = {name: 2 * array for name, array in deltas[0].items()}
    fused = fused_update(tmp_path, deltas, "sce", {"select_topk": topk})
    theirs = mergekit("sce", deltas, {"select_topk": topk})
    assert flat(fused) == pytest.approx(theirs, rel=1e-4, abs=1e-6)


def test_trimming_keeps_all_that_equal_the_last_one_kept(tmp_path: Path) -> None:
    values = np.array([1, -2, 2, -2, 0.5, 3, 0, 0.1, 0.2, 0.3], np.float32)
    fused = fused_update(tmp_path, [{"w": values}], "ties", {"density": 0.2})["w"]
    assert np.array_equal(fused, np.where(np.abs(values) >= 2, values, 0))


def test_ties_of_a_tensor_with_few_values_keeps_one(tmp_path: Path) -> None:
    fused = fused_update(tmp_path, [{"w": np.array([1, 3, 2], np.float32)}], "ties")["w"]
    assert np.array_equal(fused, [0, 3, 0])


def with_fisher(folder: Path, deltas: Sequence[Tensors], fishers: Sequence[Tensors]) -> Doubles:
    lists: dict[str, list[Any]] = {
        "fisher": [checkpoint(folder, fisher).tensors for fisher in fishers],
        "prior": [1.0 + place for place in range(len(deltas))],
    }
    return flat(fused_update(folder, deltas, "fisher", lists=lists))


def test_fisher_weighs_each_value_by_its_information(tmp_path: Path) -> None:
    deltas, priors = random_deltas(3), np.array([1.0, 2.0, 3.0])
    fishers = [
        {name: np.asarray(array**2 * 1e-4) for name, array in random_tensors(50 + place).items()}
        for place in range(3)
    ]
    information = priors[:, None] * matrix(fishers)
    wanted = (information * matrix(deltas)).sum(axis=0) / (information.sum(axis=0) + 1e-6)
    assert with_fisher(tmp_path, deltas, fishers) == pytest.approx(wanted, rel=1e-12)


def test_fisher_without_information_leaves_the_base(tmp_path: Path) -> None:
    deltas = random_deltas(2)
    nothing = [{name: np.zeros_like(array) for name, array in deltas[0].items()}] * 2
    assert not with_fisher(tmp_path, deltas, nothing).any()


@pytest.mark.parametrize("value", [-1e-9, np.nan, np.inf])
def test_fisher_information_that_is_none_is_named(value: float, tmp_path: Path) -> None:
    deltas = random_deltas(2)
    fishers: list[dict[str, Array]] = [
        {name: np.ones_like(array) for name, array in deltas[0].items()} for _ in range(2)
    ]
    fishers[1]["layer.bias"][3] = value
    with pytest.raises(NonFiniteWeights, match="c1.*layer.bias"):
        with_fisher(tmp_path, deltas, fishers)


def test_fisher_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="contribution c0 has none"):
        fused_update(tmp_path, random_deltas(2), "fisher")


# DARE and DELLA.

ONES = {"w": np.ones((1000, 100), np.float32)}


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_dare_keeps_its_share_and_divides_by_it(density: float, tmp_path: Path) -> None:
    fused = fused_update(tmp_path, [ONES], "mean", dare=Dare(density=density, seed=3))["w"]
    kept = fused[fused != 0]
    assert np.allclose(kept, 1 / density, rtol=1e-6)
    error = np.sqrt(density * (1 - density) / fused.size)
    assert abs(kept.size / fused.size - density) < 5 * error


@pytest.mark.parametrize("method", ["mean", "median", "ties", "krum"])
def test_dare_goes_in_front_of_any_method(method: str, tmp_path: Path) -> None:
    deltas = random_deltas(5)
    parameters = {"density": 1.0} if method == "ties" else {}
    all_kept = fused_update(tmp_path, deltas, method, parameters, dare=Dare(density=1))
    plain = fused_update(tmp_path, deltas, method, parameters)
    some = fused_update(tmp_path, deltas, method, parameters, dare=Dare(density=0.5))
    assert flat(all_kept) == pytest.approx(flat(plain), rel=1e-12)
    assert not np.allclose(flat(some), flat(plain))


SEEDS = 80


def seeded(kind: str, seed: int) -> Recipe:
    if kind == "dare":
        return Recipe(dare=Dare(density=0.4, seed=seed))
    parameters = {"density": 0.4, "epsilon": 0.2, "seed": seed, "elect_sign": False}
    return Recipe(method="della", parameters=parameters)


def mean_over_seeds(folder: Path, deltas: Sequence[Tensors], kind: str) -> Doubles:
    base = checkpoint(folder, {name: np.zeros(array.shape) for name, array in deltas[0].items()})
    updates = full_updates(folder, base, deltas)
    fused = [fuse(base, updates, seeded(kind, seed))["weights"] for seed in range(SEEDS)]
    mean: Doubles = matrix(fused).mean(axis=0)
    return mean


@pytest.mark.parametrize(("kind", "smallest"), [("dare", 0.4), ("della", 0.2)])
def test_the_expectation_over_seeds_is_the_mean_update(
    kind: str, smallest: float, tmp_path: Path
) -> None:
    deltas = random_deltas(3)
    dense = matrix(deltas)
    away = mean_over_seeds(tmp_path, deltas, kind) - dense.mean(axis=0)
    # A value kept with probability p and divided by it has the variance (1 - p) / p of its square.
    error = np.sqrt((dense**2).sum(axis=0) * (1 - smallest) / smallest / SEEDS) / 3
    assert (np.abs(away) < 4.5 * error).all()
    assert np.abs(away / error).mean() > 0.1


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    deltas = wide_deltas(3)
    for kind in ("mean", "della"):
        fused = [
            flat(
                fused_update(tmp_path, deltas, "della", {"seed": seed})
                if kind == "della"
                else fused_update(tmp_path, deltas, "mean", dare=Dare(density=0.5, seed=seed))
            ).tobytes()
            for seed in (1, 1, 2)
        ]
        assert fused[0] == fused[1] != fused[2]


def test_contributions_and_tensors_have_draws_of_their_own() -> None:
    keys = [draw_key(0, "c0", "w"), draw_key(0, "c1", "w"), draw_key(0, "c0", "v"),
            draw_key(1, "c0", "w")]  # fmt: skip
    draws = [uniform_draws(key, 0, 100_000) for key in keys]
    for one, other in combinations(draws, 2):
        assert abs(np.corrcoef(one, other)[0, 1]) < 5 / np.sqrt(100_000)


def test_draws_are_uniform_below_one() -> None:
    draws = uniform_draws(draw_key(0, "c0", "w"), 0, 2**20)
    assert draws.dtype == np.float32
    assert draws.min() >= 0
    assert draws.max() < 1
    counts = np.histogram(draws, 64, (0, 1))[0]
    expected = draws.size / 64
    # Chi-squared with 63 degrees of freedom: 120 has a probability of 2e-5.
    assert ((counts - expected) ** 2 / expected).sum() < 120


@given(st.integers(0, 10**12), st.integers(1, 200), st.integers(0, 200), st.integers(1, 100))
def test_a_coordinates_draw_does_not_depend_on_the_span(
    start: int, size: int, before: int, after: int
) -> None:
    key = draw_key(7, "c", "w")
    first = max(0, start - before)
    wide = uniform_draws(key, first, start + size + after)
    assert np.array_equal(
        uniform_draws(key, start, start + size), wide[start - first : start - first + size]
    )


def in_pieces(
    sparsifier: Sparsifier, full: FullUpdate, prepared: Any, cuts: Sequence[int]
) -> Floats:
    (span,) = (tensor.span for tensor in full.base.values())
    reader, scratch = Sparse(full, sparsifier, {span.name: prepared}), Scratch()
    out = np.empty(span.elements, np.float32)
    borders = [0, *sorted(cuts), span.elements]
    for start, stop in zip(borders, borders[1:], strict=False):
        if stop > start:
            reader.read(span, start, stop, out[start:stop], scratch)
    return out


@pytest.mark.parametrize("shape", [(1,), (), (3000,), (50, 60), (7, 20, 5), (MAX_ROW + 5000,)])
@pytest.mark.parametrize("kind", ["dare", "della", "band"])
def test_reading_in_other_pieces_drops_the_same_values(
    shape: tuple[int, ...], kind: str, tmp_path: Path
) -> None:
    delta = random_tensors(3, shapes={"w": shape})
    base = checkpoint(tmp_path, {"w": np.zeros(shape, np.float32)})
    full = FullUpdate(checkpoint(tmp_path, delta).tensors, base.tensors)
    sparsifiers: dict[str, Sparsifier] = {
        "dare": DropAndRescale(0.5, 1, "c0"),
        "della": MagnitudePrune(0.5, 0.2, 1, "c0"),
        "band": MagnitudeBand(0.5, 0.1),
    }
    sparsifier = sparsifiers[kind]
    prepared = sparsifier.prepare(full, base.tensors["w"].span, Scratch())
    whole = in_pieces(sparsifier, full, prepared, [])
    assert whole.size < 100 or 0.3 < np.count_nonzero(whole) / whole.size < 0.7
    rng = np.random.default_rng(0)
    for pieces in (1, 2, 17):
        cuts = [int(cut) for cut in rng.integers(0, whole.size + 1, pieces)]
        assert np.array_equal(in_pieces(sparsifier, full, prepared, cuts), whole)


@pytest.mark.parametrize("count", [1, 3, 40])
def test_how_many_are_fused_changes_no_draw(count: int, tmp_path: Path) -> None:
    # More contributions are read in smaller blocks.
    shape = (2**16 + 77,)
    zero = {"w": np.zeros(shape, np.float32)}
    deltas = [random_tensors(1, shapes={"w": shape}), *([zero] * (count - 1))]
    parameters = {"elect_sign": False, "normalize": False}
    fused = fused_update(tmp_path, deltas, "della", parameters)["w"]
    alone = fused_update(tmp_path, deltas[:1], "della", parameters)["w"]
    assert np.array_equal(fused, alone)


def test_della_keeps_by_rank_in_the_row(tmp_path: Path) -> None:
    rows, ranks = 20_000, 9
    rng = np.random.default_rng(0)
    magnitudes = np.arange(1, ranks + 1, dtype=np.float32)
    signs = rng.choice(np.array([-1, 1], np.float32), (rows, ranks))
    values = rng.permuted(np.tile(magnitudes, (rows, 1)), axis=1) * signs
    parameters = {"density": 0.4, "epsilon": 0.3, "elect_sign": False}
    fused = fused_update(tmp_path, [{"w": values}], "della", parameters)["w"]
    kept = fused != 0
    expected = np.linspace(0.1, 0.7, ranks)
    # Not `place`, but `magnitude`: the rank decides, not the column.
    for magnitude, probability in zip(magnitudes, expected, strict=True):
        here = np.abs(values) == magnitude
        error = np.sqrt(probability * (1 - probability) / rows)
        assert abs(kept[here].mean() - probability) < 4.5 * error
        assert np.allclose(fused[here & kept], values[here & kept] / probability, rtol=1e-5)


def test_della_elects_a_sign_by_default(tmp_path: Path) -> None:
    values = np.ones(2000, np.float32)
    deltas = [{"w": 2 * values}, {"w": -values}]
    parameters = {"density": 0.5, "epsilon": 0.0}
    fused = fused_update(tmp_path, deltas, "della", parameters)["w"]
    # Kept alone, the second one wins; together, the first.
    assert set(np.unique(fused)) == {-2.0, 0.0, 4.0}


@pytest.mark.parametrize("parameters", [{"density": 0.1}, {"density": 0.9, "epsilon": 0.2}])
def test_della_refuses_what_is_no_probability(parameters: dict[str, float], tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="must lie between 0 and 1"):
        fused_update(tmp_path, random_deltas(2), "della", parameters)


# Order statistics.


@pytest.mark.parametrize("count", range(1, 10))
def test_the_network_sorts_all_columns_of_zeros_and_ones(count: int) -> None:
    # What sorts every column of zeros and ones sorts everything (the 0-1 principle).
    columns = np.array(list(product([0, 1], repeat=count)), np.float32).T
    ordered = np.sort(columns, axis=0)
    for first in range(count):
        for last in range(first + 1, count + 1):
            assert np.array_equal(ranked_rows(columns.copy(), first, last), ordered[first:last])


@settings(max_examples=40)
@given(st.data(), st.integers(1, 70))
def test_the_network_finds_the_ranks_of_many_rows(data: st.DataObject, count: int) -> None:
    first = data.draw(st.integers(0, count - 1))
    last = data.draw(st.integers(first + 1, count))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    stack = rng.standard_normal((count, 50)).astype(np.float32)
    # Equal values, too.
    stack[:, ::2] = np.round(stack[:, ::2])
    ordered = np.sort(stack, axis=0)
    assert np.array_equal(ranked_rows(stack, first, last), ordered[first:last])


def test_a_median_needs_fewer_comparisons_than_a_sort() -> None:
    assert len(network(9, 4, 5)) < len(network(9, 0, 9))


SPECIAL = [0.0, -0.0, 1e-45, -1e-45, 3e-42, 1.17e-38, 1.0, -1.0, 3.4e38, -3.4e38]
MAGNITUDES = st.one_of(
    st.sampled_from(SPECIAL), st.floats(allow_nan=False, allow_infinity=False, width=32)
)


def stream_of(values: Floats, block: int) -> Stream:
    """Yield the values in one buffer that is used again, as a reader does."""

    def stream(first: int, last: int) -> Iterator[Floats]:
        buffer = np.empty(block, np.float32)
        for start in range(first, last, block):
            part = buffer[: min(block, last - start)]
            part[:] = values[start : start + part.size]
            yield part

    return stream


def assert_ranked(values: Floats, ranks: Sequence[int], block: int = 2**15) -> None:
    found = kth_largest(stream_of(values, block), values.size, ranks)
    ordered = np.sort(np.abs(values))
    assert np.array_equal(found, [ordered[values.size - rank] for rank in ranks])


@given(st.lists(MAGNITUDES, min_size=1, max_size=60), st.data())
def test_the_kth_largest_is_that_of_a_partition(values: list[float], data: st.DataObject) -> None:
    array = np.array(values, np.float32)
    ranks = data.draw(st.lists(st.integers(1, array.size), min_size=1, max_size=3))
    assert_ranked(array, ranks, data.draw(st.integers(1, 60)))


LARGE = rank.SMALL + 12_345


def large_values(kind: str) -> Floats:
    rng = np.random.default_rng(0)
    values = rng.standard_normal(LARGE).astype(np.float32)
    match kind:
        case "sorted":
            values.sort()
        case "rows of different sizes":
            values *= np.repeat(np.exp(rng.uniform(-20, 20, LARGE // 64 + 1)), 64)[:LARGE]
        case "mostly zeros":
            values[rng.random(LARGE) < 0.95] = 0
        case "all equal":
            values[:] = -3
        case "few different":
            values = np.round(values)
        case "subnormal":
            values = (values * 1e-42).astype(np.float32)
        case "huge":
            values = (values * 1e37).astype(np.float32)
        case "large where no sample is taken":
            values[:300] *= 1000
            values[-300:] *= 1000
    return values


KINDS = ["normal", "sorted", "rows of different sizes", "mostly zeros", "all equal",
         "few different", "subnormal", "huge", "large where no sample is taken"]  # fmt: skip
RANKS = [1, 2, 500, LARGE // 5, LARGE // 2, LARGE - 1, LARGE]


@pytest.mark.parametrize("kind", KINDS)
def test_the_kth_largest_of_a_large_tensor(kind: str) -> None:
    values = large_values(kind)
    assert_ranked(values, RANKS)
    assert_ranked(values, RANKS[2:4])


@pytest.mark.parametrize("kind", KINDS)
def test_the_kth_largest_by_histogram_where_the_bracket_fails(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank, "MAX_INSIDE", 0)
    assert_ranked(large_values(kind), RANKS)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_the_kth_largest_of_what_is_not_finite_is_no_error(value: float) -> None:
    values = large_values("normal")
    values[::3] = value
    assert len(kth_largest(stream_of(values, 2**15), LARGE, RANKS)) == len(RANKS)
