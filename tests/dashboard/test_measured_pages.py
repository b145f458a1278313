"""What the pages and the live card show of evaluations, hostile and numerous ones among them."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from fastapi.testclient import TestClient

from coldfusion_server.dashboard.rendering import EVENTS
from coldfusion_server.evaluator import evaluate_once, prepare
from coldfusion_server.services import evaluation_tries, leases
from coldfusion_server.services.evaluation_tries import MAX_TRIES, Subject
from coldfusion_server.services.lookup import find_base, find_model
from coldfusion_shared.errors import EvaluationFailed
from coldfusion_shared.schemas.evaluations import EvaluationReport
from tests.dashboard.history import PRIVATE
from tests.dashboard.measured import HOSTILE_NAMES, go_to, grow, kinds_suite, measure, register
from tests.dashboard.test_pages import Elements, flat, text
from tests.server.backends import Backend
from tests.server.measured import dataset, report, suite
from tests.server.repository import MODEL, Repository, repository

PAGE, API = f"/models/{MODEL}", f"/v1/models/{MODEL}/bases"
SUITE = kinds_suite(["poems", "reviews"], ["letters"])
MINUS = "\N{MINUS SIGN}"
SVG = "{http://www.w3.org/2000/svg}"


def gains(poems: float, reviews: float, letters: float) -> dict[str, float]:
    return {"poems": 60 + poems, "reviews": 70 + reviews, "letters": 50 + letters}


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory, backend: Backend) -> Iterator[Repository]:
    folder = tmp_path_factory.mktemp("measured")
    with backend.database() as url, repository(folder, url) as opened:
        opened.model()
        opened.model(PRIVATE, public=False)
        grow(opened, 3)
        register(opened, SUITE)
        for version, scores in [("v0", gains(0, 0, 0)), ("v2", gains(2, 2, -1)),
                                ("v3", gains(9, 6, -3))]:  # fmt: skip
            measure(opened, version, scores, SUITE)
        opened.clock.advance(hours=1)
        measure(opened, "v3", gains(9.5, 6, -3), SUITE, "ed", software="another program 2")
        measure(opened, "v3", gains(9.2, 6, 30), SUITE, "mallory")
        measure(opened, "v0", {"a": 60.0}, errors=None, seeds=[])
        measure(opened, "v3", {"a": 61.0}, errors=None, seeds=[])
        yield opened


@pytest.fixture(scope="module")
def visitor(repo: Repository) -> TestClient:
    return repo.client()


def picture(client: TestClient, path: str) -> ElementTree.Element:
    """Return a picture that has to be well-formed, and to have nothing that runs or loads."""
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/svg+xml"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    root = ElementTree.fromstring(answer.text)
    for element in root.iter():
        assert element.tag.removeprefix(SVG) in {"svg", "title", "g", "line", "text", "tspan",
                                                 "rect", "path"}  # fmt: skip
        assert not [name for name in element.attrib if name.startswith("on") or "href" in name]
    return root


def words_of(root: ElementTree.Element) -> list[str]:
    return ["".join(item.itertext()).strip() for item in root.iter(f"{SVG}text")]


def test_a_model_says_whether_it_is_better_and_how_sure_that_is(visitor: TestClient) -> None:
    page = flat(text(visitor, f"{PAGE}?part=current"))
    assert "Yes, +4.07 points" in page and "60.00 → 64.07" in page
    assert "One standard error of that difference is 0.82 points." in page
    assert "The band is one standard error to each side" in page


def test_seen_and_unseen_stand_apart(visitor: TestClient) -> None:
    page = text(visitor, f"{PAGE}?part=scores")
    for legend in ("seen 2 data sets, v3 at 72.60 ± 0.71", "unseen 1 data set, v3 at 47.00 ± 1.00"):
        assert legend in flat(page)
    assert page.count('class="line"') == 2 + 1
    assert "v3 64.07 ± 0.58 72.60 ± 0.71 47.00 ± 1.00 +4.07 ± 0.82" in flat(page)


def test_what_is_not_pinned_has_a_line_of_its_own_and_says_so(visitor: TestClient) -> None:
    page = flat(text(visitor, f"{PAGE}?part=scores"))
    assert f"data pinned {SUITE.digest()[:8]}" in page and "hand-made" in page
    assert "data not pinned" in page and "No standard errors were given" in page


def test_each_data_set_is_there_on_demand(visitor: TestClient) -> None:
    page = text(visitor, f"{PAGE}?part=scores")
    (opened, closed) = re.findall(r'<details id="datasets-[0-9a-f]{12}">.*?</details>', page, re.S)
    assert "3 data sets, base by base" in flat(opened) and "1 data set, base" in flat(closed)
    assert f"letters unseen 50.00 ± 1.00 49.00 ± 1.00 47.00 ± 1.00 {MINUS}3.00 ± 1.41" in flat(
        opened
    )


def test_points_and_bars_tell_their_values(visitor: TestClient) -> None:
    page = text(visitor, PAGE)
    titles = re.findall(r"<title>([^<]*)</title>", page)
    assert "v3: 64.07 ± 0.58" in titles and "v3: 72.60 ± 0.71, seen" in titles
    assert f"letters: {MINUS}3.00 ± 1.41 points, unseen" in titles
    assert "v3 is better than v0 on 2 of 3 data sets" in flat(page)
    labels = re.findall(r'<svg class="chart[^"]*"[^>]*aria-label="([^"]+)"', page)
    assert len(labels) == 5 and all("v0" in label for label in labels)
    # The figure's own links lead to the picture; a second one would say the same.
    assert "gain.svg" not in page


def test_a_base_says_who_measured_it(visitor: TestClient) -> None:
    page = flat(text(visitor, f"{PAGE}/bases/v3"))
    assert f"eve agrees 64.00 ± 0.58 {MINUS}0.17 points from the median" in page
    assert "2026-06-01 12:00 UTC · coldfusion tests · 3 seeds (0, 1, 2)" in page
    assert "ed agrees 64.17 ± 0.58 At the median. 2026-06-01 13:00 UTC · another program 2" in page
    assert "mallory differs 75.07" in page and "; on letters +33.00." in page
    assert f"pinned by the digest of all its data: {SUITE.digest()}" in page
    assert "3 data sets with 1,500 examples" in page
    assert "not pinned: no digest says" in page


def test_several_evaluators_stand_side_by_side(visitor: TestClient) -> None:
    page = text(visitor, f"{PAGE}/bases/v3")
    assert page.count("Side by side") == 1 and page.count('class="number strange"') == 1
    assert "letters 47.00 ± 1.00 47.00 ± 1.00 80.00 ± 1.00 differs 47.00 ± 1.00" in flat(page)
    assert "Side by side" not in text(visitor, f"{PAGE}/bases/v2")


def test_a_base_stands_beside_v0_and_its_parent(visitor: TestClient) -> None:
    page = flat(text(visitor, f"{PAGE}/bases/v3"))
    assert "Data set v0 v2 v3 since v0 since v2" in page
    assert f"letters unseen 50.00 ± 1.00 49.00 ± 1.00 47.00 ± 1.00 {MINUS}3.00 ± 1.41" in page
    assert "Data set v0 v2 since v0" in flat(text(visitor, f"{PAGE}/bases/v2"))
    first = text(visitor, f"{PAGE}/bases/v0")
    assert "since v0" not in first and "gain.svg" not in first
    assert "Not measured yet." in flat(text(visitor, f"{PAGE}/bases/v1"))


def test_the_page_listens_to_what_evaluators_do(repo: Repository) -> None:
    events = repo.get("/v1/events?limit=500", repo.token("rea", "reader"))
    happened = {event["type"] for event in events}
    assert {"suite.registered", "evaluation.posted"} <= happened <= set(EVENTS)


def test_after_a_rollback_only_what_the_head_comes_from_counts(tmp_path: Path) -> None:
    with repository(tmp_path) as opened:
        opened.model()
        grow(opened, 2)
        for version, score in [("v0", 80.0), ("v1", 85.0), ("v2", 50.0)]:
            measure(opened, version, {"poems": score})
        go_to(opened, "v1", "v2 forgot the poems")
        grow(opened, 1)
        client = opened.client()
        current, overview = (flat(text(client, path)) for path in (f"{PAGE}?part=current", "/"))
    assert "Yes, +5.00 points" in current and "50.00" not in current
    assert "Measured up to v1; v3 is still to be measured." in current
    assert "+5.00 ± 1.41 points since v0, measured up to v1" in overview


# The live card.


def test_the_card_tells_what_was_measured_since(visitor: TestClient) -> None:
    answer = visitor.get(f"{API}/v3/card")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/markdown; charset=utf-8"
    card = answer.text
    assert card.startswith("---\nlibrary_name") and "## Limits" in card
    assert "| data set | v0 | v2 | v3 | since v0 | since v2 |" in card
    assert "| **Average** | 60.00 ± 0.58 | 61.00 ± 0.58 | 64.07 ± 0.58 | +4.07 ± 0.82 |" in card
    assert f"| letters (unseen) | 50.00 ± 1.00 | 49.00 ± 1.00 | 47.00 ± 1.00 | {MINUS}3.00" in card
    assert f"pinned by the digest `{SUITE.digest()}`" in card
    assert "Measured by eve (2026-06-01, coldfusion tests, 3 seeds); ed (" in card
    assert "not pinned: no digest says" in card
    for link in re.findall(r"!\[[^\]]*\]\((http://testserver)(/[^)]+)\)", card):
        picture(visitor, link[1])
    assert card.count("gain.svg?series=") == 2


def test_a_card_is_there_before_anything_was_measured(visitor: TestClient) -> None:
    assert "Nobody has measured this base yet." in visitor.get(f"{API}/v1/card").text
    assert "against" not in visitor.get(f"{API}/v0/card").text.partition("## Scores")[2]
    latest = visitor.get(f"{API}/latest/card").text
    assert latest == visitor.get(f"{API}/v3/card").text


def test_the_stored_card_never_changes(repo: Repository) -> None:
    stored = repo.client().get(f"{API}/v0/files/README.md").text
    assert "## Scores" not in stored
    assert repo.client().get(f"{API}/v0/card").text.startswith(stored.rstrip())


def test_a_stored_card_says_where_the_live_one_is(tmp_path: Path) -> None:
    live = f"<https://fuse.example/v1/models/{MODEL}/bases/v0/card>"
    with repository(tmp_path / "public", public_url="https://fuse.example/") as opened:
        opened.model()
        assert live in opened.client().get(f"{API}/v0/files/README.md").text
    with repository(tmp_path / "local") as opened:
        opened.model()
        assert "/card" not in opened.client().get(f"{API}/v0/files/README.md").text


def test_the_gain_chart_stands_alone(visitor: TestClient) -> None:
    root = picture(visitor, f"{API}/v3/card/gain.svg")
    words = words_of(root)
    assert words[0] == "demo/tiny: v3 against v0, in points"
    assert words[1] == "frozen · text · accuracy"
    values = {name: value for name, value in zip(words, words[1:], strict=False) if "±" in value}
    assert values["Average"] == "+4.07 ± 0.82" and values["poems seen"] == "+9.20 ± 1.41"
    # Nothing but attributes gives it its colours: a style sheet would not be applied.
    assert all("class" not in rect.attrib or rect.get("fill") for rect in root.iter(f"{SVG}rect"))


def test_a_base_without_a_gain_has_a_picture_that_says_so(visitor: TestClient) -> None:
    for version, words in [("v0", "The base that others"), ("v1", "Not compared with v0")]:
        assert words in " ".join(words_of(picture(visitor, f"{API}/{version}/card/gain.svg")))
    assert visitor.get(f"{API}/v3/card/gain.svg?series=<x>").status_code == 422


def test_a_series_that_is_not_there_is_not_found(visitor: TestClient) -> None:
    unknown = visitor.get(f"{API}/v3/card/gain.svg?series={'0' * 12}")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
    assert "0" * 12 in unknown.json()["detail"] and unknown.json()["hint"]
    # One that is there, of a base that was not measured.
    (key, *_) = re.findall(r"series=([0-9a-f]{12})", visitor.get(f"{API}/v3/card").text)
    assert visitor.get(f"{API}/v3/card/gain.svg?series={key}").status_code == 200
    assert visitor.get(f"{API}/v1/card/gain.svg?series={key}").status_code == 404
    # There is nothing before v0, and still it was measured.
    assert "The base that others" in " ".join(
        words_of(picture(visitor, f"{API}/v0/card/gain.svg?series={key}"))
    )


def test_a_private_models_card_is_for_who_may_read_it(
    repo: Repository, visitor: TestClient
) -> None:
    reader = repo.client(repo.token("rea", "reader"))
    for path in (
        f"/v1/models/{PRIVATE}/bases/v0/card",
        f"/v1/models/{PRIVATE}/bases/v0/card/gain.svg",
    ):
        assert visitor.get(path).status_code == 404
        answer = reader.get(path)
        assert answer.status_code == 200 and "private" in answer.headers["cache-control"]


# Hostile and numerous.


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    datasets = [dataset(name, seen=number % 2 == 0) for number, name in enumerate(HOSTILE_NAMES)]
    of = suite("hostile", datasets)
    with repository(tmp_path_factory.mktemp("hostile")) as opened:
        opened.model()
        grow(opened, 1)
        register(opened, of)
        measure(opened, "v0", dict.fromkeys(HOSTILE_NAMES, 60.0), of)
        measure(opened, "v1", dict.fromkeys(HOSTILE_NAMES, 61.0), of, software=HOSTILE_NAMES[0])
        measure(opened, "v1", dict.fromkeys(HOSTILE_NAMES, 99.0), of, "ed")
        words: dict[str, Any] = {"suite": HOSTILE_NAMES[0], "metric": HOSTILE_NAMES[2]}
        for version in ("v0", "v1"):
            measure(opened, version, dict.fromkeys(HOSTILE_NAMES, 50.0), **words)
        yield opened.client()


@pytest.mark.parametrize("path", [PAGE, "/", f"{PAGE}/bases/v1", f"{PAGE}?part=scores"])
def test_hostile_data_sets_stay_words_on_pages(hostile: TestClient, path: str) -> None:
    page = text(hostile, path)
    elements = Elements()
    elements.feed(page)
    assert not elements.bad and elements.tags.count("script") in (0, 4)
    assert "49" not in re.findall(r"\{\{ (\S+) \}\}", page)


def test_hostile_data_sets_stay_words_in_pictures(hostile: TestClient) -> None:
    card = hostile.get(f"{API}/v1/card").text
    addresses = re.findall(r"/v1/\S+/gain\.svg\?series=[0-9a-f]+", card)
    assert len(addresses) == 2
    for address in addresses:
        words = words_of(picture(hostile, address))
        assert any(word.startswith('<script>alert("1")</script>') for word in words)
        assert max(map(len, words)) <= 64


def test_hostile_data_sets_stay_words_in_cards(hostile: TestClient) -> None:
    scores = hostile.get(f"{API}/v1/card").text.partition("## Scores")[2]
    assert "<" not in scores.replace("\\<", "")
    for line in scores.splitlines():
        if line.startswith("| "):
            assert len(re.findall(r"(?<!\\)\|", line)) == 5
    assert re.findall(r"(?<!\\)\]\(([^)]*)\)", scores) == re.findall(
        r"http://testserver/v1/models/demo/tiny/bases/v1/card/gain\.svg\?series=[0-9a-f]{12}",
        scores,
    )


def test_a_hundred_bases_and_thirty_data_sets_are_drawn(tmp_path: Path) -> None:
    names = [f"data set number {number}" for number in range(30)]
    of = kinds_suite(names[:20], names[20:])
    with repository(tmp_path) as opened:
        opened.model()
        grow(opened, 99)
        register(opened, of)
        for number in range(100):
            scores = {name: 50 + number / 10 + place for place, name in enumerate(names)}
            measure(opened, f"v{number}", scores, of)
        page = text(opened.client(), PAGE)
        picture(opened.client(), f"{API}/v99/card/gain.svg")
    assert page.count('<g class="point">') == 100 + 2 * 100
    assert page.count('<g class="gain') == 3 + 30
    (table,) = re.findall(r'<table class="scores">.*?</table>', page, re.S)
    assert re.findall(r">(v\d+)<", table) == ["v0", *(f"v{number}" for number in range(89, 100))]
    assert "v0 and the newest of 100 measured bases" in flat(page)
    assert len(page) < 400_000


def test_a_single_base_without_errors_is_enough(tmp_path: Path) -> None:
    with repository(tmp_path) as opened:
        opened.model()
        measure(opened, "v0", {"reviews": 61.5}, errors=None, seeds=[])
        page = flat(text(opened.client(), PAGE))
        card = opened.client().get(f"{API}/v0/card").text
    assert "61.50" in page and "There is nothing to compare it with yet." in page
    assert "±" not in page and "gain" not in card and "| reviews | 61.50 |" in card


@pytest.mark.parametrize(
    ("score", "seeds", "words"),
    [
        (61.0, [0, 1], "Not measurably, +1.00 points"),
        (61.0, [0, 1], "is 1.41 points; up to 2.8 of them may well be chance."),
        (63.0, [0, 1], "Not measurably, +3.00 points"),
        (90.0, [0], "Not known, +30.00 points"),
        (90.0, [0], "It was measured with one seed: whether this is chance nobody can tell."),
        (53.0, [0, 1], f"No, {MINUS}7.00 points"),
        (60.0, [0, 1], "The same, ±0.00 points"),
    ],
)
def test_the_answer_is_no_bolder_than_the_noise_allows(
    score: float, seeds: list[int], words: str, tmp_path: Path
) -> None:
    with repository(tmp_path) as opened:
        opened.model()
        grow(opened, 1)
        measure(opened, "v0", {"reviews": 60.0}, seeds=seeds)
        measure(opened, "v1", {"reviews": score}, seeds=seeds)
        assert words in flat(text(opened.client(), f"{PAGE}?part=current"))


@pytest.mark.parametrize(
    ("errors", "seeds", "words"),
    [
        (None, [0, 1, 2], "No standard errors were given"),
        (1.0, [], "How many seeds the standard errors are of was not said"),
    ],
)
def test_what_has_no_known_error_is_no_answer(
    errors: float | None, seeds: list[int], words: str, tmp_path: Path
) -> None:
    with repository(tmp_path) as opened:
        opened.model()
        grow(opened, 1)
        for version, score in (("v0", 60.0), ("v1", 90.0)):
            measure(opened, version, {"reviews": score}, errors=errors, seeds=seeds)
        page = text(opened.client(), f"{PAGE}?part=current")
        others = [text(opened.client(), path) for path in (f"{PAGE}?part=scores", "/")]
    assert "Not known, +30.00 points" in flat(page) and words in flat(page)
    # Nor is it coloured as one, where there is no room for words.
    for other in others:
        assert "+30.00" in other and "change good" not in other


# What the Repository's own evaluator could not measure.

REASON = "The score is no number. <b>Sorry</b>"


def fail(repo: Repository, version: str, tries: int = MAX_TRIES) -> None:
    """Let the Repository's own evaluator fail with a base, for good after `MAX_TRIES`."""

    def broken(
        folder: Path, moved: Callable[[], None], base: Path | None = None
    ) -> EvaluationReport:
        raise EvaluationFailed(REASON)

    task = prepare(repo.ctx, SUITE, "frozen", 3, lambda kept: broken)
    with repo.ctx.database.read() as session:
        base = Subject(base=find_base(session, find_model(session, MODEL, None), version).id)
    for _ in range(tries):
        with leases.held(repo.ctx, task.what.key(base), "a") as lease:
            assert lease is not None
            done = evaluation_tries.begin(repo.ctx, task.what, base, lease)
            assert done is not None
            evaluation_tries.fail(repo.ctx, task.what, base, lease, done, REASON)
        repo.clock.advance(hours=1)


