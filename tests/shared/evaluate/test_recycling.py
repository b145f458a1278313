from __future__ import annotations

import html
import re

import pytest

from coldfusion_shared.errors import InvalidRequest, SuiteChanged
from coldfusion_shared.evaluate.recycling import MOST_COLUMNS, recycling_table
from tests.shared.evaluate.measured import coins, entry

BOTH = (entry("films", seen=True), entry("news", seen=False))


def cells(table: str) -> list[list[str]]:
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_data_sets_are_rows_and_bases_are_columns() -> None:
    bases = [("v0", coins(0.6, BOTH)), ("v1", coins(0.6, BOTH)), ("v2", coins(0.8, BOTH))]
    table = recycling_table(bases)
    rows = cells(table)
    assert [row[0] for row in rows] == [
        "data set", "---", "films", "news", "**average**", "**gain**", "gain, seen", "gain, unseen",
    ]  # fmt: skip
    assert {len(row) for row in rows} == {4}
    assert rows[0][1:] == ["v0", "v1", "v2"]
    first = bases[0][1].results[0]
    assert rows[2][1] == f"{first.score:.1f} ± {first.standard_error:.1f}"
    assert rows[4][1] == f"{bases[0][1].average:.1f} ± {bases[0][1].standard_error:.1f}"
    gains = rows[5]
    assert gains[1] == "" and gains[2].startswith("+0.0 ± ")
    assert gains[3].startswith("**+19.3 ± ") and gains[3].endswith("**")
    assert "protocol frozen: accuracy in percent, the mean over 3 seeds, with" in table
    assert table.endswith("\n") and "not shown" not in table


def test_one_base_has_scores_and_no_gain() -> None:
    table = recycling_table([("v0", coins(0.6, BOTH))])
    assert "gain" not in table and len(cells(table)) == 5


def test_one_seed_has_no_errors() -> None:
    table = recycling_table([(v, coins(0.6, BOTH, seeds=1)) for v in ("v0", "v1")])
    assert "±" not in table and "error" not in table and "bold" not in table
    assert "mean over 1 seed." in table


def test_metrics_are_said_where_they_are_mixed() -> None:
    mixed = (entry("films"), entry("rules", metric="Matthews"))
    table = recycling_table([("v0", coins(0.6, mixed))])
    assert [row[0] for row in cells(table)[2:4]] == ["films (accuracy)", "rules (Matthews)"]
    assert "scores in percent" in table


def test_of_many_bases_the_first_and_the_last_are_shown() -> None:
    base = coins(0.6, BOTH, examples=20)
    table = recycling_table([(f"v{n}", base) for n in range(MOST_COLUMNS + 3)])
    assert cells(table)[0][1:] == ["v0", *(f"v{n}" for n in range(4, MOST_COLUMNS + 3))]
    assert table.endswith(" 3 bases after v0 are not shown.\n")


NAMES = [
    *("a|b", "*a*", "<b>x", "`a`", "`a|b`", "[x](y)", "a\\|b", "a\\", "a\nb", "a\u2028b", "电影 é"),
    *(
        "<img src=x onerror=alert(1)>",
        "<!-- a",
        "&lt;b&gt;",
        "&amp;",
        "~~a~~",
        "$a$",
        "_a_",
        "![a](b)",
    ),
    *("| --- |", "a\r\n\r\n# b", "<script>", "a" * 100),
]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_shown_as_it_is(name: str) -> None:
    markdown = pytest.importorskip("markdown_it", reason="rich brings it with it")
    table = recycling_table([(name, coins(0.6, (entry(name),), examples=20))])
    page = markdown.MarkdownIt("commonmark", {"html": True}).enable("table").render(table)
    found = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", page, re.S)
    assert len(found) == 6
    # No element within a cell, and the name once its entities are read.
    shown = " ".join(name.split())
    assert [html.unescape(found[place]) for place in (1, 2)] == [shown, shown]
    assert not any("<" in found[place] for place in (1, 2))
    # Some readers of Markdown know no backslash before these.
    assert not re.search(r"[<>`]", table)


def test_small_data_sets_are_said_to_be_drawn_with_replacement() -> None:
    bases = [("v0", coins(0.6, BOTH, pool=150))]
    assert "so few training examples of films, news that" in recycling_table(bases)
    assert "replacement" not in recycling_table([("v0", coins(0.6, BOTH))])


def test_other_suites_are_refused() -> None:
    with pytest.raises(SuiteChanged, match="news"):
        recycling_table([("v0", coins(0.6, BOTH)), ("v1", coins(0.6, BOTH[:1]))])
    with pytest.raises(InvalidRequest):
        recycling_table([])
