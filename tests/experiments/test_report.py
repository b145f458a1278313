"""The page: valid, asks for nothing from elsewhere, and says what the records say."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from coldfusion_shared.errors import InvalidRequest
from experiments.presets import settings_of
from experiments.records import Record, Records
from experiments.report import NUMBERS, PAGE, TEXT, write_report
from experiments.report.finished import Finished, distinct
from experiments.runs import RECORDS, RUN
from experiments.settings import RunFile

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Strict(HTMLParser):
    """Refuses elements that are not closed in their order, and notes what is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.asked: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.asked += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(page: Path) -> Strict:
    strict = Strict()
    strict.feed(page.read_text(encoding="utf-8"))
    strict.close()
    assert not strict.open
    return strict


def mean(arm: str, value: float, iteration: int = 0, **other: Any) -> Record:
    chosen: dict[str, Any] = {"scoring": "finetuned", "group": "all", "standard_error": 0.31}
    return Record(
        kind="mean", protocol="main", arm=arm, iteration=iteration, value=value,
        **{**chosen, **other},
    )  # fmt: skip


def difference(arm: str, against: str, value: float, half: float, **other: Any) -> Record:
    chosen: dict[str, Any] = {"scoring": "finetuned", "group": "all", "standard_error": half / 2}
    return Record(
        kind="difference", protocol="main", arm=arm, against=against, value=value,
        low=value - half, high=value + half, **{**chosen, **other},
    )  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    def made(*records: Record, name: str = "run", protocol: str = "main") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        file = RunFile(
            protocol=protocol, preset="tiny", base="/models/base", base_digest="ab" * 32,
            data="/data", data_digests={"films": "cd" * 32}, code="coldfusion/1",
            libraries="torch/2",
            settings=settings_of("tiny", protocol, {}),
        )  # fmt: skip
        (folder / RUN).write_text(yaml.safe_dump(file.document()), encoding="utf-8")
        kept = Records(folder / RECORDS)
        for record in records:
            kept.add(record)
        return folder

    return made


RESULTS = (
    mean("pretrained", 71.11),
    mean("cold", 72.22, 1),
    mean("cold", 73.33, 2),
    mean("multitask", 74.44),
    mean("fuse", 70.55),
    difference("cold", "pretrained", 1.11, 0.9, iteration=1),
    difference("cold", "pretrained", 2.22, 0.7, iteration=2),
    difference("multitask", "pretrained", 3.33, 0.5),
    difference("fuse", "pretrained", -0.56, 0.9),
    difference("cold", "multitask", -1.11, 0.4, iteration=2),
    difference("cold", "fuse", 2.78, 3.9, iteration=2),
    difference("cold", "pretrained", 4.5, 2.0, iteration=2, group=None, dataset="films"),
    difference("cold", "pretrained", -1.5, 2.0, iteration=2, group=None, dataset="rooms"),
    mean("cold", 80.0, 2, group=None, dataset="films", seen=True),
    mean("cold", 60.0, 2, group=None, dataset="rooms", seen=True),
    Record(kind="failure", protocol="main", arm="soup", seed=1, note="<b>diverged</b> & gone"),
    Record(kind="choice", protocol="main", arm="cold", value=1e-4, note="learning rate"),
)


def test_the_page_is_whole_and_says_what_the_records_say(run: Callable[..., Path]) -> None:
    folder = run(*RESULTS)
    page = write_report([folder], folder / "out")
    strict = parsed(page)
    assert strict.asked and all(one.startswith("data:image/svg+xml;") for one in strict.asked)
    source = page.read_text(encoding="utf-8")
    assert not re.search(r"url\(|@import|<script", source)
    assert "prefers-color-scheme: dark" in source
    text, markdown = " ".join(strict.text), page.with_name(TEXT).read_text(encoding="utf-8")
    spread = "above pretrained on 1 of 2 data sets; the largest gain is +4.50 points"
    for shown in (
        spread,
        "73.33 ± 0.31",
        "+2.22 (+1.52 to +2.92)",
        "<b>diverged</b> & gone",
        "74.44",
    ):
        assert shown in text and shown in markdown
    assert "72.22" not in text, "the last round is what counts"
    numbers = page.with_name(NUMBERS).read_text(encoding="utf-8")
    assert "72.22" in numbers and page.name == PAGE


