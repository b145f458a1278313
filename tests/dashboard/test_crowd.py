"""A round of a thousand: its pages show some at a time, and cost no more than those of sixty."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from benchmarks.crowd import fill_round
from tests.server.backends import Backend, only_sqlite
from tests.server.repository import MODEL, Repository, body_file, repository

pytestmark = only_sqlite

FEW, MANY = 60, 1000
LINK = re.compile(r'href="/contributions/([0-9a-f]+)"')
NEXT = re.compile(r'href="[^"?]*(\?contributions=[^"#]*)#')


@pytest.fixture
def crowd(tmp_path: Path, backend: Backend) -> Iterator[Repository]:
    with backend.database() as url, repository(tmp_path, url) as made:
        made.model(min_contributions=10_000)
        made.contributor("ann").contribute(body_file(1))
        made.work()
        fill_round(made.ctx.database, FEW - 1)
        yield made


@contextmanager
def counted(repo: Repository) -> Iterator[list[str]]:
    """Gather the statements that are executed within the block."""
    found: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        found.append(statement)

    engine = repo.ctx.database.engine
    event.listen(engine, "before_cursor_execute", note)
    yield found
    event.remove(engine, "before_cursor_execute", note)


def shown(repo: Repository, path: str) -> str:
    answer = repo.client(None).get(path)
    assert answer.status_code == 200, answer.text
    return str(answer.text)


@pytest.mark.parametrize(
    "path",
    [
        f"/models/{MODEL}/rounds/1",
        f"/models/{MODEL}",
        f"/models/{MODEL}/lineage",
        "/",
        f"/v1/models/{MODEL}/rounds/1/figures/cosines.json",
    ],
)
def test_a_page_asks_the_database_as_often_whatever_there_is(crowd: Repository, path: str) -> None:
    shown(crowd, path)
    with counted(crowd) as few:
        shown(crowd, path)
    fill_round(crowd.ctx.database, MANY - FEW)
    with counted(crowd) as many:
        text = shown(crowd, path)
    assert len(many) == len(few)
    assert len(text) < 1_000_000


def test_a_round_is_shown_page_by_page_and_whole(crowd: Repository) -> None:
    fill_round(crowd.ctx.database, MANY - FEW)
    path, query, seen = f"/models/{MODEL}/rounds/1", "", set[str]()
    for _ in range(MANY):
        text = shown(crowd, path + query)
        found = set(LINK.findall(text))
        assert found and len(found) <= 50
        assert not found & seen
        seen |= found
        more = NEXT.search(text)
        if more is None:
            break
        query = more[1]
    assert len(seen) == MANY
