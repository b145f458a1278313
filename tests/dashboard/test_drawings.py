"""The drawings of a round: pure functions that give one picture each."""

from __future__ import annotations

import math
import re
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldfusion_server.dashboard import beside, differences, heat, svg
from coldfusion_server.dashboard.figures.figure import Figure
from coldfusion_server.dashboard.figures.formats import as_svg
from coldfusion_server.dashboard.values import Value
from tests.dashboard.measured import HOSTILE_NAMES

COSINES = st.none() | st.floats(-1, 1).map(lambda value: round(value, 2))
NAMES = st.sampled_from(HOSTILE_NAMES) | st.text(max_size=30)
LENGTHS = st.floats(0, 1e30)


@st.composite
def matrices(draw: Any) -> tuple[list[str], list[list[float | None]], list[float | None]]:
    count = draw(st.integers(2, 12))
    names = draw(st.lists(NAMES, min_size=count, max_size=count))
    values = draw(st.lists(COSINES, min_size=count * count, max_size=count * count))
    rows = [
        [1.0 if i == j else values[count * max(i, j) + min(i, j)] for j in range(count)]
        for i in range(count)
    ]
    return names, rows, values[:count]


def parsed(drawn: str) -> ElementTree.Element:
    """Return a picture that is sound, in a page and alone, and keeps inside its box."""
    root = ElementTree.fromstring(drawn)
    assert root.attrib["role"] == "img" and root[0].tag == "title" and root[0].text
    assert not root.findall(".//script") and "style" not in {
        k for e in root.iter() for k in e.attrib
    }
    alone = as_svg(Figure("f", "F", "told", (), (), drawn))
    assert "var(" not in alone and ElementTree.fromstring(alone).attrib["width"]
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for element in root.iter():
        for x, y in re.findall(r"M(-?[\d.]+) (-?[\d.]+)", element.attrib.get("d", "")):
            assert -1 <= float(x) <= width + 1 and -1 <= float(y) <= height + 1, element.attrib
        for key, most in (("x", width), ("cx", width), ("y", height), ("cy", height)):
            assert -1 <= float(element.attrib.get(key, 0)) <= most + 1, element.attrib
    return root


def titles(root: ElementTree.Element) -> list[str]:
    return [title.text or "" for title in root.iter("title")][1:]


@given(matrices())
def test_a_heat_map_has_each_pair_once_and_each_with_the_mean(found: Any) -> None:
    names, cosines, with_mean = found
    root = parsed(heat.draw(names, cosines, with_mean, "what it shows"))
    count = len(names)
    assert len(titles(root)) == count * (count - 1) // 2 + count
    for title in titles(root):
        number = title.rsplit(": ", 1)[1]
        assert number == "not known" or re.fullmatch(r"\N{MINUS SIGN}?[01]\.\d\d", number)


