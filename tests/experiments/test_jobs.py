"""Several processes make the seeds of a run; the run finds what they made."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments import jobs
from experiments.records import Record, read
from experiments.runs import JOBS, RECORDS, begin, perform
from tests.e2e.programs import wait_until
from tests.experiments.conftest import Inputs

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).parents[2]
PROTOCOL, SIZES = "fixed-examples", {"rounds": 1, "seeds": 2}


@given(st.integers(0, 99), st.integers(1, 100), st.integers(1, 200))
def test_seeds_are_divided_as_evenly_as_can_be(first: int, count: int, parts: int) -> None:
    seeds = range(first, first + count)
    found = jobs.divided(seeds, parts)
    assert [seed for part in found for seed in part] == list(seeds)
    assert len(found) == min(parts, count)
    assert max(map(len, found)) - min(map(len, found)) <= 1


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
    assert "2 processes in place of 3" in told
    assert "seed 0: " in told and "seed 1: " in told
    assert results(out) == results(whole)
    assert not (out / JOBS).exists()


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
    assert "seed 1: failed, and is left to this process: Error: no luck" in capsys.readouterr().err
    assert results(out) == results(whole)


def test_a_process_is_given_its_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr("torch.set_num_threads", chosen.append)
    monkeypatch.setattr(jobs, "available_cores", lambda: 8)
    jobs.share_cores(3)
    assert (os.environ[jobs.THREADS], chosen) == ("1", []), "who set it has chosen"
    monkeypatch.delenv(jobs.THREADS)
    jobs.share_cores(3)
    assert (os.environ[jobs.THREADS], chosen) == ("2", [2])


@pytest.mark.parametrize(
    ("device", "threads", "seeds", "wanted"),
    [
        ("cpu", None, 3, 3),
        ("cpu", None, 20, 8),
        ("cpu", "2", 20, 4),
        ("cpu", "16", 20, 1),
        ("cuda", None, 20, 1),
    ],
)
def test_a_run_has_a_process_for_each_core(
    device: str, threads: str | None, seeds: int, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coldfusion_shared.finetune.precision.device_kind", lambda: device)
    monkeypatch.setattr(jobs, "available_cores", lambda: 8)
    monkeypatch.delenv(jobs.THREADS)
    if threads:
        monkeypatch.setenv(jobs.THREADS, threads)
    assert jobs.usual(seeds) == wanted


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
    assert str(JOBS) not in said
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    assert not (out / JOBS).exists()


def _children(parent: int, count: int) -> list[str]:
    """Return the processes that another has started, once there are so many; Linux knows them."""
    found: list[str] = []
    for thread in Path(f"/proc/{parent}/task").glob("*/children"):
        # Threads come and go.
        with suppress(OSError):
            found += thread.read_text().split()
    return found if len(found) == count else []
