"""What many visitors fetch at once is rendered once, and never for the wrong one, or too late."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import HTMLResponse

from coldfusion_server.dashboard import shared_parts
from coldfusion_server.dashboard.shared_parts import MOST, SharedParts
from tests.server.backends import Backend, only_sqlite
from tests.server.repository import MODEL, Repository, body_file, repository

pytestmark = only_sqlite

PART = f"/models/{MODEL}?part=round"


class Rendering:
    """Renders, and counts how often."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> HTMLResponse:
        self.count += 1
        return HTMLResponse(f"rendering {self.count}", headers={"X-Of": "the page"})


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 1.5)), max_size=30))
def test_it_is_what_it_was_since_the_newest_event_and_a_moment_ago(
    asked: list[tuple[int, float]],
) -> None:
    now, made = 0.0, Rendering()
    parts = SharedParts(lambda: now)
    known: tuple[int, float] | None = None
    for moment, pause in asked:
        now += pause
        before = made.count
        answer = parts.get(("a",), moment, made)
        is_new = known is None or known[0] != moment or now >= known[1] + shared_parts.SECONDS
        assert made.count == before + is_new
        assert bytes(answer.body) == f"rendering {made.count}".encode()
        assert answer.headers["x-of"] == "the page"
        known = (moment, now) if is_new else known


def test_other_parts_are_other_ones_and_few_are_kept() -> None:
    made, parts = Rendering(), SharedParts(lambda: 0.0)
    for number in range(MOST + 1):
        parts.get((number,), 1, made)
    assert made.count == MOST + 1
    parts.get((MOST,), 1, made)
    assert made.count == MOST + 1
    parts.get((0,), 1, made)
    assert made.count == MOST + 2


def test_who_asks_while_it_is_rendered_waits_for_that() -> None:
    begun, go_on, parts = threading.Event(), threading.Event(), SharedParts(lambda: 0.0)
    found: list[bytes] = []

    def slowly() -> HTMLResponse:
        begun.set()
        assert go_on.wait(120)
        return HTMLResponse("slow")

    def ask() -> None:
        found.append(bytes(parts.get(("a",), 1, slowly).body))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    threads[0].start()
    assert begun.wait(120)
    begun.clear()
    for thread in threads[1:]:
        thread.start()
    go_on.set()
    for thread in threads:
        thread.join(120)
    assert found == [b"slow"] * 8
    assert not begun.is_set()


def test_what_fails_is_tried_again() -> None:
    parts = SharedParts(lambda: 0.0)

    def fails() -> HTMLResponse:
        raise LookupError

    with pytest.raises(LookupError):
        parts.get(("a",), 1, fails)
    assert bytes(parts.get(("a",), 1, Rendering()).body) == b"rendering 1"


@pytest.fixture
def repo(tmp_path: Path, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    # A moment lasts as long as the test; no reader of events runs, so the test says what is known.
    monkeypatch.setattr(shared_parts, "SECONDS", 10_000.0)
    with backend.database() as url, repository(tmp_path, url) as made:
        made.model(min_contributions=3)
        made.client().app.state.broker.last = 1  # type: ignore[attr-defined]
        yield made


def text(client: Any, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return str(answer.text)


def test_visitors_share_a_part_until_something_happens(repo: Repository) -> None:
    visitor = repo.client()
    before = text(visitor, PART)
    repo.contributor("ann").contribute(body_file(1))
    assert text(visitor, PART) == before
    assert "ann" in text(visitor, f"/models/{MODEL}"), "a whole page is always new"
    visitor.app.state.broker.last = 2  # type: ignore[attr-defined]
    assert "ann" in text(visitor, PART)


def test_who_is_known_shares_nothing(repo: Repository) -> None:
    text(repo.client(), PART)
    maintainer = repo.client(repo.token("mia", "maintainer"))
    repo.contributor("ann").contribute(body_file(1))
    assert "ann" in text(maintainer, PART)
    assert "ann" not in text(repo.client(), PART)


def test_what_is_private_is_told_to_nobody_else(repo: Repository) -> None:
    repo.model("acme/secret", public=False)
    maintainer = repo.client(repo.token("mia", "maintainer"))
    path = "/models/acme/secret?part=round"
    assert repo.client().get(path).status_code == 404
    text(maintainer, path)
    assert repo.client().get(path).status_code == 404
