"""How contributions of a round lie to each other: what is told, how exactly, and to whom."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sqlalchemy import event

from coldfusion_server.db.tables import ContributionRow
from coldfusion_server.services import comparing, tallying
from coldfusion_server.services.closing import close_by_hand
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.errors import ModelNotFound, RoundNotFound
from tests.dashboard import many
from tests.server.backends import both_databases
from tests.server.repository import MODEL, Repository, body_of, fix_sketches, tiny_tensors
from tests.server.test_round_way import accepted
from tests.shared.checkpoints import Array, file_bytes

# Of so small a model a sketch is off by more than the usual 0.01.
CLOSE = 0.1


def compare(repo: Repository, ids: list[str], number: str = "1") -> comparing.Compared:
    return comparing.compare(repo.ctx, MODEL, number, ids, None)


def flat(body: dict[str, Array]) -> Any:
    base = tiny_tensors()
    return np.concatenate([(body[name] - base[name]).ravel() for name in sorted(body)], dtype=float)


def set_columns(repo: Repository, contribution: str, **columns: Any) -> None:
    with repo.ctx.database.write() as session:
        row = session.query(ContributionRow).filter_by(id=contribution).one()
        for name, value in columns.items():
            setattr(row, name, value)


def test_cosines_by_vectors_are_those_of_the_vectors() -> None:
    vectors = np.array([[3.0, 0.0], [0.0, 2.0], [-1.0, -1.0], [0.0, 0.0]])
    between, with_mean = comparing.by_vectors(vectors, [True, True, False, False])
    assert between[0] == [1.0, 0.0, -0.71, None]
    assert between[3] == [None] * 4
    # The mean is of the first two: (1.5, 1).
    assert with_mean == [0.83, 0.55, -0.98, None]
    assert comparing.by_vectors(vectors, [False] * 4)[1] == [None] * 4


@both_databases
def test_what_is_told_is_near_the_truth_and_has_two_decimals(empty: Repository) -> None:
    empty.model(min_contributions=9)
    fix_sketches(empty)
    seeds = [1, 2, 3]
    ids = accepted(empty, seeds)
    # One that pulls against the first one, clearly.
    base = tiny_tensors()
    against = {
        name: (2 * base[name] - array + body_of(base, 4)[name] - base[name]).astype(np.float32)
        for name, array in body_of(base, 1).items()
    }
    ids.append(empty.contributor("opp").contribute(file_bytes(against)))
    empty.work()
    vectors = [*(flat(body_of(base, seed)) for seed in seeds), flat(against)]
    told = compare(empty, ids)
    assert list(told.ids) == ids
    norms = [float(np.linalg.norm(vector)) for vector in vectors]
    for row, one in enumerate(vectors):
        for column, other in enumerate(vectors):
            exact = one @ other / norms[row] / norms[column]
            cosine = told.cosines[row][column]
            assert cosine == pytest.approx(exact, abs=CLOSE)
            assert cosine == round(cosine or 0.0, 2)
    assert told.cosines[3][0] == pytest.approx(-0.71, abs=0.1)
    mean = np.mean(vectors, axis=0)
    for one, found in zip(vectors, told.with_mean, strict=True):
        exact = one @ mean / np.linalg.norm(one) / np.linalg.norm(mean)
        assert found == pytest.approx(exact, abs=CLOSE)
        assert found == round(found or 0.0, 2)
    for place, one in enumerate(ids):
        assert told.lengths[one] == pytest.approx(norms[place] / np.median(norms), rel=0.01)


@both_databases
def test_only_what_screening_keeps_in_mind_is_compared(empty: Repository) -> None:
    empty.model(min_contributions=9)
    let_in, held, gone, unmeasured = many.write(empty, ["ann", "bob", "cyd", "dan"])
    set_columns(empty, held, state="quarantined")
    set_columns(empty, gone, state="rejected")
    set_columns(empty, unmeasured, sketch=None)
    told = compare(empty, [gone, held, unmeasured, let_in, "0" * 16])
    assert list(told.ids) == [held, let_in]
    assert set(told.lengths) == {held, let_in}
    # The mean is that of the one that was let in: what waits does not turn it.
    assert told.with_mean[1] == 1.0
    assert told.with_mean[0] == pytest.approx(0, abs=0.1)
    assert told.lengths[let_in] == 1.0


@both_databases
def test_what_was_fused_before_says_what_is_usual(empty: Repository) -> None:
    empty.model(min_contributions=2, method="mean")
    before = many.write(empty, [f"c{place}" for place in range(10)])
    close_by_hand(empty.ctx, MODEL, "open", empty.principal("max", "maintainer"))
    for place, one in enumerate(before):
        set_columns(empty, one, state="fused", result_number=1, chosen=True, weight=0.1)
        measures = many.measured(1.0 + place / 10, place)
        set_columns(empty, one, measures=measures.to_json())
    told = compare(empty, before)
    assert told.usual is None, "nothing was fused before it"
    assert told.shares == pytest.approx({f"c{place}": 0.1 for place in range(10)})
    with empty.ctx.database.write() as session:
        from coldfusion_server.services.lookup import find_model
        from coldfusion_server.services.rounds import open_next

        model = find_model(session, MODEL, None)
        open_next(session, model, empty.ctx.now())
    (new,) = many.write(empty, ["new"], number="2")
    told = compare(empty, [new, *before], "2")
    assert list(told.ids) == [new], "the others are another round's"
    # Lengths 1.0 to 1.9, over a median of 1.0.
    assert told.usual == pytest.approx((1.09, 1.81))
    assert told.shares == {}


@both_databases
def test_a_thousand_take_as_many_queries_as_three(empty: Repository) -> None:
    empty.model(min_contributions=9)
    seen: list[str] = []

    def count(ids: list[str]) -> int:
        seen.clear()
        compare(empty, ids)
        tallying.of_round(empty.ctx, MODEL, "1", None)
        comparing.places(empty.ctx, MODEL, "1", None)
        return len(seen)

    engine = empty.ctx.database.engine
    event.listen(engine, "before_cursor_execute", lambda _c, _cursor, text, *_: seen.append(text))
    ids = many.write(empty, ["a", "b", "c"])
    few = count(ids)
    ids += many.write(empty, [f"c{place}" for place in range(97)], seed=9)
    assert count(ids) == few
    assert len(compare(empty, ids).ids) == comparing.MOST


def test_a_private_model_tells_nothing(empty: Repository) -> None:
    empty.model(public=False)
    ids = many.write(empty, ["ann", "bob"])
    for ask in (
        lambda who: comparing.compare(empty.ctx, MODEL, "1", ids, who),
        lambda who: comparing.places(empty.ctx, MODEL, "1", who),
        lambda who: tallying.of_round(empty.ctx, MODEL, "1", who),
    ):
        with pytest.raises(ModelNotFound):
            ask(None)
        assert ask(empty.principal("rea", "reader")) is not None
    with pytest.raises(RoundNotFound):
        comparing.compare(empty.ctx, MODEL, "7", ids, empty.principal("rea", "reader"))


@both_databases
def test_a_tally_counts_states_and_who_is_late(empty: Repository) -> None:
    empty.model(min_contributions=9)
    ids = many.write(empty, ["a", "b", "c"])
    set_columns(empty, ids[0], state="rejected")
    set_columns(empty, ids[1], base_number=-1)
    found = tallying.of_round(empty.ctx, MODEL, "open", None)
    assert found.states == {ContributionState.ACCEPTED: 2, ContributionState.REJECTED: 1}
    assert found.late == 1
    empty.model("demo/other")
    assert tallying.of_round(empty.ctx, "demo/other", "1", None) == tallying.Tally({}, 0)
