"""Scheduler and worker as processes of their own: how they end, and who sees that they hang."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import httpx
import pytest

from coldfusion_server.db.tables import LeaseRow, RoundRow
from coldfusion_server.scheduler import run_scheduler
from coldfusion_server.services import closing
from coldfusion_server.services.heartbeat import Heartbeat, Part, WorkStopped
from coldfusion_server.services.probes import examine_process
from coldfusion_server.settings import Settings
from coldfusion_server.worker import run_worker, work_once
from coldfusion_shared.errors import ConfigurationError, DatabaseUnavailable
from coldfusion_shared.rounds import RoundState
from tests.e2e.programs import BIN, wait_until
from tests.ports import free_ports
from tests.server.repository import Repository, body_file, repository

LONG_AGO = 1_000_000_000


class Leave:
    """A pulse that ends the work at its `count`-th beat."""

    def __init__(self, count: int) -> None:
        self.left = count

    def __call__(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise WorkStopped


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    with repository(tmp_path / "data") as opened:
        opened.model(min_contributions=2)
        yield opened


def beats_of(repo: Repository) -> int:
    """Let a worker do one piece of work; return how often it beat."""
    many = Leave(10**9)
    assert work_once(replace(repo.ctx, pulse=many), "counting")
    return 10**9 - many.left


def free_leases(repo: Repository) -> bool:
    with repo.ctx.database.read() as session:
        return all(row.expires_at <= repo.ctx.now() for row in session.query(LeaseRow))


def test_a_worker_that_is_told_to_end_gives_its_screening_back_at_once(repo: Repository) -> None:
    repo.contributor().contribute(body_file(1))
    beats = beats_of(repo)
    assert beats > 2
    for at in range(beats - 1):
        waiting = repo.contributor(f"c{at}").contribute(body_file(10 + at))
        with pytest.raises(WorkStopped):
            work_once(replace(repo.ctx, pulse=Leave(at)), "leaving")
        assert free_leases(repo)
        # The clock stands still: another one need not wait for a lease to run out.
        assert work_once(repo.ctx, "another")
        assert repo.contributor().receipt(waiting)["state"] == "accepted"


def test_a_worker_that_is_told_to_end_gives_its_fuse_back_and_the_round_has_not_failed(
    repo: Repository,
) -> None:
    for seed in (1, 2):
        repo.contributor(f"c{seed}").contribute(body_file(seed))
    assert work_once(repo.ctx, "screening") and work_once(repo.ctx, "screening")
    closing.close_due(repo.ctx)
    for at in range(3):
        with pytest.raises(WorkStopped):
            work_once(replace(repo.ctx, pulse=Leave(at)), "leaving")
        assert free_leases(repo)
        with repo.ctx.database.read() as session:
            row = session.query(RoundRow).one()
            assert (row.state, row.attempts, row.reason) == (RoundState.FUSING, 1, None)
    assert list((repo.folder / "tmp").iterdir()) == [], "nothing half written is left"
    assert work_once(repo.ctx, "another")
    assert repo.get("/v1/models/demo/tiny")["current"] == "v1"


# The sign of life.


def settings_in(folder: Path, **values: float) -> Settings:
    return Settings(data_dir=folder / "data", run_dir=folder / "run", **values)  # type: ignore[arg-type]


def test_silence_is_told_from_work(tmp_path: Path) -> None:
    settings, stop = settings_in(tmp_path), Event()
    file = tmp_path / "run" / "worker.heartbeat"
    file.parent.mkdir()
    file.touch()
    with Heartbeat(settings, Part.WORKER, stop) as beat:
        found = examine_process(settings, Part.WORKER)
        assert not found.ok and "nothing without an error" in found.message, "an earlier process's"
        beat()
        assert examine_process(settings, Part.WORKER).ok
        assert not examine_process(settings, Part.SCHEDULER).ok
        os.utime(file, (LONG_AGO, LONG_AGO))
        found = examine_process(settings, Part.WORKER)
        assert not found.ok and "last sign of life" in found.message and found.hint
        stop.set()
        with pytest.raises(WorkStopped):
            beat()
    assert not file.exists()


def test_a_pause_that_was_asked_for_is_no_silence(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, worker_seconds=1e10)
    with Heartbeat(settings, Part.WORKER, Event()) as beat:
        beat()
        os.utime(tmp_path / "run" / "worker.heartbeat", (LONG_AGO, LONG_AGO))
        assert examine_process(settings, Part.WORKER).ok


def test_where_no_folder_is_set_nobody_can_tell(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="run_dir"):
        examine_process(Settings(data_dir=tmp_path), Part.WORKER)
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ConfigurationError, match="cannot be used"),
        Heartbeat(Settings(run_dir=tmp_path / "file"), Part.WORKER, Event()),
    ):
        pass


@pytest.mark.parametrize(
    ("work", "part"), [(run_worker, Part.WORKER), (run_scheduler, Part.SCHEDULER)]
)
def test_a_loop_that_only_fails_does_not_look_well(
    work: object, part: Part, repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = repo.settings.model_copy(
        update={"run_dir": tmp_path / "run", "worker_seconds": 0.01, "scheduler_seconds": 0.01}
    )
    ctx = replace(repo.ctx, settings=settings)
    tries, stop = [], Event()

    def fail(*_: object) -> bool:
        tries.append(1)
        if len(tries) > 3:
            stop.set()
        raise DatabaseUnavailable("It is away.")

    monkeypatch.setattr("coldfusion_server.worker.go_on_next", fail)
    monkeypatch.setattr("coldfusion_server.scheduler.closing.close_due", fail)
    thread = Thread(target=work, args=(ctx, stop))  # type: ignore[arg-type]
    thread.start()
    thread.join(300)
    assert len(tries) > 3
    assert not examine_process(settings, part).ok


# The programs.


@contextmanager
def program(folder: Path, *words: str, **settings: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command on the Repository in `folder`, with settings from the environment."""
    environment = {**os.environ, "COLDFUSION_DATA_DIR": str(folder / "data")}
    environment |= {"COLDFUSION_RUN_DIR": str(folder / "run"), "COLDFUSION_LOG_JSON": "true"}
    environment |= {f"COLDFUSION_{name.upper()}": value for name, value in settings.items()}
    process = subprocess.Popen(
        [BIN / "coldfusion-server", *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def outcome(folder: Path, *words: str, **settings: str) -> tuple[int, str, str]:
    with program(folder, *words, **settings) as process:
        output, errors = process.communicate(timeout=300)
        return process.returncode, output, errors


@pytest.mark.parametrize("part", ["scheduler", "worker"])
def test_a_part_alone_lives_hangs_and_ends(part: str, tmp_path: Path) -> None:
    status, _, errors = outcome(tmp_path, part)
    assert status == 1 and "coldfusion-server migrate" in errors
    assert outcome(tmp_path, "migrate")[0] == 0
    file = tmp_path / "run" / f"{part}.heartbeat"
    with program(tmp_path, part) as process:
        wait_until(file.exists, "a sign of life")
        assert outcome(tmp_path, "health", part)[0] == 0
        # Stopped as if it hung: nothing touches the file, and time goes by.
        process.send_signal(signal.SIGSTOP)
        os.utime(file, (LONG_AGO, LONG_AGO))
        status, output, _ = outcome(tmp_path, "health", part, "--json")
        assert status == 1 and json.loads(output)["ok"] is False
        process.send_signal(signal.SIGCONT)
        wait_until(lambda: file.stat().st_mtime > LONG_AGO, "another sign of life")
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0
    events = [json.loads(line) for line in errors.splitlines()]
    assert [event["event"] for event in events] == ["started", "stopped"], errors
    assert outcome(tmp_path, "health", part)[0] == 1


def test_the_api_is_asked_and_believes_the_proxy_that_it_is_told_of(tmp_path: Path) -> None:
    port = str(free_ports(1)[0])
    status, output, _ = outcome(tmp_path, "health", "api", port=port)
    assert status == 1 and "Nothing answers" in output
    words = ("up", "--no-scheduler", "--no-worker", "--no-first-token")
    for proxies, scheme in (("*", "https"), ("192.0.2.0/24", "http")):
        settings = {"port": port, "trusted_proxies": proxies, "host": "0.0.0.0"}
        with program(tmp_path, *words, **settings) as process:
            assert process.stdout is not None
            shown = [process.stdout.readline() for _ in range(3)]
            assert not any("token" in line for line in shown)
            assert outcome(tmp_path, "health", "api", **settings)[0] == 0
            answer = httpx.get(
                f"http://127.0.0.1:{port}/v1/models/",
                headers={"X-Forwarded-Proto": "https", "X-Forwarded-For": "198.51.100.7"},
                trust_env=False,
                timeout=120,
            )
            assert answer.headers["location"].startswith(f"{scheme}://"), answer.text