def test_verdicts_follow_from_the_intervals(run: Callable[..., Path]) -> None:
    folder = run(*RESULTS)
    page = write_report([folder], folder / "out")
    lines = page.with_name(TEXT).read_text(encoding="utf-8").splitlines()

    def verdict(claim: str) -> str:
        [line] = [line for line in lines if line.startswith(f"| finetuned again, {claim} ")]
        return line.split("|")[-2].strip()

    assert verdict("ColD is above the pretrained model") == (
        "agrees; 0.11 points below the paper's figure"
    )
    assert verdict("Multitask is above the pretrained") == "agrees; the paper's figure is reached"
    assert verdict("ColD is above Multitask").startswith("contradicts")
    assert verdict("ColD is above one-shot Fuse by").startswith("not shown")
    assert verdict("one-shot Fuse (the plain").startswith("not measured")


def test_a_sweep_is_judged_by_its_ends(run: Callable[..., Path]) -> None:
    frozen: dict[str, Any] = {"scoring": "frozen"}
    folder = run(
        mean("pretrained", 60.0, **frozen),
        mean("120 examples", 61.0, 2, **frozen),
        mean("480 examples", 63.0, 2, **frozen),
        mean("centralised", 64.0, **frozen),
        difference("480 examples", "120 examples", 2.0, 1.0, iteration=2, **frozen),
        protocol="data-per-contributor",
    )
    page = write_report([folder], folder / "out")
    assert "| +2.00 (+1.00 to +3.00) | agrees |" in page.with_name(TEXT).read_text("utf-8")


def text_of(*folders: Path) -> str:
    page = write_report(folders, folders[0] / "out")
    return page.with_name(TEXT).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("value", "half", "verdict"),
    [
        (0.3, 0.6, "agrees"),
        (0.3, 0.8, "not shown"),
        (0.0, 9.0, "not shown"),
        (3.0, 1.5, "contradicts"),
        (-3.0, 1.5, "contradicts"),
    ],
)
def test_what_is_alike_is_shown_by_a_narrow_interval_alone(
    run: Callable[..., Path], value: float, half: float, verdict: str
) -> None:
    frozen: dict[str, Any] = {"scoring": "frozen"}
    arms = (mean(arm, 61.0, 2, **frozen) for arm in ("2 contributors", "8 contributors"))
    folder = run(
        mean("pretrained", 60.0, **frozen),
        *arms,
        difference("8 contributors", "2 contributors", value, half, iteration=2, **frozen),
        protocol="contributors",
    )
    text = text_of(folder)
    assert f") | {verdict} |" in text and "whole within -1 to +1 points" in text


@pytest.mark.parametrize(
    ("better", "told"),
    [
        (18, "| 75% | 90% (68% to 99%) | agrees |"),
        (13, "| 75% | 65% (41% to 85%) | not shown |"),
        (3, "| 75% | 15% (3% to 38%) | contradicts |"),
    ],
)
def test_most_data_sets_gain_where_more_do_than_by_chance(
    run: Callable[..., Path], better: int, told: str
) -> None:
    gains = (
        difference(
            "cold", "pretrained", 1.0 if number < better else -1.0, 3.0, iteration=2,
            group=None, dataset=str(number),
        )
        for number in range(20)
    )  # fmt: skip
    text = text_of(run(mean("pretrained", 70.0), mean("cold", 71.0, 2), *gains))
    assert told in text
    lower = "most data sets gain by ColD: 65% (41% to 85%) here, 75% there"
    assert (lower in text) == (better == 13)


def test_a_line_s_rise_is_judged_and_shown(run: Callable[..., Path]) -> None:
    frozen: dict[str, Any] = {"scoring": "frozen"}
    rise = difference("cold", "its first scored round", 2.0, 1.0, iteration=2, **frozen)
    text = text_of(run(mean("pretrained", 60.0, **frozen), mean("cold", 63.0, 2, **frozen), rise))
    [line] = [line for line in text.splitlines() if "ColD rises over its rounds" in line]
    assert line.endswith("| +2.00 (+1.00 to +3.00) | agrees |")
    assert "| cold less its first scored round | frozen, all | +2.00" in text