def test_where_measuring_failed_the_pages_say_so_and_why(tmp_path: Path) -> None:
    said = "The Repository's own evaluator could not measure v0 (frozen, text ):"
    with repository(tmp_path) as opened:
        opened.model()
        fail(opened, "v0")
        client = opened.client()
        pages = [text(client, path) for path in (PAGE, f"{PAGE}/bases/v0", "/")]
        card = client.get(f"{API}/v0/card").text
        assert "evaluation.failed" in {event["type"] for event in opened.get("/v1/events")}
    for page in pages[:2]:
        plain = html.unescape(flat(page))
        assert said in plain and REASON in plain
        assert "ot measured yet" not in plain and "<b>Sorry" not in page
    assert "could not be measured" in pages[2] and "not measured yet" not in pages[2]
    assert (
        "evaluator could not measure v0 (frozen, text): The score is no number. &lt;b&gt;" in card
    )
    assert "Nobody has measured" not in card
    assert "evaluation.failed" in EVENTS


def test_a_failure_stands_beside_what_was_measured_before_until_it_is_over(tmp_path: Path) -> None:
    with repository(tmp_path) as opened:
        opened.model()
        grow(opened, 2)
        register(opened, SUITE)
        for version in ("v0", "v1"):
            measure(opened, version, gains(0, 0, 0), SUITE)
        client = opened.client()
        assert "v2 is still to be measured" in flat(text(client, PAGE))
        fail(opened, "v2", 1)
        page = flat(text(client, PAGE))
        assert "has failed to measure v2 and tries again" in page
        assert "Measured up to v1." in page and "still to be measured" not in page
        assert "tries again" not in flat(text(client, f"{PAGE}/bases/v1"))
        task = prepare(opened.ctx, SUITE, "frozen", 3, lambda kept: measured_at_last)
        while evaluate_once(opened.ctx, task, "a"):
            pass
        assert "tries again" not in flat(text(client, PAGE))


def measured_at_last(
    folder: Path, moved: Callable[[], None], base: Path | None = None
) -> EvaluationReport:
    """Measure it after all."""
    return report(SUITE)
