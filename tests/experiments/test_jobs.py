"""Several processes make the jobs of a run; the run finds what they made."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest

from experiments import jobs, runs
from experiments.progress import Clock
from experiments.records import Record, read
from experiments.runs import CACHE, RECORDS, RUN, begin, load, perform
from tests.e2e.programs import wait_until
from tests.experiments.conftest import Inputs

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).parents[2]
PROTOCOL, SIZES = "fixed-examples", {"rounds": 1, "seeds": 2}


def results(out: Path) -> list[Record]:
    """Return a run's records without what differs from one time to the next."""
    return [one.model_copy(update={"seconds": None}) for one in read(out / RECORDS)]


def begun(inputs: Inputs, out: Path, **given: Any) -> Path:
    begin(out, PROTOCOL, "tiny", inputs.base, inputs.data, {**SIZES, **given}, "cpu")
    return out


@pytest.fixture(scope="module")
def whole(one_thread: None, inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that one process has made."""
    out = begun(inputs, tmp_path_factory.mktemp("jobs") / "whole")
    perform(out, quiet=True)
    return out


def test_what_processes_made_is_found(
    inputs: Inputs,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def make(*_: Any) -> None:
        raise AssertionError("nothing was left to this process")

    out = begun(inputs, tmp_path / "run")
    monkeypatch.setattr("experiments.steps.finetuning.finetune", make)
    monkeypatch.setattr("experiments.steps.scoring.evaluate_base", make)
    monkeypatch.setattr("experiments.steps.fusing.fuse_folders", make)
    perform(out, jobs=3)
    told = capsys.readouterr().err
    assert all(f"process {number}: " in told for number in (1, 2, 3))
    # Each job was made once, by one of them, although they are of two seeds.
    made = re.findall(r"^process \d: (.+): [\d.]+ s; ", told, re.MULTILINE)
    assert len(made) == len(list((out / CACHE).glob("*/*/*/made.json")))
    assert results(out) == results(whole)
    assert {path.name for path in out.iterdir()} == {CACHE, RECORDS, RUN}


def test_a_signal_that_ended_a_process_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = list[tuple[str, str]]()
    clock = Clock(quiet=True)
    monkeypatch.setattr(clock, "others", lambda _: nullcontext(lambda *said: told.append(said)))
    monkeypatch.setattr(
        jobs, "COMMAND", (sys.executable, "-c", "import os; os.kill(os.getpid(), 9)")
    )
    jobs.work_together(tmp_path, 1, clock)
    assert told == [("process 1", "failed; the others do its part: ended by SIGKILL")]


def test_what_a_process_cannot_do_is_done_here(
    inputs: Inputs,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(jobs, "COMMAND", (sys.executable, "-c", "exit('Error: no luck')"))
    out = begun(inputs, tmp_path / "run")
    perform(out, jobs=2)
    assert "process 1: failed; the others do its part: Error: no luck" in capsys.readouterr().err
    assert results(out) == results(whole)


@pytest.mark.parametrize(
    ("device", "threads", "cores", "wanted"),
    [("cpu", 1, 3, 3), ("cpu", 2, 8, 4), ("cpu", 16, 8, 1), ("cpu", 1, 64, 8), ("cuda", 1, 8, 1)],
)
def test_a_run_has_processes_for_all_cores(
    device: str, threads: int, cores: int, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coldfusion_shared.finetune.precision.device_kind", lambda: device)
    monkeypatch.setattr(jobs, "available_cores", lambda: cores)
    assert jobs.usual(threads) == wanted


@pytest.mark.parametrize(("cores", "told"), [(1, False), (64, True)])
def test_cores_that_a_run_leaves_idle_are_told_of(
    cores: int,
    told: bool,
    inputs: Inputs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(jobs, "available_cores", lambda: cores)
    monkeypatch.setattr(jobs, "MOST_USUAL", 1)
    perform(begun(inputs, tmp_path, seeds=1), inputs.cache, jobs=None)
    assert ("OMP_NUM_THREADS=64" in capsys.readouterr().err) == told


@pytest.mark.parametrize(
    ("said", "threads"),
    [(None, 1), ("", 1), ("2", 2), (" 2 ", 2), ("3,1", 3), ("0", 1), ("-4", 1), ("many", 1)],
)
def test_a_run_keeps_the_threads_that_it_began_with(
    said: str | None,
    threads: int,
    inputs: Inputs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen: list[int] = []
    monkeypatch.setattr("torch.set_num_threads", chosen.append)
    monkeypatch.setattr("experiments.planning.estimated", lambda _: 1.0)
    monkeypatch.delenv(jobs.THREADS)
    if said is not None:
        monkeypatch.setenv(jobs.THREADS, said)
    begun(inputs, tmp_path)
    monkeypatch.setenv(jobs.THREADS, "7")
    begun(inputs, tmp_path)
    assert perform(tmp_path, plan=True, quiet=True) == 1.0
    assert (os.environ[jobs.THREADS], chosen) == (str(threads), [threads])


def test_what_other_threads_made_is_made_anew(inputs: Inputs, tmp_path: Path) -> None:
    run = load(begun(inputs, tmp_path))
    machines = {
        threads: runs._lab(tmp_path, run.model_copy(update={"threads": threads}), Clock()).machine
        for threads in (None, 1, 2, 3)
    }
    # A GPU has none of its own to speak of; one thread is what there is without a word.
    assert machines[None] == machines[1]
    assert len(set(machines.values())) == 3


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_them_all(how: signal.Signals, inputs: Inputs, tmp_path: Path) -> None:
    out = begun(inputs, tmp_path / "a run")
    command = [sys.executable, "-m", "experiments", "resume", str(out), "--jobs", "2"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        children = wait_until(lambda: _children(process.pid, 2), "two processes")
        process.send_signal(how)
        said = process.communicate(timeout=120)[1]
    finally:
        process.kill()
    assert process.returncode == 130
    assert f"Go on with: python -m experiments resume '{out}'" in said
    assert not any(Path(f"/proc/{child}").exists() for child in children)


def _children(parent: int, count: int) -> list[str]:
    """Return the processes that another has started, once there are so many; Linux knows them."""
    found: list[str] = []
    for thread in Path(f"/proc/{parent}/task").glob("*/children"):
        # Threads come and go.
        with suppress(OSError):
            found += thread.read_text().split()
    return found if len(found) == count else []
