"""How a model came to be, as it is read: which bases, what they were fused from, for whom."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from coldfusion_server.services.lineage import RANGE, Lineage, lineage
from coldfusion_shared.errors import ModelNotFound
from tests.dashboard.measured import grow
from tests.dashboard.trees import crowd, tree
from tests.server.backends import both_databases
from tests.server.repository import MODEL, Json, Repository, repository

PRIVATE = "acme/secret"
FIGURE = f"/v1/models/{MODEL}/figures/lineage"


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    """A Repository whose bases branch; nothing is changed in it."""
    with repository(tmp_path_factory.mktemp("lineage")) as opened:
        opened.model(min_contributions=1, by_hand=True, max_staleness=10)
        tree(opened)
        yield opened


def read(repo: Repository, upto: int | None = None) -> Lineage:
    return lineage(repo.ctx, MODEL, None, upto)


def rows(found: Json) -> list[Json]:
    names = [column["name"] for column in found["columns"]]
    return [dict(zip(names, row, strict=True)) for row in found["rows"]]


def test_bases_know_where_they_come_from_and_what_became_of_them(grown: Repository) -> None:
    found = read(grown)
    assert {base.number: base.parent for base in found.bases} == {
        0: None, 1: 0, 2: 1, 3: 2, 4: 2, 5: 4, 6: 2, 7: 6, 8: 7,
    }  # fmt: skip
    assert [base.number for base in found.bases if base.abandoned] == [3, 4, 5]
    assert [base.number for base in found.bases if base.current] == [8]
    assert {base.number: base.replays for base in found.bases if base.replays is not None} == {
        6: 4, 7: 5,
    }  # fmt: skip
    assert [base.round for base in found.bases] == [None, 1, 2, 3, 4, 5, 4, 5, 6]


def test_contributions_know_where_they_come_from_and_into_what_they_went(
    grown: Repository,
) -> None:
    second = [item for item in read(grown).inputs if item.result == 2]
    assert {item.contributor: (item.made_from, item.staleness) for item in second} == {
        "ann": (1, 0), "bob": (0, 1), "cyd": (1, 0),
    }  # fmt: skip
    assert all(item.weight is not None and item.weight > 0 for item in second)
    # A replay's bases have what was left of those that they stand in for.
    ids = {number: {i.id for i in read(grown).inputs if i.result == number} for number in (4, 6)}
    assert ids[6] < ids[4] and len(ids[6]) == 1


@both_databases
def test_a_long_line_is_read_in_ranges(repo: Repository) -> None:
    grow(repo, 2 * RANGE)
    newest = read(repo)
    assert (newest.first, newest.last) == (RANGE + 1, 2 * RANGE)
    assert (newest.older, newest.newer) == (RANGE, None)
    assert len(newest.bases) == 2 * RANGE + 1 and len(newest.shown) == RANGE
    middle = read(repo, newest.older)
    assert (middle.first, middle.last) == (1, RANGE)
    assert (middle.older, middle.newer) == (0, 2 * RANGE)
    oldest = read(repo, middle.older)
    assert (oldest.first, oldest.last) == (0, 0)
    assert (oldest.older, oldest.newer) == (None, RANGE)
    # Every base is in one of them.
    assert [b.number for part in (oldest, middle, newest) for b in part.shown] == list(
        range(2 * RANGE + 1)
    )
    assert read(repo, 10**9).last == 2 * RANGE


def test_a_range_reads_the_contributions_of_its_own_bases_alone(repo: Repository) -> None:
    for number in (3, 5):
        crowd(repo, number)
    assert len(read(repo).inputs) == 8
    assert [item.result for item in read(repo, 1).inputs] == [1, 1, 1]


def test_the_figure_as_a_table(grown: Repository) -> None:
    found = grown.get(f"{FIGURE}.json")
    assert found["name"] == "lineage"
    assert found["told"].startswith("v0 to v8 of 9 bases, fused from 14 contributions by 5 contrib")
    assert "The head does not come from v3, v4, v5." in found["told"]
    nodes = [row for row in rows(found) if row["what"] == "base"]
    assert [row["id"] for row in nodes] == [f"v{number}" for number in range(9)]
    assert (nodes[6]["from"], nodes[6]["replays"], nodes[3]["state"]) == ("v2", "v4", "abandoned")
    edges = [row for row in rows(found) if row["what"] == "contribution"]
    assert {row["into"] for row in edges} == {f"v{number}" for number in range(1, 9)}
    late = [row for row in edges if row["staleness"]]
    assert {row["contributor"] for row in late} == {"bob", "dan"}


def test_the_figure_as_csv_and_as_a_picture(grown: Repository) -> None:
    client = grown.client()
    text = client.get(f"{FIGURE}.csv?upto=2")
    found = list(csv.DictReader(io.StringIO(text.text)))
    assert [row["id"] for row in found if row["what"] == "base"] == ["v0", "v1", "v2"]
    assert len(found) == 3 + 5
    picture = client.get(f"{FIGURE}.svg?upto=2")
    assert picture.headers["content-type"].startswith("image/svg+xml")
    root = ElementTree.fromstring(picture.text)
    words = {element.text for element in root.iter() if element.tag.endswith("}text")}
    assert {"v0", "v1", "v2", "v3", "ann", "−1"} <= words
    assert "var(" not in picture.text and "href" not in picture.text


def test_a_model_of_v0_alone(repo: Repository) -> None:
    found = repo.get(f"{FIGURE}.json")
    assert found["told"] == "v0 of 1 base." and len(found["rows"]) == 1
    assert repo.client().get(f"{FIGURE}.svg").status_code == 200


def test_a_private_model_has_no_lineage_for_visitors(repo: Repository) -> None:
    repo.model(PRIVATE, public=False)
    with pytest.raises(ModelNotFound):
        lineage(repo.ctx, PRIVATE, None)
    for kind in ("json", "csv", "svg"):
        path = f"/v1/models/{PRIVATE}/figures/lineage.{kind}"
        assert repo.client().get(path).status_code == 404
        assert repo.client(repo.token("r", "reader")).get(path).status_code == 200


def test_a_range_that_is_no_number(repo: Repository) -> None:
    for wrong in ("-1", "x", str(10**12)):
        assert repo.client().get(f"{FIGURE}.json?upto={wrong}").status_code == 422


def test_an_empty_range_is_v0(tmp_path: Path) -> None:
    with repository(tmp_path) as opened:
        opened.model()
        assert [base.number for base in read(opened, 0).shown] == [0]
