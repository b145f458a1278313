"""The pages, without a browser: what they show, to whom, and that words stay words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from coldfusion_server.dashboard.rendering import EVENTS
from coldfusion_server.db.tables import RoundRow
from coldfusion_server.services.cancelling import cancel
from coldfusion_server.services.closing import close_by_hand
from coldfusion_server.services.rounds import advance
from coldfusion_shared.rounds import RoundState
from tests.dashboard.history import HOSTILE, LONG, PRIVATE, contribute, live_through
from tests.dashboard.measured import go_to, grow
from tests.server.backends import Backend, both_databases
from tests.server.repository import MODEL, Repository, body_of, repository, tiny_tensors
from tests.shared.checkpoints import file_bytes

PAGE = f"/models/{MODEL}"
PARTS = ("current", "round", "scores", "history", "storage")


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory, backend: Backend) -> Iterator[Repository]:
    folder = tmp_path_factory.mktemp("dashboard")
    with backend.database() as url, repository(folder, url) as opened:
        live_through(opened)
        yield opened


@pytest.fixture(scope="module")
def visitor(repo: Repository) -> TestClient:
    return repo.client()


def text(client: TestClient, path: str, status: int = 200) -> str:
    answer = client.get(path)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return answer.text


def flat(html: str) -> str:
    """Return what a person reads: no tags, single spaces."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))


def test_the_overview_shows_what_matters_of_a_model(visitor: TestClient) -> None:
    page = flat(text(visitor, "/"))
    for fact in (
        "demo/ tiny",
        "v1",
        "+2.00 ± 0.20 points since v0",
        "Round 2 open",
        "1 of 3 accepted",
    ):
        assert fact in page
    assert "4 contributors" in page and "published" in page


def test_an_empty_repository_says_how_to_begin(tmp_path_factory: pytest.TempPathFactory) -> None:
    with repository(tmp_path_factory.mktemp("empty")) as opened:
        page = text(opened.client(), "/")
    assert "coldfusion-server model create" in page and "coldfusion-client login http" in page


def test_a_model_says_whether_it_is_better_than_v0(visitor: TestClient) -> None:
    page = flat(text(visitor, PAGE))
    assert "Yes, +2.00 points" in page and "65.00 → 67.00" in page
    for fact in ("66.00", "+6.00", "\N{MINUS SIGN}2.00"):
        assert fact in page


def test_a_model_shows_its_open_round(visitor: TestClient) -> None:
    page = flat(text(visitor, PAGE))
    assert "Round 2 open" in page and "Needs 2 more accepted contributions" in page
    assert "dan declared" in page and "(0 %) arrived" in page
    assert "ann accepted" in page


def test_a_model_shows_its_past(visitor: TestClient) -> None:
    page = flat(text(visitor, PAGE))
    assert "Round 1 published v0 → v1 2" in page and "1 h 30 min" in page
    assert "mean ann 0.5 , bob 0.5" in page


def test_a_model_shows_what_it_takes(visitor: TestClient) -> None:
    page = flat(text(visitor, f"{PAGE}?part=storage"))
    assert "The files of a contribution are kept for ever, too." in page
    for row in ("Bases 2 ", "Contributions of ann 2 2.6 kB", "Contributions of dan 0 0 B 1 1.3 kB",
                "All contributions 3 3.9 kB 1 1.3 kB"):  # fmt: skip
        assert row in page, page


def test_a_model_says_how_to_use_it(visitor: TestClient) -> None:
    page = text(visitor, PAGE)
    assert f"coldfusion-client pull {MODEL} --out tiny" in page
    assert "AutoModel.from_pretrained(&#34;./tiny&#34;)" in page
    assert f"http://testserver/v1/models/{MODEL}/bases/latest/files/model.safetensors" in page


def test_a_past_round_shows_what_was_rejected_and_why(visitor: TestClient) -> None:
    page = flat(text(visitor, f"{PAGE}/rounds/1"))
    assert "cyd rejected" in page and "NaN or infinity in encoder" in page
    assert "bob fused" in page and "checks passed" in page and LONG in page


def test_a_receipt_has_everything(repo: Repository, visitor: TestClient) -> None:
    items = repo.get(f"/v1/models/{MODEL}/contributions?contributor=ann&round=1")["items"]
    page = flat(text(visitor, f"/contributions/{items[0]['id']}"))
    for fact in ("Part of a published base", "with weight 0.5", "finite pass", "reviews", "71.50",
                 "Weight 0.5", "Cosine 0.", "over the round’s median"):  # fmt: skip
        assert fact in page
    assert items[0]["files"][0]["sha256"][:16] in page


