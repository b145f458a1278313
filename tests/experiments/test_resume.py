"""A run that was killed goes on with what lacks, and finds what it would have found."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from coldfusion_shared.errors import InvalidRequest
from experiments.cache import MADE
from experiments.data import Data
from experiments.locks import held
from experiments.planning import FEW
from experiments.records import Record, read
from experiments.runs import CACHE, RECORDS, RUN, begin, load, perform
from tests.experiments.conftest import Inputs
from tests.experiments.small import tiny_base, tiny_data

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).parents[2]
PROTOCOL = "federated"
# Of the run's finetunings; there are some more.
SOME = 2
WAIT_SECONDS = 300


def made(out: Path) -> dict[Path, int]:
    """Return which finetunings are there, and which files they are."""
    found = (out / CACHE).glob(f"finetune/*/*/{MADE}")
    # Not those that another process is making.
    return {path: path.stat().st_ino for path in found if not path.parent.name.startswith(".")}


def results(out: Path) -> list[Record]:
    """Return a run's records without what differs from one time to the next."""
    return [one.model_copy(update={"seconds": None}) for one in read(out / RECORDS)]


def test_a_killed_run_goes_on(inputs: Inputs, tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    for out in (killed, whole):
        begin(out, PROTOCOL, "tiny", inputs.base, inputs.data, {"seeds": 1}, "cpu")
    command = [sys.executable, "-m", "experiments", "resume", str(killed), "--quiet"]
    process = subprocess.Popen(command, cwd=ROOT, env=dict(os.environ))
    end = time.monotonic() + WAIT_SECONDS
    while len(made(killed)) < SOME and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was to be killed while it works"
    before = made(killed)
    assert len(before) >= SOME

    perform(killed, quiet=True)
    perform(whole, quiet=True)

    assert made(killed).items() >= before.items()
    assert len(made(killed)) == len(made(whole)) > len(before)
    assert results(killed) == results(whole)


def test_lines_that_were_made_apart_are_put_together(inputs: Inputs, tmp_path: Path) -> None:
    def run(name: str, **given: int) -> Path:
        out = tmp_path / name
        begin(out, "unseen", "tiny", inputs.base, inputs.data, {"rounds": 1, **given}, "cpu")
        perform(out, tmp_path / CACHE, quiet=True)
        return out

    first, second = run("first", seeds=1), run("second", seeds=1, first_seed=1)
    there = made(tmp_path)
    together = run("together", seeds=2)
    assert made(tmp_path) == there, "all of it was made before"
    scores = [one for one in results(together) if one.kind == "score"]
    apart = [one for out in (first, second) for one in results(out) if one.kind == "score"]
    assert sorted(scores, key=str) == sorted(apart, key=str)


def test_what_was_planned_is_what_is_done(inputs: Inputs, tmp_path: Path) -> None:
    begin(tmp_path, PROTOCOL, "tiny", inputs.base, inputs.data, {"seeds": 1}, "cpu")
    assert (perform(tmp_path, quiet=True, plan=True) or 0) > 0
    assert [entry.name for entry in tmp_path.iterdir()] == [RUN]
    planned = set(made(tmp_path))
    perform(tmp_path, quiet=True)
    found = results(tmp_path)
    perform(tmp_path, quiet=True, plan=True)
    assert results(tmp_path) == found, "a plan leaves what was found out"
    settings = begin(tmp_path, PROTOCOL, "tiny", inputs.base, inputs.data, {"seeds": 1}).settings
    done = set(made(tmp_path)) - planned
    assert len(done) == settings.rounds * settings.contributors


def test_data_sets_of_a_few_examples_can_be_planned_for(inputs: Inputs, tmp_path: Path) -> None:
    data, out = tiny_data(tmp_path / "data"), tmp_path / "run"
    for train in data.glob("*/train.jsonl"):
        train.write_text("".join(train.read_text().splitlines(keepends=True)[:FEW]))
    begin(out, PROTOCOL, "tiny", inputs.base, data, {"seeds": 1}, "cpu")
    assert (perform(out, quiet=True, plan=True) or 0) > 0


def test_another_run_is_not_written_over(inputs: Inputs, tmp_path: Path) -> None:
    begin(tmp_path, PROTOCOL, "tiny", inputs.base, inputs.data, {}, "cpu")
    with pytest.raises(InvalidRequest, match="another run.*settings differ"):
        begin(tmp_path, PROTOCOL, "tiny", inputs.base, inputs.data, {"rounds": 9}, "cpu")


def test_two_processes_are_not_at_one_run(inputs: Inputs, tmp_path: Path) -> None:
    begin(tmp_path, PROTOCOL, "tiny", inputs.base, inputs.data, {}, "cpu")
    (tmp_path / RECORDS).write_text("kept")
    with held(tmp_path), pytest.raises(InvalidRequest, match="Another process is at work"):
        perform(tmp_path, quiet=True)
    assert (tmp_path / RECORDS).read_text() == "kept"


def test_a_run_goes_on_with_its_cache(inputs: Inputs, tmp_path: Path) -> None:
    out, cache = tmp_path / "run", tmp_path / "shared"
    given = (PROTOCOL, "tiny", inputs.base, inputs.data, {"seeds": 1, "rounds": 1})
    begin(out, *given, cache=tmp_path / CACHE)
    perform(out, cache, quiet=True)
    assert load(out).cache == str(cache)
    there = sorted(cache.rglob(MADE))
    perform(out, quiet=True)
    # Where the cache is, is not what the run is of.
    assert begin(out, *given).cache == str(cache)
    assert there == sorted(cache.rglob(MADE)) == sorted(tmp_path.rglob(MADE))


def test_other_code_makes_it_anew_and_says_so(
    inputs: Inputs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = (PROTOCOL, "tiny", inputs.base, inputs.data, {"seeds": 1, "rounds": 1})
    begin(tmp_path, *given)
    perform(tmp_path)
    assert "code has changed" not in capsys.readouterr().err
    before = made(tmp_path)
    monkeypatch.setattr("experiments.digests.engine", lambda: "another")
    begin(tmp_path, *given)
    perform(tmp_path)
    assert "code has changed" in capsys.readouterr().err
    assert len(made(tmp_path)) == 2 * len(before)
    assert "engine/another" in load(tmp_path).code


def test_another_architecture_is_pinned_by_its_digest(inputs: Inputs, tmp_path: Path) -> None:
    other, out = tiny_base(tmp_path / "other"), tmp_path / "run"
    settings = {"other_base": str(other)}
    begin(out, "other-architecture", "tiny", inputs.base, inputs.data, settings, "cpu")
    (other / "config.json").write_text((other / "config.json").read_text() + "\n")
    with pytest.raises(InvalidRequest, match="not those that the run began with"):
        perform(out, quiet=True)


def test_another_architecture_is_found_from_another_folder(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_base(tmp_path / "other")
    monkeypatch.chdir(tmp_path)
    settings = {"other_base": "other"}
    begin(Path("run"), "other-architecture", "tiny", inputs.base, inputs.data, settings, "cpu")
    assert load(Path("run")).settings.other_base == str(tmp_path / "other")


def test_other_data_are_noticed(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(tmp_path, PROTOCOL, "tiny", inputs.base, inputs.data, {}, "cpu")
    monkeypatch.setattr(Data, "digests", lambda self: dict.fromkeys(self.names, "0" * 64))
    with pytest.raises(InvalidRequest, match="not those that the run began with"):
        perform(tmp_path, quiet=True)
