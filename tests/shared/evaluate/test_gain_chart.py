from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from coldfusion_shared.errors import InvalidRequest, MissingExtra
from coldfusion_shared.evaluate.comparison import Comparison, compare
from coldfusion_shared.evaluate.gain_chart import COLOURS, check_format, draw_gains
from tests.shared.evaluate.measured import coins, entry

PNG = b"\x89PNG\r\n\x1a\n"
ENTRIES = (entry("films", seen=True), entry("news", seen=False), entry("rules"))


def gains(*, seeds: int = 3) -> Comparison:
    before, after = (coins(chance, ENTRIES, seeds=seeds) for chance in ([0.6] * 3, [0.7, 0.8, 0.5]))
    return compare(before, after)


def texts(path: Path) -> list[str]:
    root = ElementTree.parse(path).getroot()
    return ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")]


def test_the_best_is_above_and_every_kind_has_its_colour(tmp_path: Path) -> None:
    path = tmp_path / "gain.svg"
    draw_gains(path, gains(), "v0", "v7")
    said = texts(path)
    # Ticks are written from below.
    assert [text for text in said if text in ("films", "news", "rules")] == [
        "rules",
        "films",
        "news",
    ]
    assert "Gain of v7 over v0" in said and "frozen, 3 seeds" in said
    assert any(text.startswith("average +") and "±" in text for text in said)
    assert {"seen", "unseen", "not said whether seen"} <= set(said)
    written = path.read_text()
    assert all(colour in written for colour in COLOURS.values())


def test_kinds_that_no_data_set_is_of_are_not_explained(tmp_path: Path) -> None:
    some = compare(coins(0.6, ENTRIES[:1]), coins(0.7, ENTRIES[:1]))
    draw_gains(tmp_path / "gain.svg", some, "v0", "v1")
    said = texts(tmp_path / "gain.svg")
    assert "seen" in said and "unseen" not in said and "not said whether seen" not in said


def test_one_seed_has_no_error_bars(tmp_path: Path) -> None:
    draw_gains(tmp_path / "gain.svg", gains(seeds=1), "v0", "v1")
    said = texts(tmp_path / "gain.svg")
    assert not any("±" in text for text in said) and "frozen, 1 seed" in said


@pytest.mark.parametrize("name", ["gain.png", "GAIN.SVG"])
def test_the_same_gains_are_the_same_bytes(name: str, tmp_path: Path) -> None:
    first, second = tmp_path / "a" / name, tmp_path / "b" / name
    for path in (first, second):
        path.parent.mkdir()
        draw_gains(path, gains(), "v0", "v1")
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes().startswith(PNG) or b"<svg" in first.read_bytes()[:1000]


@pytest.mark.parametrize(
    "name",
    ["电影评论 情感分类", "a$x^$b", "<&>", "x" * 100, "e\u0301tudes de la langue", "\\frac_"],
)
@pytest.mark.parametrize("ending", [".png", ".svg"])
def test_names_of_every_kind_can_be_drawn(name: str, ending: str, tmp_path: Path) -> None:
    odd = (entry(name),)
    found = compare(coins(0.6, odd), coins(0.7, odd))
    draw_gains(tmp_path / f"gain{ending}", found, name, name)
    assert (tmp_path / f"gain{ending}").stat().st_size > 1000


def test_other_endings_are_refused_before_any_work() -> None:
    with pytest.raises(InvalidRequest, match=r"gain chart.*\.png or \.svg.*'gain.gif'"):
        check_format(Path("gain.gif"))


def test_without_matplotlib_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra) as raised:
        check_format(Path("gain.svg"))
    assert raised.value.hint == "Run: pip install 'coldfusion[train]'"
