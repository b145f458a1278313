"""Figures as data and as pictures: exact, harmless wherever they are opened, for who may read."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any
from xml.etree import ElementTree

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from coldfusion_server.dashboard.figures import formats, of_model, of_round
from coldfusion_server.dashboard.figures.figure import Cell, Column, Figure
from coldfusion_server.dashboard.formats import without_controls
from coldfusion_shared.errors import NotFound
from coldfusion_shared.rounds import RoundState
from coldfusion_shared.schemas.figures import FigureTable
from tests.dashboard.courses import live_on, rejected, verdict
from tests.dashboard.history import PRIVATE, contribute
from tests.dashboard.measured import HOSTILE_NAMES, kinds_suite, measure, register
from tests.server.backends import Backend
from tests.server.repository import MODEL, Repository, body_of, repository, tiny_tensors
from tests.shared.checkpoints import file_bytes

FIGURES = f"/v1/models/{MODEL}/figures"
SVG = "{http://www.w3.org/2000/svg}"
SIMPLE = '<svg viewBox="0 0 100 50" role="group"><title>it</title><path d="M0 0"/></svg>'
TEXTS = st.text(st.characters(codec="utf-8"), max_size=30)
CELLS: st.SearchStrategy[Cell] = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**18), 10**18), st.floats(), TEXTS,
    st.sampled_from(["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "'=1"]),
    st.sampled_from(["\N{FULLWIDTH EQUALS SIGN}1", *HOSTILE_NAMES]),
)  # fmt: skip


def figure(rows: Sequence[Sequence[Cell]] = (), svg: str = SIMPLE, **changes: Any) -> Figure:
    count = len(rows[0]) if rows else 2
    values: dict[str, Any] = {
        "name": "made-up",
        "title": "Made up",
        "told": "What was made up.",
        "columns": [Column(f"c{i}", "something") for i in range(count)],
    }
    return Figure(**{**values, **changes}, rows=rows, svg=svg)


def as_rows(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


# As CSV.


def shown(cell: Cell) -> str:
    """Return what a reader of CSV gets of a cell, without the mark before a formula."""
    if cell is None:
        return ""
    if isinstance(cell, str):
        return without_controls(cell)
    return repr(cell).lower() if isinstance(cell, bool) else repr(cell)


@given(st.integers(1, 5).flatmap(lambda n: st.lists(st.lists(CELLS, min_size=n, max_size=n))))
def test_csv_has_every_cell_and_no_formula(rows: list[list[Cell]]) -> None:
    made = figure(rows)
    header, *read = as_rows(formats.as_csv(made))
    assert header == [column.name for column in made.columns]
    assert len(read) == len(rows)
    for cells, got in zip(rows, read, strict=True):
        for cell, text in zip(cells, got, strict=True):
            assert text.replace("'", "") == shown(cell).replace("'", "")
            if isinstance(cell, str):
                assert not text.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
                if ";" not in text:
                    assert text in (shown(cell), f"'{shown(cell)}")
                    assert (text == f"'{shown(cell)}") == shown(cell).startswith(formats.FORMULA)


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("reviews;=1+1", "reviews;'=1+1"),
        ("a; \t@x;-1", "a;' \t@x;'-1"),
        ("a;b; c", "a;b; c"),
        ("=a;b", "'=a;b"),
    ],
)
def test_behind_a_semicolon_there_is_no_formula_either(cell: str, told: str) -> None:
    # Spreadsheets of those who write 1,5 part cells there.
    assert as_rows(formats.as_csv(figure([[cell]])))[1] == [told]


@pytest.mark.parametrize("number", [0.1, 1 / 3, -2.5e-300, 10**18, -7, 66.10000000000001])
def test_numbers_are_exact_in_csv(number: float) -> None:
    _, (text,) = as_rows(formats.as_csv(figure([[number]])))
    assert float(text) == number and not text.startswith("'")


def test_csv_ends_its_lines_as_its_standard_says() -> None:
    assert formats.as_csv(figure([["a,b", 'c"d']])) == 'c0,c1\r\n"a,b","c""d"\r\n'


# As JSON.


@given(st.lists(st.lists(CELLS, min_size=3, max_size=3)))
def test_json_has_every_cell_that_it_can_hold(rows: list[list[Cell]]) -> None:
    table = formats.as_table(figure(rows))
    read = FigureTable.model_validate(json.loads(json.dumps(table.model_dump(mode="json"),
                                                            allow_nan=False)))  # fmt: skip
    for cells, got in zip(rows, read.rows, strict=True):
        for cell, found in zip(cells, got, strict=True):
            infinite = isinstance(cell, float) and not math.isfinite(cell)
            assert found == (None if infinite else cell)


# As SVG.


@given(st.one_of(TEXTS, st.sampled_from(HOSTILE_NAMES)))
def test_a_title_of_any_letters_is_well_formed(title: str) -> None:
    root = ElementTree.fromstring(formats.as_svg(figure(title=title)))
    assert root.tag == f"{SVG}svg" and {item.tag for item in root} <= {
        f"{SVG}{name}" for name in ("title", "rect", "text", "path")
    }


def test_a_drawing_stands_alone() -> None:
    drawn = (
        '<svg viewBox="0 0 100 50" role="group"><title>a &lt;b&gt; \x08</title>'
        '<a href="/models/x"><rect width="9" height="9" fill="var(--good, #17683f)"/></a></svg>'
    )
    made = formats.as_svg(figure(svg=drawn))
    root = ElementTree.fromstring(made)
    assert root.get("role") == "img" and root.get("viewBox") == "0 -34 100 84"
    title, paper, heading, group = root
    assert (title.text, heading.text) == ("a <b> \N{REPLACEMENT CHARACTER}", "Made up")
    assert paper.get("fill") == "#ffffff"
    # Its colours are its own, and what led somewhere on a page leads nowhere.
    assert group.tag == f"{SVG}g" and not group.attrib and group[0].get("fill") == "#17683f"
    assert "var(" not in made and "href" not in made


def test_a_drawing_with_a_namespace_stays_as_it_is() -> None:
    named = SIMPLE.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ')
    assert formats.as_svg(figure(svg=named)) == formats.as_svg(figure(svg=SIMPLE))


def test_what_is_not_drawn_is_said() -> None:
    with pytest.raises(NotFound, match="nothing to draw of made-up"):
        formats.as_svg(figure(svg=""))


# Over HTTP.


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory, backend: Backend) -> Iterator[Repository]:
    folder = tmp_path_factory.mktemp("figures")
    with backend.database() as url, repository(folder, url) as opened:
        opened.model()
        opened.model(PRIVATE, public=False)
        seen, unseen = HOSTILE_NAMES[:4], HOSTILE_NAMES[4:]
        suite = kinds_suite(seen, unseen)
        register(opened, suite)
        live_on(opened, [RoundState.PUBLISHED, rejected(verdict(2.0), reason="=1+1\x1b[31m")])
        for version, score in (("v0", 60.0), ("v1", 64.5)):
            measure(opened, version, dict.fromkeys(HOSTILE_NAMES, score), suite)
        contribute(opened, "ann", file_bytes(body_of(tiny_tensors(), 1)), "v1", dataset="=x")
        yield opened


@pytest.fixture(scope="module")
def visitor(repo: Repository) -> TestClient:
    return repo.client()


def addresses() -> list[str]:
    rounds = f"/v1/models/{MODEL}/rounds/3/figures"
    return [
        *(f"{FIGURES}/{name}" for name in sorted(of_model.FIGURES)),
        *(f"{rounds}/{name}" for name in sorted(of_round.FIGURES)),
    ]


@pytest.mark.parametrize("address", addresses())
def test_every_figure_can_be_had_in_every_form(visitor: TestClient, address: str) -> None:
    answer = visitor.get(f"{address}.json")
    table = FigureTable.model_validate(answer.json())
    assert table.name == address.rsplit("/", 1)[1] and table.told
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert answer.headers["cache-control"] == "private, no-cache"

    answer = visitor.get(f"{address}.csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    file = re.fullmatch(r'attachment; filename="([\w.-]+)\.csv"',
                        answer.headers["content-disposition"])  # fmt: skip
    assert file is not None and file[1].endswith(f"-{table.name}")
    header, *rows = as_rows(answer.text)
    assert header == [column.name for column in table.columns] and len(rows) == len(table.rows)

    answer = visitor.get(f"{address}.svg")
    if answer.status_code == 404:
        assert "nothing to draw" in answer.json()["detail"]
        return
    assert answer.headers["content-type"] == "image/svg+xml"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    root = ElementTree.fromstring(answer.content)
    assert root.get("role") == "img" and root[0].tag == f"{SVG}title"
    for element in root.iter():
        assert element.tag.removeprefix(SVG) in (
            "svg", "title", "desc", "rect", "text", "tspan", "g", "line", "path", "circle",
            "ellipse", "polygon", "polyline", "defs", "marker",
        ), element.tag  # fmt: skip
        assert not any(name.startswith("on") or name.endswith("href") for name in element.attrib)


def test_scores_are_those_that_were_measured(visitor: TestClient) -> None:
    table = visitor.get(f"{FIGURES}/scores.json").json()
    names = [column["name"] for column in table["columns"]]
    rows = [dict(zip(names, row, strict=True)) for row in table["rows"]]
    single = {(row["base"], row["data_set"]): row for row in rows if row["data_set"] is not None}
    assert set(single) == {(base, name) for base in ("v0", "v1") for name in HOSTILE_NAMES}
    assert {row["score"] for (base, _), row in single.items() if base == "v1"} == {64.5}
    averages = [(row["base"], row["kind"], row["score"]) for row in rows if row["data_set"] is None]
    assert sorted(averages, key=str) == sorted(
        [(base, kind, score) for base, score in (("v0", 60.0), ("v1", 64.5))
         for kind in (None, "seen", "unseen")], key=str)  # fmt: skip


def test_gains_are_against_v0(visitor: TestClient) -> None:
    table = visitor.get(f"{FIGURES}/gains.json").json()
    names = [column["name"] for column in table["columns"]]
    rows = [dict(zip(names, row, strict=True)) for row in table["rows"]]
    assert {(row["base"], row["against"], row["points"]) for row in rows} == {("v1", "v0", 4.5)}
    assert sum(row["data_set"] is None for row in rows) == 3


def test_gains_are_had_of_each_base_as_its_page_links_them(visitor: TestClient) -> None:
    page = visitor.get(f"/models/{MODEL}/bases/v1").text
    assert f'href="{FIGURES}/gains.csv?version=v1"' in page
    assert visitor.get(f"{FIGURES}/gains.json?version=v1").json() == (
        visitor.get(f"{FIGURES}/gains.json").json()
    )
    of_first = visitor.get(f"{FIGURES}/gains.json?version=v0").json()
    assert of_first["rows"] == [] and "v0 has not been compared" in of_first["told"]
    assert visitor.get(f"{FIGURES}/gains.json?version=v9").status_code == 404


def test_a_course_tells_by_how_much_a_candidate_missed(visitor: TestClient) -> None:
    text = visitor.get(f"{FIGURES}/course.csv").text
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["what"] for row in rows] == ["published", "rejected", "open"]
    assert (rows[1]["missed_points"], rows[1]["missed_on"], rows[1]["round"]) == ("1.5", "", "2")
    # What a spreadsheet or a terminal would obey stays words.
    assert rows[1]["reason"] == "'=1+1\N{REPLACEMENT CHARACTER}[31m"


def test_what_there_is_not_says_what_there_is(visitor: TestClient) -> None:
    answer = visitor.get(f"{FIGURES}/nonsense.json")
    assert answer.status_code == 404
    for name in ("scores", "gains", "course", "distances"):
        assert name in answer.json()["hint"]
    assert visitor.get(f"{FIGURES}/scores.png").status_code == 422


@pytest.mark.parametrize("address", addresses())
@pytest.mark.parametrize("kind", ["json", "csv", "svg"])
def test_a_private_models_figures_are_no_strangers_business(
    repo: Repository, visitor: TestClient, address: str, kind: str
) -> None:
    path = f"{address}.{kind}".replace(MODEL, PRIVATE).replace("/rounds/3/", "/rounds/1/")
    nowhere = visitor.get(path.replace(PRIVATE, "no/where"))
    answer = visitor.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, nowhere.json()["code"])
    reader = repo.client(repo.token("rea", "reader"))
    # There may be nothing to draw yet.
    assert reader.get(path).status_code in ((200, 404) if kind == "svg" else (200,))


def test_figures_are_described(visitor: TestClient) -> None:
    paths = visitor.get("/v1/openapi.json").json()["paths"]
    described = [path for path in paths if path.endswith("/figures/{figure}.{kind}")]
    assert len(described) == 2
    for path in described:
        answers = paths[path]["get"]["responses"]["200"]["content"]
        assert set(answers) == {"application/json", "text/csv", "image/svg+xml"}


def test_a_model_of_v0_alone_has_figures(repo: Repository) -> None:
    reader = repo.client(repo.token("ron", "reader"))
    for name in of_model.FIGURES:
        assert reader.get(f"/v1/models/{PRIVATE}/figures/{name}.json").status_code == 200
