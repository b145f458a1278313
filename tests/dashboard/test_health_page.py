"""The page of the Repository's health, without a browser: for whom, what it shows, in words."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from coldfusion_server.db.tables import LeaseRow, RoundRow
from coldfusion_server.services.health_leases import SLACK
from coldfusion_shared.rounds import RoundState
from tests.dashboard.history import HOSTILE, PRIVATE, live_through
from tests.dashboard.test_pages import Elements, flat, text
from tests.server.backends import only_sqlite
from tests.server.repository import MODEL, Repository, repository

pytestmark = only_sqlite

PAGE = "/health"


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    with repository(tmp_path_factory.mktemp("health")) as opened:
        live_through(opened)
        yield opened


@pytest.fixture(scope="module")
def maintainer(repo: Repository) -> TestClient:
    return repo.client(repo.token("max", "maintainer"))


def test_the_page_shows_queues_workers_and_storage(maintainer: TestClient) -> None:
    page = flat(text(maintainer, PAGE))
    assert "Uploads on their way 1" in page and "Screening 0" in page
    assert "Nothing that is not mended" in page
    assert "screening given back contribution" in page
    assert MODEL in page and PRIVATE in page
    assert "Revision 0" in page and "Free" in page
    assert "Sending to webhooks 0" in page


@pytest.mark.parametrize(
    ("role", "models", "status"),
    [
        (None, None, 401),
        ("reader", None, 403),
        ("evaluator", None, 403),
        ("maintainer", [MODEL], 403),
    ],
)
def test_others_do_not_see_it_nor_the_way_there(
    repo: Repository, role: str | None, models: list[str] | None, status: int
) -> None:
    client = repo.client(None if role is None else repo.token("who", role, models))
    for query in ("", "?part=work", "?part=store"):
        page = text(client, f"{PAGE}{query}", status)
        assert "Uploads on their way" not in page and PRIVATE not in page
    assert 'href="/health"' not in text(client, "/")


def test_those_who_oversee_all_models_find_it(maintainer: TestClient) -> None:
    assert 'href="/health"' in text(maintainer, "/")


@pytest.mark.parametrize("part", ["work", "store"])
def test_a_part_is_the_same_alone_and_in_its_page(maintainer: TestClient, part: str) -> None:
    alone = text(maintainer, f"{PAGE}?part={part}").strip()
    assert f'id="part-{part}"' in alone and "<html" not in alone
    # The newest events may come in between.
    assert alone[:200] in text(maintainer, PAGE)


def test_nothing_runs_inline(maintainer: TestClient) -> None:
    elements = Elements()
    elements.feed(text(maintainer, PAGE))
    assert not elements.bad and {"meter", "table", "h1"} <= set(elements.tags)


def test_what_is_stuck_and_what_failed_is_told_in_words(repo: Repository) -> None:
    now = repo.clock.now
    with repo.ctx.database.write() as session:
        row = session.scalars(select(RoundRow).where(RoundRow.number == 1)).first()
        assert row is not None
        before = (row.state, row.reason)
        row.state, row.reason, row.attempts = RoundState.FAILED, HOSTILE, 2
        at = now - 2 * SLACK
        session.add(LeaseRow(key=f"round:{row.id}:x", holder=HOSTILE, fencing=2, expires_at=at))
        lease = session.get(LeaseRow, f"round:{row.id}")
        if lease is None:
            lease = LeaseRow(key=f"round:{row.id}", holder="h", fencing=1, expires_at=at)
            session.add(lease)
        lease.expires_at = at
    try:
        page = text(repo.client(repo.token("ada", "admin")), PAGE)
    finally:
        with repo.ctx.database.write() as session:
            row = session.scalars(select(RoundRow).where(RoundRow.number == 1)).first()
            assert row is not None
            row.state, row.reason, row.attempts = (*before, 0)
    assert f"Round 1 of {MODEL}" in flat(page) and "2 tries" in flat(page)
    assert "stuck" in page and HOSTILE not in page and "alert(1)" in page
    assert at < now - timedelta(minutes=1)