@pytest.mark.parametrize("count", [2, 9, 10, 50])
def test_a_heat_map_of_any_size_stays_in_its_place_and_small(count: int) -> None:
    cosines: list[list[float | None]] = [
        [1.0 if i == j else -0.25 for j in range(count)] for i in range(count)
    ]
    drawn = heat.draw([f"contributor-{i}" for i in range(count)], cosines, [0.5] * count, "told")
    root = parsed(drawn)
    assert len(drawn) < 180_000
    texts = [text.text for text in root.iter("text")]
    assert f"contribut… \N{MIDDLE DOT} {count}" in texts
    # A sign that needs no colour: the number where it has room, else a minus.
    assert ("\N{MINUS SIGN}0.25" in texts) == (count < 10)
    paths = [e.attrib["d"] for e in root.iter("path") if e.attrib.get("stroke-width") == "1.5"]
    assert "".join(paths).count("M") == (count * (count - 1) // 2 if count > 9 else 0)


def test_what_pulls_the_same_way_has_another_colour_and_more_of_it() -> None:
    cosines: list[list[float | None]] = [[1.0, 0.9, -0.9], [0.9, 1.0, 0.1], [-0.9, 0.1, 1.0]]
    root = parsed(heat.draw(["a", "b", "c"], cosines, [None] * 3, "told"))
    colours = {
        title.text: (group.attrib["fill"], float(cell.attrib["fill-opacity"]))
        for group in root.iter("g")
        for cell in group
        for title in cell.iter("title")
    }
    alike, weak = colours["b and a: 0.90"], colours["c and b: 0.10"]
    against = colours["c and a: \N{MINUS SIGN}0.90"]
    assert alike[0] == weak[0] == svg.SECOND and alike[1] > 2 * weak[1] > 0
    assert against[0] == svg.ACCENT and against[1] == alike[1]
    assert colours["a and the mean: not known"][0] == "none"


@given(st.lists(st.tuples(NAMES, LENGTHS, st.booleans()), min_size=1, max_size=50), st.booleans())
def test_lengths_keep_inside_and_mark_by_shape(found: Any, has_usual: bool) -> None:
    items = [beside.Item(name, value, "x", f"{name}: {value}", out) for name, value, out in found]
    root = parsed(beside.on_logs(items, (0.5, 2.0) if has_usual else None, "told"))
    circles = len(list(root.iter("circle")))
    diamonds = sum(e.attrib.get("fill") == svg.SECOND for e in root.iter("path"))
    assert circles == sum(not out for *_, out in found)
    assert diamonds == sum(out for *_, out in found)


@given(st.floats(1e-30, 1), st.floats(1, 1e30))
def test_a_scale_of_logs_has_few_ticks_and_one_at_one(low: float, high: float) -> None:
    ends = beside._log_ends([low, high])
    ticks = list(beside._log_ticks(*ends))
    assert 1 <= len(ticks) <= beside.MOST_TICKS + 1
    assert any(math.isclose(tick, 1.0) for tick in ticks)
    assert all(ends[0] <= tick <= ends[1] for tick in ticks)


def test_a_longer_update_is_drawn_farther_right() -> None:
    items = [beside.Item("a", value, "", f"{value}") for value in (0.0, 0.1, 1.0, 10.0)]
    root = parsed(beside.on_logs(items, None, "told"))
    nothing, short, median, long = (float(dot.attrib["cx"]) for dot in root.iter("circle"))
    assert nothing == short < median < long
    assert median - short == pytest.approx(long - median, abs=0.2)


@given(st.lists(st.tuples(NAMES, st.floats(0, 1e6)), min_size=1, max_size=50))
def test_bars_keep_inside(found: Any) -> None:
    items = [beside.Item(name, value, f"{value:.3g}", f"{name} {value}") for name, value in found]
    root = parsed(beside.bars(items, "told"))
    for bar in (rect for rect in root.iter("rect") if rect.attrib["fill"] != "none"):
        assert float(bar.attrib["x"]) + float(bar.attrib["width"]) <= svg.WIDTH


@given(st.lists(st.floats(-1, 1), max_size=30), st.floats(-1, 1))
def test_one_among_others_keeps_inside(others: list[float], own: float) -> None:
    root = parsed(beside.strip(others, own, "told"))
    assert len(titles(root)) == len(others)


@given(st.lists(st.tuples(NAMES, st.floats(-1, 1)), min_size=1, max_size=100))
def test_a_course_of_cosines_keeps_inside(values: list[tuple[str, float]]) -> None:
    root = parsed(beside.course(values, "told"))
    assert len(list(root.iter("circle"))) == len(values)
    heights = [float(dot.attrib["cy"]) for dot in root.iter("circle")]
    for (_, one), (_, other), y, next_y in zip(
        values, values[1:], heights, heights[1:], strict=False
    ):
        assert one <= other or y <= next_y + 0.2


@given(
    st.lists(
        st.tuples(NAMES, st.floats(-100, 100), st.none() | st.floats(0, 50)),
        min_size=1,
        max_size=20,
    )
)
def test_differences_keep_inside_and_have_their_errors(found: Any) -> None:
    values = [Value(points, error) for _, points, error in found]
    drawn = differences.draw([name for name, *_ in found], values, "told")
    root = parsed(drawn)
    whiskers = [e for e in root.iter("path") if e.attrib.get("stroke") == svg.INK]
    assert len(whiskers) == sum(error is not None for *_, error in found)


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_hostile_names_stay_words(name: str) -> None:
    drawn = heat.draw([name, "bob"], [[1.0, 0.5], [0.5, 1.0]], [0.9, 0.9], name)
    drawn += beside.on_logs([beside.Item(name, 1.0, name, name)], None, name)
    drawn += beside.bars([beside.Item(name, 1.0, name, name)], name)
    drawn += differences.draw([name], [Value(1.0)], name)
    assert "<script" not in drawn and "<img" not in drawn
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\u202a-\u202e]", drawn)
