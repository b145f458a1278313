"""The page: valid, asks for nothing from elsewhere, and says what the records say."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from coldfusion_shared.errors import InvalidRequest
from experiments.presets import settings_of
from experiments.records import Record, Records
from experiments.report import NUMBERS, PAGE, TEXT, write_report
from experiments.report.finished import Finished
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
        difference("480 examples", "120 examples", 2.0, 1.0, iteration=2, **frozen),
        protocol="data-per-contributor",
    )
    page = write_report([folder], folder / "out")
    assert "| +2.00 (+1.00 to +3.00) | agrees |" in page.with_name(TEXT).read_text("utf-8")


def test_several_runs_share_a_page(run: Callable[..., Path]) -> None:
    first = run(*RESULTS, name="first")
    second = run(mean("pretrained", 50.0), mean("ties", 51.0, 1), name="second", protocol="methods")
    text = write_report([first, second], first / "out").with_name(TEXT).read_text("utf-8")
    assert text.index("## main") < text.index("## methods") < text.index("51.00")


def test_a_run_that_has_not_ended_has_no_report(run: Callable[..., Path]) -> None:
    with pytest.raises(InvalidRequest, match="has not ended"):
        Finished.of(run())
    with pytest.raises(InvalidRequest, match="There is no run"):
        Finished.of(Path("/nowhere"))