def test_a_base_shows_its_lineage_and_files(repo: Repository, visitor: TestClient) -> None:
    base = repo.get(f"/v1/models/{MODEL}/bases/v1")
    page = flat(text(visitor, f"{PAGE}/bases/v1"))
    assert base["digest"] in page and "round 1" in page and "Made of 2 contributions" in page
    for file in base["manifest"]["files"]:
        assert file["path"] in page and file["sha256"][:16] in page
    assert "Source tests" in flat(text(visitor, f"{PAGE}/bases/v0"))


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_the_same_alone_and_in_its_page(visitor: TestClient, part: str) -> None:
    alone = text(visitor, f"{PAGE}?part={part}").strip()
    assert f'id="part-{part}"' in alone and "<html" not in alone
    assert alone in text(visitor, PAGE)


def test_only_what_moves_is_polled(visitor: TestClient) -> None:
    assert "every 2s" in text(visitor, f"{PAGE}?part=round")
    assert "every 2s" not in text(visitor, f"{PAGE}/rounds/1?part=round")
    assert "every 2s" not in text(visitor, f"{PAGE}?part=history")


def test_the_page_listens_to_every_event_that_happened(
    repo: Repository, visitor: TestClient
) -> None:
    happened = {event["type"] for event in repo.get("/v1/events?limit=500")}
    assert happened <= set(EVENTS)
    assert "sse:contribution.accepted" in text(visitor, PAGE)


def test_a_rollback_is_told_with_its_reason(tmp_path: Path) -> None:
    with repository(tmp_path) as opened:
        opened.model()
        grow(opened, 2)
        assert "The head went" not in text(opened.client(), PAGE)
        go_to(opened, "v1", HOSTILE)
        client = opened.client()
        page = text(client, PAGE)
        older, abandoned = (flat(text(client, f"{PAGE}/bases/{v}")) for v in ("v0", "v2"))
        grow(opened, 1)
        after = flat(text(client, PAGE))
        below = flat(text(client, f"{PAGE}/bases/v1"))
    assert "The head went from v2 to v1 by mia’s rollback, 2026-06-01 12:00 UTC" in flat(page)
    assert HOSTILE not in page and "alert(1)" in flat(page)
    assert "v0 older" in older and "v2 abandoned" in abandoned
    assert "v1, the current base, does not come from it." in abandoned
    assert "The head went" not in after and "v1 older" in below


@pytest.mark.parametrize("path", [f"{PAGE}?part={part}" for part in PARTS] + [f"{PAGE}/bases/v0"])
def test_what_shows_the_head_listens_to_its_moves(visitor: TestClient, path: str) -> None:
    (kinds,) = set(re.findall(r'data-live="([^"]+)"', text(visitor, path)))
    assert "model" in kinds.split()


def test_a_cancelled_round_says_where_its_contributions_went(tmp_path: Path) -> None:
    with repository(tmp_path) as opened:
        opened.model(min_contributions=2)
        contribute(opened, "ann", file_bytes(body_of(tiny_tensors(), 1)))
        who = opened.principal("mia", "maintainer")
        cancel(opened.ctx, MODEL, "1", "the data were wrong", who)
        page = flat(text(opened.client(), f"{PAGE}/rounds/1"))
    assert "They all went on to later rounds." in page and "There were none" not in page
    # When it ended is no part of what is told of it.
    assert "Cancelled; nothing was published. ended" in page


def test_a_fault_of_ours_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("no such file: /srv/secret/part.bin\n[SQL: INSERT INTO rounds]")

    monkeypatch.setattr("coldfusion_server.services.publishing.fuse", fails)
    with repository(tmp_path) as opened:
        opened.model(min_contributions=1)
        contribute(opened, "ann", file_bytes(body_of(tiny_tensors(), 1)))
        close_by_hand(opened.ctx, MODEL, "open", opened.principal("mia", "maintainer"))
        opened.work()
        page = flat(text(opened.client(), f"{PAGE}/rounds/1"))
    assert "An internal error: RuntimeError: no such file: part.bin." in page
    assert "secret" not in page and "SQL" not in page


def test_nobody_is_asked_whether_v0_is_better_than_v0(tmp_path: Path) -> None:
    with repository(tmp_path) as opened:
        opened.model()
        page = flat(text(opened.client(), PAGE))
    assert "Its scores Not measured yet" in page and "better than v0" not in page


def test_a_round_that_fuses_shows_how_far_it_is(tmp_path: Path) -> None:
    with repository(tmp_path) as opened:
        opened.model(min_contributions=2)
        contribute(opened, "ann", file_bytes(body_of(tiny_tensors(), 1)))
        close_by_hand(opened.ctx, MODEL, "open", opened.principal("mia", "maintainer"))
        closed = text(opened.client(), f"{PAGE}?part=round")
        with opened.ctx.database.write() as session:
            row = session.scalars(select(RoundRow)).one()
            counts: Any = {"fused_bytes": 250_000, "total_bytes": 1_000_000}
            advance(session, opened.clock.now, row, RoundState.FUSING, **counts)
        fusing = text(opened.client(), f"{PAGE}?part=round")
        overview = text(opened.client(), "/")
    assert "Closed; fusing is next" in flat(closed) and "every 2s" in closed
    assert "250 kB of 1.0 MB (25 %) of contributions read" in flat(fusing) and "every 2s" in fusing
    assert 'max="1000000" value="250000"' in fusing
    assert "the contributions are being fused" in flat(overview)


