"""What is told of a contributor, and to whom."""

from __future__ import annotations

import pytest
from sqlalchemy import event, update

from coldfusion_server.db.tables import ContributionRow
from coldfusion_server.services import contributed
from coldfusion_server.services.paging import Window
from coldfusion_server.services.tokens import Principal
from coldfusion_shared.errors import NotFound
from tests.dashboard import many
from tests.server.backends import both_databases, only_sqlite
from tests.server.repository import MODEL, Json, Repository, body_file

PRIVATE = "demo/private"
EFFECT = {"suite": "text-2", "base": 70.0, "score": 71.5, "difference": 1.5}


def shown(repo: Repository, name: str, token: str | None = None) -> Json:
    return repo.get(f"/v1/contributors/{name}", token)


def status(repo: Repository, name: str, token: str | None = None) -> int:
    return int(repo.client(token).get(f"/v1/contributors/{name}").status_code)


@both_databases
def test_a_contributor_is_counted_over_models(empty: Repository) -> None:
    empty.model(min_contributions=9)
    empty.model("demo/other", min_contributions=9)
    ann = empty.contributor("ann")
    first = ann.contribute(body_file(1))
    ann.sent(body_file(2))
    ann.contribute(body_file(3), model="demo/other")
    empty.work()
    with empty.ctx.database.write() as session:
        session.execute(
            update(ContributionRow)
            .where(ContributionRow.id == first)
            .values(state="fused", result_number=3, cosine=0.25, norm_ratio=1.5, effect=EFFECT)
        )
    told = shown(empty, "ann")
    assert told["contributions"] == 3
    assert told["states"] == {"fused": 1, "declared": 1, "accepted": 1}
    assert told["models"] == [
        {"model": "demo/other", "contributions": 1, "bases": []},
        {"model": MODEL, "contributions": 2, "bases": ["v3"]},
    ]
    (useful,) = told["useful"]
    assert (useful["contribution"], useful["cosine"], useful["norm_ratio"]) == (first, 0.25, 1.5)
    assert useful["own_effect"]["difference"] == 1.5
    assert told["usage"] is None


@both_databases
def test_what_is_private_is_neither_told_nor_counted(empty: Repository) -> None:
    empty.model(min_contributions=9)
    empty.model(PRIVATE, public=False, min_contributions=9)
    both, hidden = empty.contributor("both"), empty.contributor("hidden")
    both.contribute(body_file(1))
    both.contribute(body_file(2), model=PRIVATE)
    hidden.contribute(body_file(3), model=PRIVATE)
    assert shown(empty, "both")["contributions"] == 1
    unknown = empty.client().get("/v1/contributors/nobody")
    secret = empty.client().get("/v1/contributors/hidden")
    assert (unknown.status_code, secret.status_code) == (404, 404)
    assert secret.json()["code"] == unknown.json()["code"]
    assert secret.json()["detail"] == unknown.json()["detail"].replace("nobody", "hidden")
    # A token for other models opens nothing; one for this one does.
    assert status(empty, "hidden", empty.token("r1", "reader", [MODEL])) == 404
    reader = empty.token("r2", "reader", [PRIVATE])
    assert shown(empty, "hidden", reader)["contributions"] == 1
    assert [m["model"] for m in shown(empty, "both", reader)["models"]] == [PRIVATE, MODEL]


@only_sqlite
def test_a_quota_is_for_its_contributor_and_those_who_manage_all(empty: Repository) -> None:
    empty.model(min_contributions=9)
    empty.contributor("ann").contribute(body_file(1))
    empty.work()
    mine = shown(empty, "ann", empty.token("ann"))["usage"]
    assert mine == empty.get("/v1/usage/me", empty.token("ann"))
    assert mine["contributions"] == 1 and mine["kept_bytes"] > 0
    for role, models, seen in [
        ("reader", None, False), ("contributor", None, False), ("evaluator", None, False),
        ("maintainer", [MODEL], False), ("maintainer", None, True), ("admin", None, True),
    ]:  # fmt: skip
        told = shown(empty, "ann", empty.token(f"some-{role}", role, models))
        assert (told["usage"] == mine) is seen, (role, models)
        assert (told["usage"] is None) is not seen


@only_sqlite
def test_who_has_contributed_nothing_is_known_to_himself_and_those_who_manage(
    empty: Repository,
) -> None:
    empty.model()
    token = empty.token("new")
    assert status(empty, "new") == 404
    assert status(empty, "new", empty.token("rea", "reader")) == 404
    assert shown(empty, "new", token)["contributions"] == 0
    assert shown(empty, "new", empty.token("max", "maintainer"))["states"] == {}


@only_sqlite
@pytest.mark.parametrize("name", ["%00", "a%00", "x" * 500, "..%5c", "%F0%9F%98%80", "ann%20"])
def test_a_name_that_nobody_has_is_not_found(empty: Repository, name: str) -> None:
    empty.model()
    empty.contributor("ann").contribute(body_file(1))
    answer = empty.client().get(f"/v1/contributors/{name}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@both_databases
def test_a_history_has_pages_and_as_many_queries_for_any(empty: Repository) -> None:
    empty.model(min_contributions=9)
    ids = many.write(empty, [f"c{place}" for place in range(9)])
    with empty.ctx.database.write() as session:
        rows = session.query(ContributionRow).order_by(ContributionRow.number).all()
        for row in rows:
            row.contributor_id, row.cosine = rows[0].contributor_id, 0.5
    seen: list[str] = []
    event.listen(
        empty.ctx.database.engine,
        "before_cursor_execute",
        lambda _c, _cursor, text, *_: seen.append(text),
    )

    def page(limit: int, cursor: str | None = None) -> list[str]:
        window = Window(cursor, limit)
        found = contributed.list_contributed(empty.ctx, "c0", None, window)
        return [item.id for item in found.items]

    assert page(2) == ids[:-3:-1]
    few = len(seen)
    seen.clear()
    assert page(9) == ids[::-1]
    assert len(seen) == few
    with pytest.raises(NotFound):
        contributed.list_contributed(empty.ctx, "c1", None, Window())


@only_sqlite
def test_a_maintainer_of_one_model_sees_what_it_may_read(empty: Repository) -> None:
    empty.model(PRIVATE, public=False)
    empty.model(min_contributions=9)
    empty.contributor("ann").contribute(body_file(1), model=PRIVATE)
    who: Principal | None = None
    with pytest.raises(NotFound):
        contributed.get_contributor(empty.ctx, "ann", who)
    token = empty.token("mia", "maintainer", [PRIVATE])
    assert shown(empty, "ann", token)["usage"] is None