def test_differences_of_some_seeds_alone_say_so(run: Callable[..., Path]) -> None:
    note = "of 2 seeds alone, for want of the others"
    text = text_of(
        run(
            mean("pretrained", 71.0),
            mean("cold", 73.0, 2),
            mean("fuse", 72.0),
            difference("cold", "pretrained", 2.5, 1.0, iteration=2, note=note),
            difference("cold", "fuse", 1.5, 1.0, iteration=2, note=note),
        )
    )
    told = [line for line in text.splitlines() if note in line]
    claimed = f"| agrees; the paper's figure is reached; {note} |"
    assert any(line.endswith(claimed) for line in told)
    assert any(line.startswith("| cold less fuse |") for line in told)
    assert any(line.startswith("| cold | 2 |") for line in told)


def test_the_page_names_the_data_sets_that_scores_are_of(run: Callable[..., Path]) -> None:
    found = {
        "frozen": {"films": True, "news": False, "rooms": True},
        "finetuned": {"films": True},
    }
    records = [
        mean("pretrained", 60.0, scoring=scoring, group=None, dataset=name, seen=seen)
        for scoring, names in found.items()
        for name, seen in names.items()
    ]
    means = [
        mean("pretrained", 60.0, scoring=scoring, group=group)
        for scoring, group in (
            ("frozen", "all"), ("frozen", "seen"), ("frozen", "unseen"), ("finetuned", "all")
        )
    ]  # fmt: skip
    text = text_of(run(*records, *means))
    assert "### Finetuned, 1 data set\n\nMeans over 1 data set: films." in text
    assert "### Frozen, 3 data sets\n\nMeans over 3 data sets: films, news, rooms." in text
    assert "### Frozen, 2 seen data sets\n\nMeans over 2 seen data sets: films, rooms." in text
    assert "### Frozen, 1 unseen data set\n\nMeans over 1 unseen data set: news." in text


def test_two_runs_of_one_protocol_have_pictures_of_their_own(
    run: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "later").mkdir()
    first = run(*RESULTS, name="a main")
    lower = (*RESULTS[:5], difference("cold", "pretrained", 1.5, 0.1, iteration=2))
    second = run(*lower, name="later/a main")
    page = write_report([first, second], tmp_path / "out")
    text = page.with_name(TEXT).read_text(encoding="utf-8")
    assert "## main (a-main)" in text and "## main (a-main-2)" in text
    pictures = re.findall(r"\((\S+\.svg)\)", text)
    assert len(pictures) == len(set(pictures)) and "a-main-2-finetuned-all.svg" in pictures
    assert all((tmp_path / "out" / name).is_file() for name in pictures)
    assert "- main (a-main): finetuned again, ColD is above the pretrained model: +2.22" in text
    assert "- main (a-main-2): finetuned again, ColD is above the pretrained model: +1.50" in text
    numbers = page.with_name(NUMBERS).read_text(encoding="utf-8").splitlines()
    assert {line.split(",")[0] for line in numbers} == {"run", "a-main", "a-main-2"}


@given(st.lists(st.text(max_size=5) | st.sampled_from(["run", "Run", "run-2", "..", "a/b", "a b"])))
def test_labels_differ_and_are_names_of_files(names: list[str]) -> None:
    labels = distinct(names)
    assert len({label.lower() for label in labels}) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", label) for label in labels)


def test_several_runs_share_a_page(run: Callable[..., Path]) -> None:
    first = run(*RESULTS, name="first")
    second = run(mean("pretrained", 50.0), mean("ties", 51.0, 1), name="second", protocol="methods")
    text = write_report([first, second], first / "out").with_name(TEXT).read_text("utf-8")
    order = [text.index(part) for part in ("## main (first)", "## methods (second)", "51.00")]
    assert order == sorted(order)


def test_a_run_that_has_not_ended_has_no_report(run: Callable[..., Path]) -> None:
    with pytest.raises(InvalidRequest, match="has not ended"):
        Finished.of(run())
    with pytest.raises(InvalidRequest, match="There is no run"):
        Finished.of(Path("/nowhere"))