class Elements(HTMLParser):
    """Notes what would run, and what would be fetched from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.bad: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        if tag == "style" or (tag == "script" and not (values.get("src") or "").startswith("/")):
            self.bad.append(tag)
        self.bad += [name for name in values if name.startswith("on") or name == "style"]
        links = (values.get("src"), values.get("href"))
        self.bad += [link for link in links if link and not link.startswith(("/", "#"))]


def test_hostile_words_stay_words(repo: Repository, visitor: TestClient) -> None:
    (item,) = repo.get(f"/v1/models/{MODEL}/contributions?contributor=ann&round=2")["items"]
    for path in (PAGE, f"{PAGE}?part=round", f"/contributions/{item['id']}"):
        page = text(visitor, path)
        assert HOSTILE not in page and "&lt;script&gt;" in page
        elements = Elements()
        elements.feed(page)
        assert not elements.bad and "alert(1)" in flat(page)


@pytest.mark.parametrize("path", ["/", PAGE, f"{PAGE}/bases/v1", f"{PAGE}/rounds/1", "/login"])
def test_nothing_runs_inline_and_nothing_comes_from_afar(visitor: TestClient, path: str) -> None:
    elements = Elements()
    elements.feed(text(visitor, path))
    assert not elements.bad and {"header", "main", "footer", "h1"} <= set(elements.tags)


def test_a_private_model_is_hidden_until_login(repo: Repository, visitor: TestClient) -> None:
    assert "secret" not in text(visitor, "/")
    assert "log in" in text(visitor, f"/models/{PRIVATE}", 404)
    reader = repo.client(repo.token("rea", "reader"))
    assert "secret" in text(reader, "/") and "private" in text(reader, f"/models/{PRIVATE}")


@pytest.mark.parametrize(
    "path",
    [
        "/models/no/where",
        f"{PAGE}/bases/v99",
        f"{PAGE}/rounds/99",
        "/contributions/none",
        "/models/only-one-part",
    ],
)
def test_what_is_not_there_is_said_on_a_page(visitor: TestClient, path: str) -> None:
    page = text(visitor, path, 404)
    assert "Not Found" in page and 'href="/"' in page


def test_errors_are_pages_for_people_and_problems_for_programs(visitor: TestClient) -> None:
    assert "422" in text(visitor, f"{PAGE}?part=nonsense", 422)
    asked = visitor.get("/nowhere", headers={"Accept": "text/html,*/*"})
    assert asked.status_code == 404 and "<html" in asked.text
    assert "There is nothing to see at this address." in asked.text
    assert "GET /nowhere" not in asked.text
    for path in ("/nowhere", "/v1/models/no/where"):
        answer = visitor.get(path)
        assert answer.headers["content-type"] == "application/problem+json"


def test_an_error_of_our_own_is_a_page_too(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("a secret detail")

    monkeypatch.setattr("coldfusion_server.dashboard.loading.Reader.overview", fails)
    page = text(repo.client(), "/", 500)
    assert "an error of its own" in page and "Request " in page and "secret detail" not in page


def test_pages_are_not_kept_and_answer_head(visitor: TestClient) -> None:
    answer = visitor.head(PAGE)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "private, no-store"
    assert "script-src 'self'" in answer.headers["content-security-policy"]


def test_assets_are_kept_for_ever_by_their_content(visitor: TestClient) -> None:
    addresses = re.findall(r'"(/static/[^"]+)"', text(visitor, "/"))
    assert len(addresses) == 6
    for address in addresses:
        answer = visitor.get(address)
        assert answer.status_code == 200 and "immutable" in answer.headers["cache-control"]
    plain = visitor.get("/static/app.css?v=0")
    assert plain.headers["cache-control"] == "no-cache" and "etag" in plain.headers
    assert visitor.get("/static/../rendering.py").status_code == 404


@both_databases
def test_lists_are_paged(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coldfusion_server.dashboard.views.CONTRIBUTIONS", 1)
    first = text(repo.client(), PAGE)
    (link,) = re.findall(r'href="([^"]+contributions=[^"]+)"', first)
    second = text(repo.client(), link.partition("#")[0])
    for page in (first, second):
        assert page.count('class="contribution"') == 1
    assert "Newest" in second and "Newest" not in first
    assert "contributions=" in re.findall(r'hx-get="([^"]+part=round[^"]*)"', second)[0]


def test_contributions_that_arrive_are_shown_by_the_next_look(repo: Repository) -> None:
    before = text(repo.client(), f"{PAGE}?part=round")
    contribute(repo, "fay", file_bytes(body_of(tiny_tensors(), 77)), "v1", dataset="late")
    after = text(repo.client(), f"{PAGE}?part=round")
    assert "fay" not in before and "fay" in after
