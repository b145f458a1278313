"""A model's page: which base is current, how it came there, how far it went, how to get it."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update

from coldfusion_server.dashboard import strips, telling, timeline
from coldfusion_server.dashboard.scores import series
from coldfusion_server.db.tables import BaseFileRow, BaseRow
from coldfusion_server.services import bases
from coldfusion_server.services.base_distances import measure_next
from coldfusion_server.services.courses import Course, PastBase, PastRound
from coldfusion_shared.rounds import RoundState
from coldfusion_shared.schemas.gates import GateVerdict
from coldfusion_shared.schemas.models import HeadMove
from tests.dashboard import trees
from tests.dashboard.courses import live_on, rejected, verdict
from tests.dashboard.history import HOSTILE
from tests.dashboard.measured import HOSTILE_NAMES, NOW, evaluation, go_to, grow, measure
from tests.dashboard.test_pages import Elements, flat, text
from tests.server.backends import Backend, only_sqlite
from tests.server.repository import MODEL, Repository, repository

PAGE, FIGURES = f"/models/{MODEL}", f"/v1/models/{MODEL}/figures"
PUBLISHED, CANCELLED, OPEN = RoundState.PUBLISHED, RoundState.CANCELLED, RoundState.OPEN
MINUS = "\N{MINUS SIGN}"


# The course, without a server.


def past_round(number: int = 1, state: RoundState = PUBLISHED, **changes: Any) -> PastRound:
    ended = NOW + timedelta(days=number)
    values: dict[str, Any] = {
        "number": number,
        "state": state,
        "base": number - 1,
        "result": number if state == PUBLISHED else None,
        "accepted": 2,
        "opened_at": ended - timedelta(days=1),
        "finished_at": None if state == OPEN else ended,
        "verdict": None,
        "max_relative_norm": None,
        "reason": None,
    }
    return PastRound(**{**values, **changes})


def past_base(number: int, *, on_line: bool = True) -> PastBase:
    return PastBase(number, number - 1 if number else None, on_line, None, None, NOW)


def rollback(days: float, before: int, after: int) -> HeadMove:
    at = NOW + timedelta(days=days)
    return HeadMove(
        kind="rollback", before=f"v{before}", after=f"v{after}", reason="worse", by="mia", at=at
    )


def test_rounds_and_moves_stand_in_their_order() -> None:
    bases = [past_base(0), past_base(1), past_base(2, on_line=False)]
    rounds = [past_round(1), past_round(2), past_round(3, CANCELLED), past_round(4, OPEN)]
    found = timeline.marks(Course(rounds, [rollback(2.5, 2, 1)], bases))
    assert [mark.kind for mark in found] == [
        "published", "abandoned", "rollback", "cancelled", "open",
    ]  # fmt: skip
    assert [mark.label for mark in found] == ["v1", "v2", "to v1", "", "now"]
    assert found[1].told.startswith(
        "Round 2 abandoned, v1 \N{RIGHTWARDS ARROW} v2, 2 contributions"
    )
    assert timeline.summary(found) == (
        "4 rounds: 1 published; 1 published, then left behind; 1 cancelled; 1 under way. "
        "Between them 1 rollback."
    )


def test_what_a_rollback_cancels_stands_behind_it() -> None:
    rounds = [past_round(1), past_round(2, CANCELLED)]
    found = timeline.marks(Course(rounds, [rollback(2, 1, 0)], [past_base(0)]))
    assert [mark.kind for mark in found][1:] == ["cancelled", "rollback"]


@pytest.mark.parametrize(
    ("gate", "limit", "told", "short"),
    [
        (rejected(verdict(2.0)), None, "missed by 1.50 points", f"{MINUS}1.50"),
        (rejected(relative_norm=0.3), 0.1, "its step was 3 times as long as allowed", "3×"),
        (
            rejected(verdict(0.1, passed=False, losses={"a": 0.0, "b": 4.0},
                             allowed_losses={"a": 1.0, "b": 1.0})),
            None, "missed by 3.00 points on b", f"{MINUS}3.00",
        ),
        # Of several, the one in the middle; those that let it pass say nothing.
        (
            rejected(verdict(1.0), verdict(2.0), verdict(9.0), verdict(0.0)),
            None, "missed by 1.50 points", f"{MINUS}1.50",
        ),
    ],
)  # fmt: skip
def test_a_rejected_candidate_tells_by_how_much_it_missed(
    gate: GateVerdict, limit: float | None, told: str, short: str
) -> None:
    found = timeline.missed(
        past_round(state=RoundState.REJECTED, verdict=gate, max_relative_norm=limit)
    )
    assert found is not None and (found.text, found.short) == (told, short)


@pytest.mark.parametrize(
    "gate",
    [None, rejected(), rejected(verdict(0.0, passed=False)), rejected(verdict(2.0), passed=True)],
)
def test_what_no_number_tells_is_told_in_words_alone(gate: GateVerdict | None) -> None:
    assert timeline.missed(past_round(verdict=gate)) is None


@given(st.integers(1, 700))
def test_marks_stand_apart_and_inside(count: int) -> None:
    found = strips.strip([datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=i)
                          for i in range(count)])  # fmt: skip
    places = [(place.x, place.y) for place in found.places]
    assert len(set(places)) == count and places == sorted(places, key=lambda at: (at[1], at[0]))
    for x, y in places:
        assert found.size <= x <= found.width - found.size
        assert found.size <= y <= found.height - found.size
    assert found.cell > 2 * found.size
    assert (found.under is not None) == (count <= strips.ROOMY)
    assert len(found.rows) == len({y for _, y in places})


@pytest.mark.parametrize(
    ("scores", "version", "told"),
    [
        ({}, "v0", "v0 is the current base: the pretrained model, before any round."),
        ({}, "v1", "v1 is the current base; whether it is better than v0 has not been measured."),
        (
            {"v0": 60.0, "v1": 66.0}, "v1",
            "v1 is the current base, and is better than v0: +6.00 ± 0.28 points on average "
            "(frozen, 1 data set).",
        ),
        (
            {"v0": 60.0, "v1": 54.0}, "v2",
            f"v2 is the current base, not measured yet; v1 is worse than v0: {MINUS}6.00 ± 0.28 "
            "points on average (frozen, 1 data set).",
        ),
        (
            {"v0": 60.0, "v1": 60.2}, "v1",
            "v1 is the current base, and is not measurably better or worse than v0: +0.20 ± 0.28 "
            "points on average (frozen, 1 data set).",
        ),
    ],
)  # fmt: skip
def test_one_sentence_says_how_the_model_stands(
    scores: dict[str, float], version: str, told: str
) -> None:
    found = series(
        evaluation(base, errors=0.2, seeds=[0, 1, 2], reviews=score)
        for base, score in scores.items()
    )
    assert telling.standing(version, found[0] if found else None) == told


# On the page.


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory, backend: Backend) -> Iterator[Repository]:
    folder = tmp_path_factory.mktemp("course")
    with backend.database() as url, repository(folder, url) as opened:
        opened.model()
        on = verdict(0.2, passed=False, losses={HOSTILE: 3.0}, allowed_losses={HOSTILE: 1.0})
        live_on(
            opened,
            [PUBLISHED, PUBLISHED, rejected(verdict(2.0)), rejected(on, reason=HOSTILE_NAMES[7])],
        )
        go_to(opened, "v1", HOSTILE)
        live_on(opened, [PUBLISHED, CANCELLED], reason=HOSTILE_NAMES[2])
        for version, score in (("v0", 60.0), ("v1", 62.0), ("v3", 66.0)):
            measure(opened, version, {"poems": score, HOSTILE: score + 1}, errors=0.2)
        yield opened


@pytest.fixture(scope="module")
def visitor(repo: Repository) -> TestClient:
    return repo.client()


def drawing(page: str, kind: str) -> ElementTree.Element:
    """Return one of the drawings of a page, which has to be well-formed XML, too."""
    (found,) = re.findall(rf'<svg class="[^"]*\b{kind}\b.*?</svg>', page, re.DOTALL)
    return ElementTree.fromstring(found)


def test_the_page_begins_with_how_the_model_stands(visitor: TestClient) -> None:
    page = flat(text(visitor, PAGE))
    assert "v3 is the current base, and is better than v0: +6.00 ± 0.20 points on average" in page


def test_the_course_shows_every_round_and_leads_to_it(visitor: TestClient) -> None:
    page = text(visitor, f"{PAGE}?part=course")
    links = [link.get("href") for link in drawing(page, "course").iter("a")]
    assert links == [
        *(f"{PAGE}/rounds/{number}" for number in (1, 2, 3, 4)),
        f"{PAGE}/bases/v1",
        *(f"{PAGE}/rounds/{number}" for number in (5, 6, 7)),
    ]
    assert all(visitor.get(link).status_code == 200 for link in links if link)
    words = flat(page)
    assert "7 rounds: 2 published; 1 published, then left behind; 2 rejected by the gate" in words
    assert "Rollback from v2 to v1" in words and "missed by 1.50 points" in words


def test_every_mark_tells_what_it_is(visitor: TestClient) -> None:
    found = drawing(text(visitor, f"{PAGE}?part=course"), "course")
    titles = [link.findtext("title") for link in found.iter("a")]
    assert all(link.get("aria-label") == link.findtext("title") for link in found.iter("a"))
    assert titles[2] is not None and "rejected" in titles[2] and "1.50 points" in titles[2]
    assert found.findtext("title", "").startswith("7 rounds")


def test_hostile_words_of_rounds_stay_words(visitor: TestClient) -> None:
    page = text(visitor, PAGE)
    assert HOSTILE not in page and "missed by 2.00 points on <script>" in html.unescape(page)
    assert "\u202e" not in page.partition('id="part-course"')[2].partition("</section>")[0]
    elements = Elements()
    elements.feed(page)
    assert not elements.bad


def test_under_each_chart_its_figures_can_be_had(visitor: TestClient) -> None:
    page = text(visitor, PAGE)
    for name in ("scores", "gains", "course"):
        for kind in ("json", "csv", "svg"):
            address = f"{FIGURES}/{name}.{kind}"
            assert f'href="{address}"' in page and visitor.get(address).status_code == 200
    assert 'CSV<span class="unseen"> of the figure course</span>' in page


def test_a_data_set_is_drawn_on_demand(visitor: TestClient) -> None:
    page = text(visitor, PAGE)
    assert '<details id="datasets-' in page and " open>" not in page.partition("datasets-")[2][:40]
    (link,) = {html.unescape(found) for found in re.findall(r'href="([^"]+dataset=poems[^"]*)"',
                                                             page)}  # fmt: skip
    chosen = text(visitor, link)
    assert "poems , base by base" in flat(chosen)
    assert "poems: accuracy over the bases, frozen. v0 60.00 ± 0.20, v1" in chosen
    # What fetches itself again goes on showing it.
    assert "dataset=poems" in re.findall(r'hx-get="([^"]+part=scores[^"]*)"', chosen)[0]
    nothing = text(visitor, f"{PAGE}?dataset=%3Cscript%3E")
    assert ", base by base</h4>" not in nothing and "<script>" not in nothing.partition("<main")[2]


def test_the_pages_parts_are_alone_what_they_are_together(visitor: TestClient) -> None:
    part = text(visitor, f"{PAGE}?part=course").strip()
    assert part.startswith('<section id="part-course"') and part in text(visitor, PAGE)


def test_a_new_model_says_what_is_not_there_yet(tmp_path: Path) -> None:
    with repository(tmp_path) as opened:
        opened.model()
        page = text(opened.client(), PAGE)
        assert "v0 is the current base: the pretrained model, before any round." in flat(page)
        assert "1 round: 1 under way." in flat(page)
        # Nothing is drawn of one base, and nothing is offered that is not there.
        assert "The current base is v0 itself." in flat(page)
        assert f"{FIGURES}/distances.svg" not in page
        assert opened.client().get(f"{FIGURES}/distances.svg").status_code == 404


@only_sqlite
def test_distances_are_drawn_as_they_become_known(tmp_path: Path) -> None:
    with repository(tmp_path) as opened:
        opened.model()
        grow(opened, 3)
        client = opened.client()
        assert "Not measured yet: v3, v2, v1." in flat(text(client, f"{PAGE}?part=course"))
        assert "Distance from v0 not measured yet" in flat(text(client, f"{PAGE}/bases/v3"))
        assert measure_next(opened.ctx, "worker") and measure_next(opened.ctx, "worker")
        with opened.ctx.database.write() as session:
            for number, distance in ((3, 0.0123), (2, 0.0345)):
                session.execute(
                    update(BaseRow).where(BaseRow.number == number).values(distance=distance)
                )
        page = text(client, f"{PAGE}?part=course")
        words = flat(page)
        assert "v3 is 1.23 % of v0&#39;s norm away" in words
        assert "Farthest was v2, at 3.45 %." in words and "Not measured yet: v1." in words
        titles = [title.text for title in drawing(page, "chart").iter("title")]
        assert "v3: 1.23 %" in titles and "v0: 0 %" in titles
        assert "Distance from v0 1.23 % of its norm" in flat(text(client, f"{PAGE}/bases/v3"))
        events = {event["type"] for event in opened.get("/v1/events?limit=500")}
        assert "base.measured" in events


@only_sqlite
def test_three_hundred_rounds_stay_readable(tmp_path: Path) -> None:
    with repository(tmp_path) as opened:
        opened.model()
        ends: list[RoundState | GateVerdict] = [PUBLISHED, PUBLISHED, rejected(verdict(1.0))]
        live_on(opened, ends * 100)
        page = text(opened.client(), f"{PAGE}?part=course")
        found = drawing(page, "course")
        # The open one is one of them; the oldest is left out, and that is said.
        assert len(list(found.iter("a"))) == 300 and "Older rounds are below." in flat(page)
        assert len(list(found.iter("text"))) < 40
        assert len(page) < 300_000
        turned = flat(page).partition("Where it turned back")[2]
        assert turned.count("missed by 0.50 points") == 8
        assert "The newest 8 of 100" in flat(page)


# How to get it.


@pytest.mark.parametrize("public", [True, False])
def test_how_to_get_it_is_right_for_who_may(tmp_path: Path, public: bool) -> None:
    with repository(tmp_path) as opened:
        opened.model(public=public)
        client = opened.client(opened.token("rea", "reader"))
        page = html.unescape(text(client, PAGE))
        url = "http://testserver"
        pull = f"coldfusion-client pull {MODEL} --out tiny"
        if public:
            assert f"{pull} --server {url}" in page and "Authorization" not in page
        else:
            assert f"coldfusion-client login {url}\n{pull}\n" in page.replace("</pre>", "\n")
            assert '-H "Authorization: Bearer $COLDFUSION_TOKEN"' in page
        file = f"/v1/models/{MODEL}/bases/latest/files/model.safetensors"
        assert url + file in page and client.get(file).status_code == 200
        token = "" if public else "export HF_TOKEN=$COLDFUSION_TOKEN\n"
        assert f"export HF_ENDPOINT={url}\n{token}hf download {MODEL} --revision v0" in page
        assert page.count("data-copy=") == 5


def test_weights_in_several_files_are_named_as_they_are(tmp_path: Path) -> None:
    with repository(tmp_path) as opened:
        opened.model()
        with opened.ctx.database.write() as session:
            row = session.query(BaseRow).one()
            row.manifest = row.manifest.replace("model.safetensors", "model-1.safetensors")
            session.execute(
                update(BaseFileRow)
                .where(BaseFileRow.path == "model.safetensors")
                .values(path="model-1.safetensors")
            )
        assert "files/model-1.safetensors" in text(opened.client(), PAGE)


@only_sqlite
def test_a_list_of_bases_reads_no_whole_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with repository(tmp_path / "data") as repo:
        repo.model()
        trees.crowd(repo, 9)
        # With those of a thousand contributions each, to check all of it takes seconds.
        monkeypatch.setattr(bases, "manifest_of", lambda row: pytest.fail("it is read whole"))
        listed = flat(text(repo.client(), f"{PAGE}?part=history"))
        assert "someone-7" in listed and "and 1 more" in listed and "pretrained" in listed
