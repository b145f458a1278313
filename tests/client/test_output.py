from __future__ import annotations

import io
import json
import sys
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from rich.console import Console

from coldfusion_client.cli import bars
from coldfusion_client.cli.errors import EXIT_CODES, MEANINGS, epilog, exit_code
from coldfusion_client.cli.output import Output
from coldfusion_client.cli.text import ago, clean, size, typed
from coldfusion_client.reporting import Unit
from coldfusion_shared.errors import ColdFusionError, IncompatibleWeights, all_errors

HOSTILE = "a\x1b[2J\x1b]0;title\x07b\r\nError: fake\u202ec\x9b31m\x00\ud800d\u2028e"


@pytest.mark.parametrize("error", all_errors(), ids=lambda error: error.code)
def test_every_error_has_an_exit_code_that_is_documented(error: type[ColdFusionError]) -> None:
    assert error.code in EXIT_CODES
    assert exit_code(error.code) in MEANINGS
    assert exit_code(error.code) != 0


def test_the_table_has_nothing_else_and_help_shows_it() -> None:
    assert set(EXIT_CODES) == {error.code for error in all_errors()}
    assert all(f"{code}  {text}" in epilog() for code, text in MEANINGS.items())
    assert exit_code("of_the_future") == 1


def test_control_characters_are_stripped() -> None:
    cleaned = clean(HOSTILE)
    assert cleaned == "a[2J]0;titleb Error: fakec31md e"
    assert clean("schöne Grüße 🎉, 日本語") == "schöne Grüße 🎉, 日本語"


def test_nothing_hostile_reaches_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output()
    out.say(HOSTILE)
    out.warn(HOSTILE)
    out.table([], ["x"], [[HOSTILE]])
    out.error(IncompatibleWeights(HOSTILE, hint=HOSTILE, tensors=[HOSTILE]), 7)
    printed = capsys.readouterr()
    for stream in (printed.out, printed.err):
        assert not set(stream) & {"\x1b", "\x07", "\r", "\x9b", "\u202e", "\x00"}


def test_rich_markup_of_others_is_only_text(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdout", stream)
    Output().table([], ["name"], [["[red]x[/red]"]])
    assert "[red]x[/red]" in stream.getvalue()


def test_json_mode_writes_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output(as_json=True)
    out.say("x")
    out.result({"a": HOSTILE}, "text", "essence")
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"a": HOSTILE}
    assert printed.err == ""


def test_errors_in_json_mode_are_json(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=True).error(IncompatibleWeights("no", hint="do", tensors=["t"]), 7)
    printed = capsys.readouterr()
    assert json.loads(printed.out)["error"] == {
        "code": "incompatible_weights", "message": "no", "hint": "do", "tensors": ["t"],
        "exit_code": 7,
    }  # fmt: skip
    assert printed.err == "Error: no\nTensors: t\ndo\n"


def test_quiet_mode_writes_the_essence(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output(quiet=True)
    out.say("x")
    out.warn("y")
    out.result({}, "text", "essence")
    with out.bar("x", 1, "bytes") as bar:
        bar.advance(1)
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("essence\n", "")


def test_an_empty_table_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    Output().table([], ["x"], [])
    assert capsys.readouterr().err == "None.\n"


def test_without_a_terminal_progress_is_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bars, "LINE_SECONDS", 0.0)
    with Output().bar("upload", 4_000_000, "bytes") as bar:
        time.sleep(0.01)
        bar.advance(1_000_000)
        bar.advance(3_000_000)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("upload: 1.0 MB of 4.0 MB, ")
    assert lines[0].endswith("s left")
    assert "left" not in lines[-1]


def test_steps_have_a_note(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bars, "LINE_SECONDS", 0.0)
    with Output().bar("finetune", 10, "steps") as bar:
        bar.advance(3, "loss 0.5")
    assert "3 of 10" in (line := capsys.readouterr().err.splitlines()[0])
    assert line.endswith("loss 0.5")


def test_slow_steps_are_told_by_the_seconds_that_each_takes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter([100.0, 140.0, 140.0, 140.0, 160.0])
    monkeypatch.setattr(bars, "time", SimpleNamespace(monotonic=lambda: next(moments)))
    with Output().bar("v3", 5, "steps") as bar:
        bar.advance(2.5)
        bar.advance(-1.5)
    first, last = capsys.readouterr().err.splitlines()
    assert first == "v3: 2.5 of 5, 16.0 s each, 40 s left"
    assert last.startswith("v3: 1 of 5, 60.0 s each")


@pytest.mark.parametrize("unit", ["bytes", "steps"])
def test_on_a_terminal_progress_is_a_bar(unit: Unit) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with bars.terminal_bar(console, "finetune [x]", 10, unit) as bar:
        bar.advance(4, "loss [red]0.5[/red]")
        bar.advance(6, "loss [red]0.4[/red]")
    drawn = console.file.getvalue()  # type: ignore[attr-defined]
    assert "finetune [x]" in drawn
    assert "[red]0.4" in drawn


def test_times_and_sizes() -> None:
    now = datetime(2026, 1, 10, tzinfo=UTC)
    assert ago(now - timedelta(seconds=5), now) == "5 s ago"
    assert ago(now + timedelta(days=3), now) == "in 3 d"
    assert ago(now - timedelta(hours=2), now) == "2 h ago"
    assert [size(n) for n in (5, 1500, 2.5e9, 3e12)] == ["5 B", "1.5 kB", "2.5 GB", "3.0 TB"]


@pytest.mark.parametrize("columns", [40, 200])
def test_a_name_is_whole_however_narrow_the_terminal(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("COLUMNS", str(columns))
    name = "a-community-with-a-long-name/模型-large-uncased"
    Output().table([], ["model", "base"], [[name, "v3"], ["a/b", "v0"]])
    assert name in stream.getvalue()
    assert ("base: v3\n\nmodel: a/b" in stream.getvalue()) == (columns == 40)


def test_a_bar_keeps_to_its_line_on_a_narrow_terminal() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=40, color_system=None)
    with bars.terminal_bar(console, "org/a-base v12", 90_000_000, "bytes") as bar:
        bar.advance(45_000_000, "a note")
    assert "\x1b[1A" not in stream.getvalue()


def test_without_progress_the_sentences_are_left(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output(progress=False)
    out.say("a sentence")
    with out.bar("upload", 1, "bytes") as bar:
        bar.advance(1)
    assert capsys.readouterr().err == "a sentence\n"


def test_words_of_the_command_line_are_read_as_utf_8_in_any_locale() -> None:
    assert typed("grün") == typed("gr\udcc3\udcbcn") == "grün"
    assert typed("gr\udcfcn") == "gr\ufffdn"
