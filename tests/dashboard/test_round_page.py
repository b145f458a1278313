"""The page of a round and of a contribution: figures, verdicts, the gate; to whom and how fast."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event, update

from coldfusion_server.dashboard.figures import of_round
from coldfusion_server.db.tables import ContributionRow
from tests.dashboard import many
from tests.dashboard.history import HOSTILE, PRIVATE, live_through
from tests.dashboard.test_pages import flat, text
from tests.server import gated
from tests.server.backends import Backend, both_databases, only_sqlite
from tests.server.repository import MODEL, Json, Repository, repository

PAGE = f"/models/{MODEL}/rounds"
API = f"/v1/models/{MODEL}/rounds"
PARTS = ("round", "figures", "contributions")


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory, backend: Backend) -> Iterator[Repository]:
    folder = tmp_path_factory.mktemp("rounds")
    with backend.database() as url, repository(folder, url) as opened:
        live_through(opened)
        yield opened


@pytest.fixture(scope="module")
def visitor(repo: Repository) -> TestClient:
    return repo.client()


def figure(client: TestClient, name: str, number: int = 1, **query: str) -> Json:
    answer = client.get(f"{API}/{number}/figures/{name}.json", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def change(repo: Repository, contribution: str, **columns: object) -> None:
    with repo.ctx.database.write() as session:
        of = ContributionRow.id == contribution
        session.execute(update(ContributionRow).where(of).values(**columns))


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_the_same_alone_and_in_its_page(visitor: TestClient, part: str) -> None:
    for number in (1, 2):
        alone = text(visitor, f"{PAGE}/{number}?part={part}").strip()
        assert f'id="part-{part}"' in alone and "<html" not in alone
        assert alone in text(visitor, f"{PAGE}/{number}")


def test_the_summary_comes_first_and_counts(visitor: TestClient) -> None:
    page = flat(text(visitor, f"{PAGE}/2"))
    assert "1 of 3 accepted" in page and "Needs 2 more accepted contributions" in page
    assert "1 accepted 1 uploading" in page
    assert page.index("Needs 2 more") < page.index("Screening, check by check")
    assert page.index("Screening, check by check") < page.index("dan declared")
    past = flat(text(visitor, f"{PAGE}/1"))
    assert "2 fused 1 rejected" in past


def test_a_round_draws_how_its_contributions_lie(visitor: TestClient) -> None:
    page = text(visitor, f"{PAGE}/1")
    pictures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    for title in ("Do they pull the same way?", "How long are they?", "What does each count?"):
        assert title in page
    drawn = [ElementTree.fromstring(picture) for picture in pictures]
    assert sum(root.attrib.get("role") == "img" for root in drawn) == 3
    for kind in ("json", "csv", "svg"):
        assert f'href="{API}/1/figures/norms.{kind}"' in page
    assert "ann and bob: " in page and "ann and the mean: 0." in page
    # In words, for who does not see them.
    table = page[page.index("The same in numbers") :]
    assert "bob" in table and "50.0 %" in table


@pytest.mark.parametrize("name", list(of_round.FIGURES))
def test_every_figure_is_had_as_json_and_csv(visitor: TestClient, name: str) -> None:
    found = figure(visitor, name)
    assert found["name"] == name and found["title"] and found["told"]
    columns = [column["name"] for column in found["columns"]]
    assert all(len(row) == len(columns) for row in found["rows"])
    table = visitor.get(f"{API}/1/figures/{name}.csv").text
    assert next(csv.reader(io.StringIO(table))) == columns
    drawn = visitor.get(f"{API}/1/figures/{name}.svg")
    assert drawn.status_code in (200, 404)
    if drawn.status_code == 200:
        ElementTree.fromstring(drawn.text)


def test_cosines_have_two_decimals_in_every_form(visitor: TestClient) -> None:
    found = figure(visitor, "cosines")
    cosines = [row[-1] for row in found["rows"]]
    assert len(cosines) == 1 + 2 and all(cosine == round(cosine, 2) for cosine in cosines)
    for number in re.findall(r"0\.\d+", visitor.get(f"{API}/1/figures/cosines.csv").text):
        assert len(number) <= 4
    assert [row[3] for row in found["rows"]] == ["bob", None, None]


def test_weights_tell_the_share_of_each_contributor(visitor: TestClient) -> None:
    rows = {row[1]: row for row in figure(visitor, "weights")["rows"]}
    assert (rows["ann"][2], rows["ann"][5]) == (0.5, 0.5)
    assert (rows["cyd"][2], rows["cyd"][5]) == (None, None)


def test_screening_tells_every_verdict_with_its_number(visitor: TestClient) -> None:
    rows = figure(visitor, "screening")["rows"]
    (refused,) = [row for row in rows if row[3] == "reject"]
    assert refused[1:3] == ["cyd", "finite"]
    page = flat(text(visitor, f"{PAGE}/1"))
    assert "× reject" in page and "1 refused it" in page
    measured = next(row for row in rows if row[4] is not None)
    assert f"{measured[2]} {measured[3]} {measured[4]:.4g}" in page


def test_names_lead_to_their_contributors(visitor: TestClient) -> None:
    assert 'href="/contributors/ann"' in text(visitor, f"{PAGE}/1")


def test_a_receipt_says_what_to_do_next_and_where_it_lay(
    repo: Repository, visitor: TestClient
) -> None:
    items = repo.get(f"/v1/models/{MODEL}/contributions?round=1")["items"]
    ids = {item["contributor"]: item["id"] for item in items}
    page = text(visitor, f"/contributions/{ids['ann']}")
    assert 'href="/contributors/ann"' in page
    plain = flat(page)
    assert "What you can do if it is yours: pull the newest base" in plain
    assert "Cosine among the round’s" in plain and "of 1 other" in plain
    refused = flat(text(visitor, f"/contributions/{ids['cyd']}"))
    assert "read the reason above, mend it" in refused and "among the round" not in refused


def test_what_moves_is_polled_and_the_figures_are_not(visitor: TestClient) -> None:
    assert "every 2s" in text(visitor, f"{PAGE}/2?part=contributions")
    assert "every 2s" not in text(visitor, f"{PAGE}/2?part=figures")
    assert "every 2s" not in text(visitor, f"{PAGE}/2?part=round")


def test_figures_of_a_private_model_need_its_rights(repo: Repository, visitor: TestClient) -> None:
    reader = repo.client(repo.token("rea", "reader"))
    for name in of_round.FIGURES:
        path = f"/v1/models/{PRIVATE}/rounds/1/figures/{name}.json"
        assert (visitor.get(path).status_code, reader.get(path).status_code) == (404, 200)
    assert text(visitor, f"/models/{PRIVATE}/rounds/1", 404)


@only_sqlite
def test_hostile_names_and_words_stay_words(tmp_path: Path) -> None:
    with repository(tmp_path / "data") as repo:
        repo.model(min_contributions=9)
        names = [HOSTILE, "\x1b[31m\u202eevil", "x" * 100, "bob"]
        ids = many.write(repo, names, weight=0.25, chosen=True, cosine=0.5, norm_ratio=1.0)
        change(repo, ids[0], findings=many.findings("quarantine"), reason=HOSTILE, hint=HOSTILE)
        visitor = repo.client()
        receipts = [f"/contributions/{one}" for one in ids]
        for path in (f"{PAGE}/1", *receipts):
            page = text(visitor, path)
            assert "<script>" not in page and "&lt;script&gt;" in page or path in receipts[1:]
            assert "\x1b" not in page and "\u202e" not in page
        for name in of_round.FIGURES:
            drawn = visitor.get(f"{API}/1/figures/{name}.svg")
            if drawn.status_code == 200:
                assert not ElementTree.fromstring(drawn.text).findall(".//script")


@only_sqlite
def test_a_gate_is_drawn_with_its_errors_and_its_line_search(tmp_path: Path) -> None:
    with repository(tmp_path / "data") as repo:
        repo.model()
        gated.gated(repo, line_search=[0.5, 1.0])
        candidates = gated.fused(repo)
        waiting = flat(text(repo.client(), f"{PAGE}/1"))
        assert "How far to go?" not in waiting or "not measured yet" in waiting
        gated.post(repo, "bases/v0", 70.0)
        for one, level in zip(candidates, (71.0, 72.5), strict=True):
            assert gated.post(repo, one["id"], level).status_code == 201
        repo.work()
        visitor = repo.client()
        page = flat(text(visitor, f"{PAGE}/1"))
        for fact in ("Is the candidate better than its base?", "eva passes all +2.50 ± 0.82 0.00",
                     "reviews +2.50 ± 1.15", "How far to go?", "0.5 71.00", "1 72.50"):  # fmt: skip
            assert fact in page, fact
        rows = figure(visitor, "gate")["rows"]
        assert [row[:2] for row in rows] == [
            ["eva", None],
            ["eva", "questions"],
            ["eva", "reviews"],
        ]
        assert rows[0][2] == 2.5 and rows[0][5] is True
        assert [row[1:] for row in figure(visitor, "candidates")["rows"]] == [
            [0.5, 71.0],
            [1.0, 72.5],
        ]
        assert visitor.get(f"{API}/1/figures/gate.svg").status_code == 200


@both_databases
def test_a_round_of_hundreds_takes_as_many_queries_as_one_of_few(
    tmp_path: Path, backend: Backend
) -> None:
    with backend.database() as url, repository(tmp_path / "data", url) as repo:
        repo.model(min_contributions=5000)
        visitor, seen = repo.client(), list[str]()
        event.listen(
            repo.ctx.database.engine,
            "before_cursor_execute",
            lambda _c, _cursor, statement, *_: seen.append(statement),
        )

        def queries(path: str) -> int:
            text(visitor, path)
            seen.clear()
            text(visitor, path)
            return len(seen)

        many.write(repo, [f"few-{place}" for place in range(3)])
        paths = (f"{PAGE}/1", f"/models/{MODEL}", "/contributors/few-1")
        few = [queries(path) for path in paths]
        many.write(repo, [f"c-{place}" for place in range(300)], seed=9)
        assert [queries(path) for path in paths] == few
        first = text(visitor, f"{PAGE}/1")
        assert first.count('class="contribution"') == 50 and "303 of 5,000 accepted" in first
        assert "Needs 4,697 more accepted contributions" in first
        (cursor,) = set(re.findall(r"\?contributions=(\d+)#", first))
        second = text(visitor, f"{PAGE}/1?contributions={cursor}")
        assert "c-249" in second and "c-250" not in second
        # The second page's figures are of the second page.
        assert f'href="{API}/1/figures/norms.json?cursor={cursor}"' in second
        told = figure(visitor, "norms", cursor=cursor)
        assert [row[1] for row in told["rows"]][0] == "c-249" and len(told["rows"]) == 50


@only_sqlite
def test_of_a_long_round_no_contribution_is_on_no_page(tmp_path: Path) -> None:
    with repository(tmp_path / "data") as long:
        long.model()
        ids = many.write(long, [f"c{place}" for place in range(120)])
        found: list[str] = []
        query = {"limit": "100"}
        while True:
            page = long.client().get(f"{API}/1/figures/weights.json", params=query).json()
            found += [row[0] for row in page["rows"]]
            if page["next_cursor"] is None:
                break
            query["cursor"] = page["next_cursor"]
        assert sorted(found) == sorted(ids)
