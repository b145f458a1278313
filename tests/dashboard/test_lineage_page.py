"""The lineage: its layout, by example and property, and its page without a browser."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from xml.etree import ElementTree

import pytest
from fastapi.testclient import TestClient
from hypothesis import given as holds_for
from hypothesis import settings
from hypothesis import strategies as st

from coldfusion_server.dashboard.figures.lineage import lineage_of, link, told
from coldfusion_server.dashboard.graph import (
    LANES,
    MANY,
    OF_ONE,
    THICK,
    THIN,
    Graph,
    Node,
    graph,
    tracks,
)
from coldfusion_server.services.lineage import RANGE, Input, Lineage
from tests.dashboard.history import HOSTILE
from tests.dashboard.test_pages import Elements, flat, text
from tests.dashboard.trees import crowd, given, lineage, tree
from tests.server.repository import MODEL, Repository, repository

PAGE = f"/models/{MODEL}/lineage"


# The layout.


@st.composite
def lineages(draw: st.DrawFn) -> Lineage:
    """Return a tree of bases, a range of it, and what went into the bases of the range."""
    number = draw(st.integers(0, 30))
    parents: list[int | None] = [None]
    parents += [draw(st.integers(0, index)) for index in range(number)]
    head = draw(st.integers(0, number))
    last = draw(st.integers(0, number))
    first = max(0, last - RANGE + 1)
    inputs: list[Input] = []
    for result in range(max(1, first), last + 1):
        for item in range(draw(st.integers(0, MANY + 4))):
            made_from = draw(st.integers(0, result - 1))
            name = f"person {draw(st.integers(0, 25))}"
            weight = draw(st.none() | st.floats(0, 1))
            staleness = draw(st.integers(0, 3))
            inputs.append(Input(f"{item}-{result}", name, made_from, result, weight, staleness))
    return lineage(parents, inputs, head, first, last)


def overlap(one: Node, other: Node) -> bool:
    return (
        one.left < other.right
        and other.left < one.right
        and one.top < other.bottom
        and other.top < one.bottom
    )


@settings(max_examples=60, deadline=None)
@holds_for(lineages())
def test_nothing_lies_over_anything_and_all_is_inside(found: Lineage) -> None:
    drawing = graph(found)
    for one, other in combinations(drawing.nodes, 2):
        assert not overlap(one, other), (one, other)
    for node in drawing.nodes:
        assert node.left >= 0 and node.right <= drawing.width
        assert node.top >= 0 and node.bottom <= drawing.height
    for edge in drawing.edges:
        assert all(0 <= x <= drawing.width and 0 <= y <= drawing.height for x, y in edge.points)
        assert THIN <= edge.width <= THICK


@settings(max_examples=60, deadline=None)
@holds_for(lineages())
def test_everything_is_drawn_once_and_hangs_together(found: Lineage) -> None:
    drawing = graph(found)
    keys = {node.key for node in drawing.nodes}
    assert len(keys) == len(drawing.nodes)
    assert all(edge.target in keys and edge.source in keys | {""} for edge in drawing.edges)
    assert {node.label for node in drawing.of("base")} == {base.version for base in found.shown}
    drawn = [i for node in drawing.nodes if node.kind in ("contribution", "bundle")
             for i in node.inputs]  # fmt: skip
    assert sorted(drawn, key=repr) == sorted(found.inputs, key=repr)
    # Every contribution is reached from its base, and leads into one.
    for node in [*drawing.of("contribution"), *drawing.of("bundle")]:
        assert [e.target for e in drawing.edges if (e.kind, e.source) == ("into", node.key)] == [
            f"v{node.inputs[0].result}"
        ]
        assert [e for e in drawing.edges if (e.kind, e.target) == ("made_from", node.key)]
    for base in drawing.of("base"):
        assert base.base is not None
        if base.base.parent is not None:
            assert [e for e in drawing.edges if (e.kind, e.target) == ("parent", base.key)]


@settings(max_examples=60, deadline=None)
@holds_for(lineages())
def test_lines_of_branches_run_over_no_other_base(found: Lineage) -> None:
    placed = tracks(found.bases)
    by_number = {base.number: base for base in found.bases}
    for base in found.bases:
        if base.parent is None:
            continue
        between = range(base.parent + 1, base.number)
        assert placed[base.number] not in [placed[number] for number in between], placed
    assert all((placed[number] == 0) != base.abandoned for number, base in by_number.items())


def test_a_branch_has_a_track_and_the_next_one_may_have_it_again() -> None:
    # v2 is abandoned for v3; much later v5 and v6 are.
    found = lineage([None, 0, 1, 1, 3, 4, 5, 4], head=7)
    assert tracks(found.bases) == {0: 0, 1: 0, 2: 1, 3: 0, 4: 0, 5: 1, 6: 1, 7: 0}
    dashed = [edge.target for edge in graph(found).edges if edge.abandoned]
    assert dashed == ["v2", "v5", "v6"]


def test_what_comes_from_outside_of_the_range_comes_from_its_edge() -> None:
    found = lineage([None, *range(20)], [given(9, 7), given(9, 2)], first=9, last=12)
    drawing = graph(found)
    assert [node.label for node in drawing.of("ghost")] == ["v8", "v13"]
    left, right = drawing.of("ghost")
    assert left.right < drawing.of("base")[0].left and right.left > drawing.of("base")[-1].right
    stubs = [edge for edge in drawing.edges if edge.kind == "made_from"]
    assert [edge.source for edge in stubs] == ["", ""]


def names_of(drawing: Graph) -> list[str]:
    return [node.label for node in drawing.of("contributor")]


def test_who_made_most_has_the_first_lane() -> None:
    found = lineage([None, 0, 1], [given(1, 0, "ann"), given(1, 0, "bob"), given(2, 1, "bob")])
    assert names_of(graph(found)) == ["bob", "ann"]


def test_many_contributions_of_a_round_are_one_bundle_by_where_they_come_from() -> None:
    fresh = [given(2, 1, f"someone {item}") for item in range(MANY)]
    late = [given(2, 0, "late one")]
    drawing = graph(lineage([None, 0, 1], [*fresh, *late]))
    assert [node.label for node in drawing.of("bundle")] == [str(MANY), "1"]
    assert [node.staleness for node in drawing.of("bundle")] == [0, 1]
    assert not drawing.of("contribution") and not drawing.of("contributor")
    assert len(graph(lineage([None, 0, 1], fresh)).of("contribution")) == MANY


def test_many_contributions_of_one_contributor_are_one_bundle_in_the_lane() -> None:
    one = [given(1, 0, "ann", item) for item in range(OF_ONE + 1)]
    drawing = graph(lineage([None, 0], [*one, given(1, 0, "bob")]))
    assert names_of(drawing) == ["ann", "bob"]
    assert [node.label for node in drawing.of("bundle")] == [str(OF_ONE + 1)]
    assert len(graph(lineage([None, 0], one[:OF_ONE])).of("contribution")) == OF_ONE


def test_of_many_contributors_those_who_made_most_have_lanes() -> None:
    number = 3 * LANES
    inputs = [given(1 + item % 6, 0, f"p{item:02}", staleness=0) for item in range(number)]
    inputs += [given(6, 5, f"p{number - 1:02}", 1)]
    drawing = graph(lineage([None, *range(6)], inputs))
    assert len(names_of(drawing)) == LANES and names_of(drawing)[0] == f"p{number - 1:02}"
    assert sum(len(node.inputs) for node in drawing.of("bundle")) == number - LANES


def test_the_heaviest_line_is_the_thickest() -> None:
    found = lineage([None, 0], [given(1, 0, "ann", weight=0.75), given(1, 0, "bob", weight=0.25)])
    widths = {edge.source: edge.width for edge in graph(found).edges if edge.kind == "into"}
    heavy, light = widths.values()
    assert heavy == THICK and THIN < light < THICK


def test_nodes_lead_to_what_they_are_and_say_so() -> None:
    inputs = [given(9, 8, "a/b ü"), given(9, 7, "bob")]
    found = lineage([None, *range(15)], inputs, first=8, last=10)
    nodes = {(node.kind, node.label): node for node in graph(found).nodes}
    assert link(found, nodes["base", "v9"]) == "/models/demo/tiny/bases/v9"
    assert link(found, nodes["ghost", "v7"]) == "/models/demo/tiny/lineage?upto=7"
    assert link(found, nodes["ghost", "v11"]) == f"/models/demo/tiny/lineage?upto={10 + RANGE}"
    assert link(found, nodes["contributor", "a/b ü"]) == "/contributors/a/b%20%C3%BC"
    assert told(found, nodes["base", "v9"]) == (
        "v9, older, fused in round 9 onto v8, of 2 contributions"
    )
    (late,) = [node for node in graph(found).of("contribution") if node.staleness]
    assert told(found, late) == (
        "Contribution of bob, made from v7, into v9, weight 0.5, 1 base behind"
    )
    assert link(found, late) == f"/contributions/{late.inputs[0].id}"


def test_what_a_replay_fuses_once_more_is_counted_once() -> None:
    found = lineage([None, 0, 1, 1], [given(2, 0), given(2, 1, "bob")])
    again = [replace(item, result=3) for item in found.inputs]
    said = lineage_of(replace(found, inputs=[*found.inputs, *again])).told
    assert "fused from 2 contributions by 2 contributors" in said
    assert said.endswith("1 contribution came late.")


def test_hostile_names_stay_names_in_the_picture() -> None:
    names = [HOSTILE, "</title></svg><script>x</script>", "\x08\x1b]]>", "مراجعات" * 9, "a\" b='"]
    found = lineage_of(lineage([None, 0], [given(1, 0, name) for name in names]))
    elements = Elements()
    elements.feed(found.svg)
    assert not elements.bad and "script" not in elements.tags
    ElementTree.fromstring(found.svg)


# The page.


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    with repository(tmp_path_factory.mktemp("lineage")) as opened:
        opened.model(min_contributions=1, by_hand=True, max_staleness=10)
        tree(opened)
        opened.model("acme/secret", public=False)
        yield opened


@pytest.fixture(scope="module")
def visitor(grown: Repository) -> TestClient:
    return grown.client()


def test_the_page_draws_bases_contributions_and_contributors_as_links(
    grown: Repository, visitor: TestClient
) -> None:
    page = text(visitor, PAGE)
    drawn = re.findall(r'<a id="n\d+" class="node ([a-z-]+)[^"]*" href="([^"]+)"', page)
    kinds = [kind for kind, _ in drawn]
    assert [kinds.count(k) for k in ("base", "contribution", "contributor")] == [9, 18, 5]
    for _, address in drawn:
        assert visitor.get(address).status_code == 200, address
    shown = flat(page)
    assert "v0 to v8 of 9 bases" in shown and "v6 older v2 Round 4 v4 1" in shown
    assert "abandoned" in shown and f'href="/models/{MODEL}"' in page


def test_the_model_page_leads_there(visitor: TestClient) -> None:
    assert f'href="{PAGE}"' in text(visitor, f"/models/{MODEL}")


def test_the_part_is_the_same_alone_and_in_its_page(visitor: TestClient) -> None:
    for query in ("", "upto=4"):
        alone = text(visitor, f"{PAGE}?part=lineage&{query}").strip()
        assert 'id="part-lineage"' in alone and "<html" not in alone
        assert alone in text(visitor, f"{PAGE}?{query}")


def test_figures_of_an_older_range_are_of_that_range(visitor: TestClient) -> None:
    page = text(visitor, f"{PAGE}?upto=4")
    addresses = re.findall(r'href="(/v1/models/[^"]+/figures/lineage\.[^"]+)"', page)
    assert len(addresses) == 3 and all(one.endswith("?upto=4") for one in addresses)
    for address in addresses:
        assert visitor.get(address).status_code == 200


def test_nothing_runs_inline(visitor: TestClient) -> None:
    elements = Elements()
    elements.feed(text(visitor, PAGE))
    assert not elements.bad and {"svg", "table", "h1"} <= set(elements.tags)


def test_a_private_models_lineage_is_hidden(grown: Repository, visitor: TestClient) -> None:
    assert "log in" in text(visitor, "/models/acme/secret/lineage", 404)
    reader = grown.client(grown.token("rea", "reader"))
    assert "v0 of 1 base" in flat(text(reader, "/models/acme/secret/lineage"))


def test_a_thousand_contributions_stay_readable(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with repository(tmp_path_factory.mktemp("crowd")) as opened:
        opened.model()
        for _ in range(RANGE + 1):
            crowd(opened, 1000)
        client = opened.client()
        page = text(client, PAGE)
        assert page.count(">1,000</text>") == RANGE and "someone-999" in page
        assert len(page) < 300_000
        assert f'href="{PAGE}?upto=1"' in page
        # Many times what it takes, so that a slow machine passes, too; what it does for others
        # meanwhile does not count.
        begun = time.process_time()
        text(client, PAGE)
        assert time.process_time() - begun < 10
