"""The page of a contributor: the work, its use, the quota; and to whom it is shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from coldfusion_server.db.tables import ContributionRow
from tests.dashboard import many
from tests.dashboard.history import HOSTILE, PRIVATE, live_through
from tests.dashboard.test_pages import flat, text
from tests.server.backends import Backend, only_sqlite
from tests.server.repository import MODEL, Repository, body_file, repository

EFFECT = {"suite": "text-2", "base": 70.0, "score": 71.5, "difference": 1.5}


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory, backend: Backend) -> Iterator[Repository]:
    folder = tmp_path_factory.mktemp("contributors")
    with backend.database() as url, repository(folder, url, quota_bytes=10_000) as opened:
        live_through(opened)
        yield opened


@pytest.fixture(scope="module")
def visitor(repo: Repository) -> TestClient:
    return repo.client()


def test_a_contributor_sees_what_became_of_the_work(visitor: TestClient) -> None:
    page = flat(text(visitor, "/contributors/ann"))
    assert "2 contributions to 1 model that everybody may see" in page
    assert "1 accepted 1 fused" in page
    assert "demo/tiny 2 v1" in page
    assert "demo/tiny, round 1" in page and "demo/tiny, round 2" in page
    assert "Quota" not in page


def test_a_part_is_the_same_alone_and_in_its_page(visitor: TestClient) -> None:
    alone = text(visitor, "/contributors/ann?part=contributor").strip()
    assert 'id="part-contributor"' in alone and "<html" not in alone
    assert alone in text(visitor, "/contributors/ann")


def test_an_upload_that_arrives_is_looked_at_again(visitor: TestClient) -> None:
    assert "every 2s" in text(visitor, "/contributors/dan?part=contributor")
    assert "every 2s" not in text(visitor, "/contributors/ann?part=contributor")


def test_the_quota_is_shown_to_its_contributor_and_to_those_who_manage(repo: Repository) -> None:
    for name, role, models, seen in [
        ("ann", "contributor", None, True), ("max", "maintainer", None, True),
        ("ada", "admin", None, True), ("bob", "contributor", None, False),
        ("eve", "evaluator", None, False), ("mia", "maintainer", [MODEL], False),
    ]:  # fmt: skip
        page = flat(text(repo.client(repo.token(name, role, models)), "/contributors/ann"))
        assert ("Quota" in page) is seen, (name, role)
        assert ("of 10.0 kB" in page) is seen


@pytest.mark.parametrize("name", ["nobody", HOSTILE, "a/b", "..", "x" * 3000, "\N{SNOWMAN}", " "])
def test_who_is_not_there_is_a_page_that_says_so(visitor: TestClient, name: str) -> None:
    page = text(visitor, f"/contributors/{quote(name.replace('..', 'a..'), safe='')}", 404)
    assert "There is no contributor" in page and "<script>" not in page


@only_sqlite
def test_who_contributed_in_private_alone_is_nobody_for_strangers(tmp_path: Path) -> None:
    with repository(tmp_path / "data") as repo:
        repo.model(PRIVATE, public=False)
        repo.model(min_contributions=9)
        repo.contributor("shy").contribute(body_file(1), model=PRIVATE)
        repo.contributor("bob").contribute(body_file(2), model=PRIVATE)
        repo.contributor("bob").contribute(body_file(3))
        strangers = repo.client(), repo.client(repo.token("rea", "reader", [MODEL]))
        for stranger in strangers:
            hidden = flat(text(stranger, "/contributors/shy", 404))
            unknown = flat(text(stranger, "/contributors/sky", 404))
            cut = hidden.index("All models")
            assert hidden[:cut].replace("shy", "sky") == unknown[:cut]
            page = text(stranger, "/contributors/bob")
            assert PRIVATE not in page and "1 contribution to 1 model" in flat(page)
        insider = repo.client(repo.token("ina", "reader", [PRIVATE]))
        assert PRIVATE in text(insider, "/contributors/shy")


@only_sqlite
def test_a_hostile_name_has_a_page_where_it_stays_a_word(tmp_path: Path) -> None:
    with repository(tmp_path / "data") as repo:
        repo.model(min_contributions=9)
        names = [HOSTILE, "\u202eevil\x1b[2J", "a/b?c#d", "{{ 7 * 7 }}"]
        many.write(repo, names)
        visitor = repo.client()
        listed = text(visitor, f"/models/{MODEL}/rounds/1")
        for name in names:
            address = f"/contributors/{quote(name)}"
            assert f'href="{address}"' in listed, name
            page = text(visitor, address)
            assert "<script>" not in page and "\u202e" not in page and "\x1b" not in page
            assert "1 contribution to 1 model" in flat(page) and "49" not in flat(page)[:200]


@only_sqlite
def test_usefulness_is_drawn_over_time_and_told_in_numbers(tmp_path: Path) -> None:
    with repository(tmp_path / "data") as repo:
        repo.model(min_contributions=9)
        ids = many.write(repo, ["ann", "b", "c"])
        with repo.ctx.database.write() as session:
            rows = session.query(ContributionRow).order_by(ContributionRow.number).all()
            for row, cosine in zip(rows, (0.1, 0.4, -0.2), strict=True):
                row.contributor_id, row.cosine, row.norm_ratio = rows[0].contributor_id, cosine, 1.5
            session.execute(
                update(ContributionRow).where(ContributionRow.id == ids[0]).values(effect=EFFECT)
            )
        page = text(repo.client(), "/contributors/ann")
        start = page.index('<svg class="chart"')
        drawn = ElementTree.fromstring(page[start : page.index("</svg>", start) + 6])
        titles = [title.text for title in drawn.iter("title")]
        assert titles[1:] == [
            "demo/tiny, round 1: 0.10",
            "demo/tiny, round 1: 0.40",
            "demo/tiny, round 1: \N{MINUS SIGN}0.20",
        ]
        told = flat(page)
        assert "Measured alone, 1 of 1 made its base better; on average +1.50 points" in told


@only_sqlite
def test_a_history_has_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coldfusion_server.dashboard.views.CONTRIBUTIONS", 2)
    with repository(tmp_path / "data") as repo:
        repo.model(min_contributions=9)
        many.write(repo, ["ann", "b", "c"])
        with repo.ctx.database.write() as session:
            rows = session.query(ContributionRow).all()
            for row in rows:
                row.contributor_id = rows[0].contributor_id
        visitor = repo.client()
        first = text(visitor, "/contributors/ann")
        assert first.count('class="contribution"') == 2 and "Earlier contributions" in first
        address = first.split("?contributions=")[1].split("#")[0]
        second = text(visitor, f"/contributors/ann?contributions={address}")
        assert second.count('class="contribution"') == 1 and "Newest" in second
        assert f"contributions={address}" in second.split("hx-get=")[1][:200]
