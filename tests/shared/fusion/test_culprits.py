"""Searches for culprits against planted ones, and the order in which they are suspected."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.fusion.culprits import (
    Culprits,
    Ids,
    Strategy,
    Suspicion,
    Try,
    find_culprits,
    suspicion,
)
from coldfusion_shared.fusion.executor import Serial
from coldfusion_shared.fusion.gram import Gram, gram_pass
from coldfusion_shared.fusion.plan import COMPARING, FUSING, make_plan, phases
from coldfusion_shared.schemas.recipes import Recipe
from coldfusion_shared.weights.body import body
from tests.shared.checkpoints import Array
from tests.shared.fusion.fusing import (
    Doubles,
    added,
    carried_out,
    checkpoint,
    flat,
    full_updates,
    matrix,
    random_deltas,
    random_tensors,
)

STRATEGIES: list[Strategy] = ["leave-one-out", "halving"]


def names(count: int) -> list[str]:
    return [f"c{place}" for place in range(count)]


class Harm:
    """Harm by sets that were planted: each does it wherever all of its members are."""

    def __init__(self, ids: list[str], planted: list[Ids]) -> None:
        self.ids, self.planted = ids, planted
        self.asked: list[Ids] = []

    def __call__(self, kept: Ids) -> bool:
        self.asked.append(kept)
        return self.does(kept)

    def does(self, kept: Ids) -> bool:
        return any(group <= kept for group in self.planted)


@st.composite
def harms(draw: st.DrawFn) -> Harm:
    """Draw up to 16 contributions, some of them harmful alone, some only two by two."""
    ids = names(draw(st.integers(1, 16)))
    alone = st.builds(lambda one: Ids([one]), st.sampled_from(ids))
    groups = alone
    if len(ids) > 1:
        groups |= st.builds(Ids, st.sampled_from(list(combinations(ids, 2))))
    planted = draw(st.lists(groups, min_size=1, max_size=5))
    return Harm(draw(st.permutations(ids)), planted)


def assert_asked_well(harm: Harm, found: Culprits) -> None:
    assert len(harm.asked) == len(set(harm.asked)) == len(found.tries)
    assert Ids() not in harm.asked and Ids(harm.ids) not in harm.asked
    for tried, kept in zip(found.tries, harm.asked, strict=True):
        assert Ids(tried.without) == Ids(harm.ids) - kept
        assert tried.harmful == harm.does(kept)


@pytest.mark.parametrize("strategy", STRATEGIES)
@given(harm=harms())
def test_without_those_that_are_named_the_rest_passes_and_none_can_be_let_back_in(
    strategy: Strategy, harm: Harm
) -> None:
    found = find_culprits(harm.ids, harm, strategy=strategy, max_tries=1000)
    assert found.complete
    assert found.named and not found.suspected
    assert not harm.does(Ids(found.rest))
    assert all(harm.does(Ids([*found.rest, name])) for name in found.named)
    assert sorted([*found.named, *found.rest]) == sorted(harm.ids)
    assert not found.rest or Ids(found.rest) in harm.asked
    assert_asked_well(harm, found)


@pytest.mark.parametrize("strategy", STRATEGIES)
@given(harm=harms(), max_tries=st.integers(1, 12))
def test_when_the_tries_are_used_up_the_rest_passes_still_and_who_is_unproven_is_suspected(
    strategy: Strategy, harm: Harm, max_tries: int
) -> None:
    found = find_culprits(harm.ids, harm, strategy=strategy, max_tries=max_tries)
    assert len(found.tries) <= max_tries
    assert found.named or found.suspected
    assert not harm.does(Ids(found.rest))
    assert all(harm.does(Ids([*found.rest, name])) for name in found.named)
    assert not found.complete or not found.suspected
    assert not found.rest or Ids(found.rest) in harm.asked
    left_out = [*found.named, *found.suspected]
    assert sorted([*left_out, *found.rest]) == sorted(harm.ids)
    assert_asked_well(harm, found)


@st.composite
def whims(draw: st.DrawFn) -> tuple[list[str], Callable[[Ids], bool]]:
    """Draw contributions whose sets are harmful or not without any rule."""
    ids = names(draw(st.integers(1, 9)))
    seed = draw(st.integers(0, 2**32))

    def harmful(kept: Ids) -> bool:
        places = [ids.index(name) for name in sorted(kept)]
        return bool(np.random.default_rng([seed, *places]).random() < 0.6)

    return ids, harmful


@pytest.mark.parametrize("strategy", STRATEGIES)
@given(drawn=whims())
def test_a_harm_without_any_rule_is_searched_to_an_end_too(
    strategy: Strategy, drawn: tuple[list[str], Callable[[Ids], bool]]
) -> None:
    ids, harmful = drawn
    found = find_culprits(ids, harmful, strategy=strategy, max_tries=10_000)
    assert found.complete
    assert found.named or found.suspected
    assert not found.rest or not harmful(Ids(found.rest))
    harmful_sets = [Ids(ids), *(Ids(ids) - Ids(tried.without) for tried in found.tries
                                if tried.harmful)]  # fmt: skip
    for name in found.named:
        assert any(name in kept and kept - {name} <= Ids(found.rest) for kept in harmful_sets)


@pytest.mark.parametrize("strategy", STRATEGIES)
@given(harm=harms(), cut=st.integers(0, 8))
def test_a_search_that_was_cut_off_goes_on_with_the_answers_that_were_given(
    strategy: Strategy, harm: Harm, cut: int
) -> None:
    given: dict[Ids, bool] = {}

    def some(kept: Ids) -> bool:
        if kept not in given:
            if len(given) == cut:
                raise TimeoutError
            given[kept] = harm.does(kept)
        return given[kept]

    whole = find_culprits(harm.ids, harm, strategy=strategy, max_tries=1000)
    try:
        find_culprits(harm.ids, some, strategy=strategy, max_tries=1000)
    except TimeoutError:
        assert len(given) == cut
        cut = 1000
    again = find_culprits(harm.ids, some, strategy=strategy, max_tries=1000)
    assert again == whole
    assert list(given) == harm.asked


@pytest.mark.parametrize(("place", "tries"), [(0, 1), (3, 4), (9, 10)])
def test_leaving_out_one_finds_the_likeliest_culprit_first(place: int, tries: int) -> None:
    ids = names(10)
    found = find_culprits(ids, Harm(ids, [Ids([ids[place]])]), strategy="leave-one-out")
    assert found.named == (ids[place],)
    assert len(found.tries) == tries


@pytest.mark.parametrize("count", [2, 8, 64])
@pytest.mark.parametrize("place", [0, 1, -1])
def test_halving_finds_one_culprit_in_a_logarithm_of_tries(count: int, place: int) -> None:
    ids = names(count)
    found = find_culprits(ids, Harm(ids, [Ids([ids[place]])]))
    assert found.named == (ids[place],)
    logarithm = int(np.log2(count))
    assert len(found.tries) <= (logarithm if place == 0 else 2 * logarithm)


def test_all_of_them_can_be_culprits() -> None:
    ids = names(5)
    found = find_culprits(ids, Harm(ids, [Ids([name]) for name in ids]))
    assert (found.named, found.rest) == (tuple(ids), ())


def test_one_contribution_alone_needs_no_try() -> None:
    found = find_culprits(["c0"], Harm(["c0"], [Ids(["c0"])]))
    assert found == Culprits(("c0",), (), (), (), complete=True)


def test_each_try_is_told_when_it_is_answered() -> None:
    ids, told = names(4), list[Try]()
    found = find_culprits(ids, Harm(ids, [Ids(["c3"])]), progress=told.append)
    assert tuple(told) == found.tries
    assert told[0] == Try(("c0", "c1"), harmful=True)


@pytest.mark.parametrize(
    ("ids", "options", "words"),
    [
        ([], {}, "Without contributions"),
        (["a", "b", "a"], {}, "given twice"),
        (["a"], {"max_tries": 0}, "at least one try"),
        (["a"], {"strategy": "guessing"}, "'guessing' is no strategy"),
    ],
)
def test_a_search_for_nothing_is_refused(
    ids: list[str], options: dict[str, int], words: str
) -> None:
    with pytest.raises(InvalidRequest, match=words):
        find_culprits(ids, lambda _: True, **options)  # type: ignore[arg-type]


# Who is suspected.


def suspected(folder: Path, deltas: list[dict[str, Array]]) -> tuple[Gram, Doubles]:
    base = checkpoint(folder, {name: np.zeros(array.shape) for name, array in deltas[0].items()})
    gram = gram_pass(body(base.spans()), full_updates(folder, base, deltas), Serial())
    return gram, matrix(deltas)


def similar(count: int) -> list[dict[str, Array]]:
    """Return updates of about the same length that have something in common."""
    deltas = random_deltas(count, common=1.0)
    return [
        {name: np.asarray(array / np.linalg.norm(flat(delta)), np.float32)
         for name, array in delta.items()}
        for delta in deltas
    ]  # fmt: skip


def times(delta: dict[str, Array], factor: float) -> dict[str, Array]:
    return {name: np.asarray(array * np.float32(factor)) for name, array in delta.items()}


@pytest.mark.parametrize("weights", [None, [0.1, 0.2, 0.3, 0.25, 0.15]])
def test_the_numbers_are_those_of_dense_vectors(
    weights: list[float] | None, tmp_path: Path
) -> None:
    gram, dense = suspected(tmp_path, random_deltas(5))
    shares = np.full(5, 0.2) if weights is None else np.array(weights)
    lengths, fused = np.linalg.norm(dense, axis=1), shares @ dense
    for one in suspicion(gram, weights):
        place = gram.ids.index(one.id)
        others = np.delete(dense, place, axis=0)
        theirs = np.delete(shares, place) * shares.sum() / np.delete(shares, place).sum()
        along = others.mean(axis=0)
        cosine = dense[place] @ along / lengths[place] / np.linalg.norm(along)
        assert one.norm_ratio == pytest.approx(lengths[place] / np.median(lengths), rel=1e-9)
        assert one.cosine == pytest.approx(cosine, rel=1e-9)
        assert one.change == pytest.approx(np.linalg.norm(fused - theirs @ others), rel=1e-9)


@pytest.mark.parametrize("factor", [1000.0, 3.0, -1.0, -0.8])
def test_giants_and_those_that_go_the_other_way_come_first(factor: float, tmp_path: Path) -> None:
    deltas = similar(8)
    deltas[5] = times(deltas[5], factor)
    gram, _ = suspected(tmp_path, deltas)
    assert suspicion(gram)[0].id == "c5"


def test_one_that_has_no_weight_is_the_least_suspected(tmp_path: Path) -> None:
    gram, _ = suspected(tmp_path, [times(delta, 1 + place) for place, delta in
                                   enumerate(similar(4))])  # fmt: skip
    assert suspicion(gram)[0].id == "c3"
    last = suspicion(gram, [1, 1, 1, 0])[-1]
    assert last.id == "c3" and last.change == pytest.approx(0, abs=1e-9)


def test_updates_of_nothing_are_no_division_by_zero(tmp_path: Path) -> None:
    zero = {"w": np.zeros(4, np.float32)}
    gram, _ = suspected(tmp_path, [zero, {"w": np.ones(4, np.float32)}, zero])
    first = suspicion(gram)[0]
    assert (first.id, first.norm_ratio, first.cosine) == ("c1", 1.0, 0.0)
    assert first.change == pytest.approx(2 / 3)
    gram, _ = suspected(tmp_path, [zero])
    assert suspicion(gram) == [Suspicion("c0", 0.0, 0.0, 0.0)]


# All together: one pass for the Gram matrix, one for each set that is tried.


class Round:
    """Nine contributions, two of them far too long and the other way, and what is read of them."""

    def __init__(self, folder: Path) -> None:
        base, deltas = random_tensors(50), similar(9)
        self.poison = {"c2", "c7"}
        for name in self.poison:
            place = int(name[1:])
            deltas[place] = times(deltas[place], -20 - place)
        self.base = checkpoint(folder, base)
        models = [added(base, delta) for delta in deltas]
        self.updates = full_updates(folder, self.base, models)
        self.before = flat(base)
        self.passes: list[str] = []

    def read(self, phase: str, size: int) -> None:
        if phase not in self.passes[-1:]:
            self.passes.append(phase)

    def gram(self) -> Gram:
        spans = body(self.base.spans())
        return gram_pass(spans, self.updates, Serial(), lambda size: self.read(COMPARING, size))

    def fuse(self, kept: Ids, recipe: Recipe, gram: Gram | None) -> Doubles:
        chosen = [update for update in self.updates if update.id in kept]
        spans = body(self.base.spans())
        plan = make_plan(spans, chosen, recipe, progress=self.read, gram=gram)
        return flat(carried_out(plan, self.base, progress=self.read)["weights"])


GRAM_METHODS = ["mean", "geometric_median", "krum", "model_stock", "norm_clipped_mean", "bulyan"]


@pytest.mark.parametrize("server_lr", [None, "auto"])
@pytest.mark.parametrize("method", GRAM_METHODS)
def test_some_of_them_are_fused_again_with_the_gram_matrix_of_all(
    method: str, server_lr: Literal["auto"] | None, tmp_path: Path
) -> None:
    made = Round(tmp_path)
    gram, recipe = made.gram(), Recipe(method=method, server_lr=server_lr)
    for kept in (Ids(gram.ids), Ids(gram.ids[1:]), Ids(gram.ids) - made.poison):
        made.passes.clear()
        again = made.fuse(kept, recipe, gram)
        assert made.passes == phases(recipe, has_gram=True) == [FUSING]
        anew = made.fuse(kept, recipe, None)
        assert np.abs(anew - made.before).max() > 0.01
        np.testing.assert_allclose(again, anew, rtol=0, atol=1e-6)


def test_the_gram_matrix_of_others_is_no_help(tmp_path: Path) -> None:
    made = Round(tmp_path)
    gram = made.gram().of(["c1", "c3", "c5"])
    with pytest.raises(InvalidRequest, match="no contribution c0"):
        made.fuse(Ids(["c0", "c1"]), Recipe(method="norm_clipped_mean"), gram)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_search_reads_all_updates_once_and_then_once_a_try(
    strategy: Strategy, tmp_path: Path
) -> None:
    made = Round(tmp_path)
    gram = made.gram()

    def harmful(kept: Ids) -> bool:
        made.passes.append("try")
        return bool(np.linalg.norm(made.fuse(kept, Recipe(), gram) - made.before) > 1.0)

    order = [one.id for one in suspicion(gram)]
    assert set(order[:2]) == made.poison
    assert np.linalg.norm(made.fuse(Ids(order), Recipe(), gram) - made.before) > 1.0
    made.passes[:] = [COMPARING]
    found = find_culprits(order, harmful, strategy=strategy)
    assert set(found.named) == made.poison
    assert made.passes == [COMPARING, *len(found.tries) * ["try", FUSING]]
