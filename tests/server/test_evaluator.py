"""The Repository's own evaluator: what it measures, what it leaves, how it ends and goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from coldfusion_server import supervisor
from coldfusion_server.db.tables import EvaluationTryRow, LeaseRow
from coldfusion_server.evaluator import FOLDER, evaluate_once, prepare, run_evaluator, try_again
from coldfusion_server.services import evaluations, holding, leases
from coldfusion_server.services.evaluation_tries import DIED, MAX_TRIES
from coldfusion_server.services.heartbeat import Part, WorkStopped
from coldfusion_server.services.measuring import Task
from coldfusion_server.services.probes import examine_process
from coldfusion_server.services.tokens import create_token
from coldfusion_shared.errors import (
    DatabaseUnavailable,
    EvaluationFailed,
    InvalidRequest,
    LeaseLost,
    StorageUnavailable,
    SuiteChanged,
)
from coldfusion_shared.schemas.evaluations import EvaluationReport
from coldfusion_shared.schemas.tokens import Role
from coldfusion_shared.weights.digests import file_sha256
from tests.e2e.programs import Server, wait_until
from tests.server.backends import both_databases
from tests.server.measured import report, suite, write_films
from tests.server.repository import MODEL, Json, Repository
from tests.tiny_models import tiny_bert


@dataclass
class Fake:
    """Measures what it is told to, and keeps what it was given."""

    faults: list[BaseException] = field(default_factory=list)
    seen: list[dict[str, str]] = field(default_factory=list)
    during: Callable[[Path], None] = lambda folder: None

    def __call__(
        self, folder: Path, moved: Callable[[], None], base: Path | None = None
    ) -> EvaluationReport:
        self.seen.append({path.name: file_sha256(path) for path in folder.iterdir()})
        moved()
        self.during(folder)
        moved()
        if self.faults:
            raise self.faults.pop(0)
        return report(suite())


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
def task(repo: Repository, fake: Fake) -> Task:
    return prepare(repo.ctx, suite(), "frozen", 3, lambda kept: fake)


def posted(repo: Repository, model: str = MODEL) -> list[Json]:
    found: list[Json] = repo.get(f"/v1/models/{model}/bases/v0/evaluations")
    return found


def failures(repo: Repository) -> list[Json]:
    return [e["data"] for e in repo.get("/v1/events") if e["type"] == "evaluation.failed"]


def tries(repo: Repository) -> list[int]:
    with repo.ctx.database.read() as session:
        return [row.attempts for row in session.query(EvaluationTryRow)]


def reasons(repo: Repository) -> list[str | None]:
    with repo.ctx.database.read() as session:
        return [row.reason for row in session.query(EvaluationTryRow)]


def free(repo: Repository) -> bool:
    with repo.ctx.database.read() as session:
        return all(row.expires_at <= repo.clock.now for row in session.query(LeaseRow))


def nothing_left(task: Task) -> bool:
    return list(task.folder.iterdir()) == []


def test_a_base_is_measured_once_from_verified_files(
    repo: Repository, task: Task, fake: Fake
) -> None:
    assert evaluate_once(repo.ctx, task, "a") and not evaluate_once(repo.ctx, task, "a")
    (kept,) = posted(repo)
    assert (kept["evaluator"], kept["suite_digest"]) == ("repository", suite().digest())
    base = repo.get(f"/v1/models/{MODEL}/bases/v0")
    assert fake.seen == [{f["path"]: f["sha256"] for f in base["manifest"]["files"]}]
    assert tries(repo) == [] and nothing_left(task) and free(repo)
    assert repo.get("/v1/suites/text-2")["registered_by"] == "repository"


@both_databases
def test_newest_bases_come_first_and_private_ones_too(repo: Repository, fake: Fake) -> None:
    repo.model("demo/second", public=False)
    repo.model("demo/third")
    order: list[str] = []
    task = prepare(repo.ctx, suite(), "frozen", 3, lambda kept: fake)
    for _ in range(3):
        assert evaluate_once(repo.ctx, task, "a")
    token = repo.token("r", "reader")
    for event in repo.get("/v1/events", token):
        if event["type"] == "evaluation.posted":
            order.append(event["model"])
    assert order == ["demo/third", "demo/second", MODEL]


def seeds_of(count: int) -> Json:
    names = ("reviews", "questions")
    return {"seeds": list(range(count)), "by_seed": {name: [80.0] * count for name in names}}


def test_what_others_have_measured_does_not_count(repo: Repository, task: Task, fake: Fake) -> None:
    path = f"/v1/models/{MODEL}/bases/v0/evaluations"
    client = repo.client(repo.token("eva", "evaluator"))
    for one in (report(), report(suite(), **seeds_of(1)), report(suite(), **seeds_of(9))):
        assert client.post(path, json=one.model_dump(mode="json")).status_code == 201
    assert evaluate_once(repo.ctx, task, "a") and not evaluate_once(repo.ctx, task, "a")
    assert len(fake.seen) == 1


def test_what_it_has_measured_with_fewer_seeds_or_otherwise_does_not_count(
    repo: Repository, task: Task, fake: Fake
) -> None:
    others = (report(suite(), **seeds_of(2)), report(suite(), protocol="finetuned"))
    for one in others:
        evaluations.post_evaluation(repo.ctx, MODEL, "v0", one, task.who)
    assert evaluate_once(repo.ctx, task, "a") and not evaluate_once(repo.ctx, task, "a")
    fewer = prepare(repo.ctx, suite(), "frozen", 2, lambda kept: fake)
    assert not evaluate_once(repo.ctx, fewer, "a"), "it was measured with more"
    more = prepare(repo.ctx, suite(), "frozen", 4, lambda kept: fake)
    assert evaluate_once(repo.ctx, more, "a")


@pytest.mark.parametrize("name", ["repository", "Repository", "REPOSITORY"])
def test_nobody_else_may_be_called_as_it_is(name: str, repo: Repository, task: Task) -> None:
    with pytest.raises(InvalidRequest, match="own evaluator") as refused:
        create_token(repo.ctx, name, Role.EVALUATOR)
    assert refused.value.hint


def test_another_suite_of_the_name_ends_it_at_the_start(repo: Repository, fake: Fake) -> None:
    prepare(repo.ctx, suite(), "frozen", 3, lambda kept: fake)
    prepare(repo.ctx, suite(), "finetuned", 3, lambda kept: fake)
    with pytest.raises(SuiteChanged):
        prepare(repo.ctx, suite(max_length=64), "frozen", 3, lambda kept: fake)


def test_a_failure_is_tried_again_with_pauses(repo: Repository, task: Task, fake: Fake) -> None:
    fake.faults = [EvaluationFailed("The score is no number."), ZeroDivisionError()]
    assert evaluate_once(repo.ctx, task, "a")
    assert not evaluate_once(repo.ctx, task, "a"), "not at once"
    repo.clock.advance(seconds=30)
    assert evaluate_once(repo.ctx, task, "a")
    repo.clock.advance(seconds=60)
    assert not evaluate_once(repo.ctx, task, "a"), "the second pause is longer"
    repo.clock.advance(seconds=60)
    assert evaluate_once(repo.ctx, task, "a")
    assert len(posted(repo)) == 1 and failures(repo) == [] and nothing_left(task)


def test_what_always_fails_is_left_and_holds_up_no_other(
    repo: Repository, task: Task, fake: Fake
) -> None:
    older = MODEL
    repo.model("demo/broken")
    fake.faults = [EvaluationFailed("The score is no number.")]
    assert evaluate_once(repo.ctx, task, "a") and evaluate_once(repo.ctx, task, "a")
    assert len(posted(repo, older)) == 1
    fake.faults = [EvaluationFailed("The score is no number.")] * MAX_TRIES
    for _ in range(MAX_TRIES + 2):
        repo.clock.advance(hours=1)
        evaluate_once(repo.ctx, task, "a")
        assert reasons(repo) == ["The score is no number."]
    assert len(fake.seen) == MAX_TRIES + 1
    assert posted(repo, "demo/broken") == []
    assert failures(repo) == [
        {
            "version": "v0",
            "suite": "text-2",
            "protocol": "frozen",
            "reason": "The score is no number.",
        }
    ]
    fake.faults = []
    try_again(repo.ctx, task)
    assert evaluate_once(repo.ctx, task, "a")
    assert len(posted(repo, "demo/broken")) == 1
    assert reasons(repo) == []


PATHS = {
    "{folder}/config.json: no JSON": "its folder/config.json: no JSON",
    "in '{folder}' is no model": "in 'its folder' is no model",
    "[Errno 2] No such file: '/srv/x/vocab.txt'": "[Errno 2] No such file: 'vocab.txt'",
    "~/.cache/hub/a.bin and file:///home/op/b.bin": "a.bin and file://b.bin",
    "C:\\Users\\op\\c.bin": "c.bin",
    "see https://a.example/docs/x/y, or models/lab/one": "see https://a.example/docs/x/y, or "
    "models/lab/one",
    "two\nlines\0and more": "two lines and more",
    "x" * 600: "x" * 500 + "...",
}


@pytest.mark.parametrize("said", list(PATHS))
def test_a_reason_names_no_folder_of_the_machine(
    said: str, repo: Repository, task: Task, fake: Fake
) -> None:
    def fail(folder: Path) -> None:
        raise EvaluationFailed(said.format(folder=folder))

    fake.during = fail
    assert evaluate_once(repo.ctx, task, "a")
    assert reasons(repo) == [PATHS[said]]


class Killed(BaseException):
    """What ends the process cannot be caught; this leaves the database as that does."""


def killed(repo: Repository, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an evaluator die in the middle: no lease is given back, no folder removed."""
    with monkeypatch.context() as patch:
        patch.setattr(leases, "release", lambda ctx, lease: None)
        patch.setattr("coldfusion_server.services.measuring.shutil.rmtree", lambda *_, **__: None)
        with pytest.raises(Killed):
            evaluate_once(repo.ctx, task, "killed")


@both_databases
def test_what_kills_the_evaluator_is_left_after_some_tries(
    repo: Repository, task: Task, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.faults = [Killed() for _ in range(MAX_TRIES)]
    for number in range(MAX_TRIES):
        killed(repo, task, monkeypatch)
        assert not evaluate_once(repo.ctx, task, "a"), "the dead one's lease has not run out"
        repo.clock.advance(seconds=31)
        if number in (1, 2):
            assert not evaluate_once(repo.ctx, task, "a"), "who restarts at once has to wait"
            repo.clock.advance(seconds=30 * 4**number)
    assert evaluate_once(repo.ctx, task, "a")
    assert [failure["reason"] for failure in failures(repo)] == [DIED]
    assert reasons(repo) == [None]
    assert not evaluate_once(repo.ctx, task, "a")
    assert len(fake.seen) == MAX_TRIES and nothing_left(task)


@both_databases
def test_what_a_killed_evaluator_leaves_is_removed_when_its_lease_has_run_out(
    repo: Repository, task: Task, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.faults = [Killed()]
    killed(repo, task, monkeypatch)
    (task.folder / "junk").write_text("not ours, and no folder")
    evaluations.post_evaluation(repo.ctx, MODEL, "v0", report(suite()), task.who)
    assert not evaluate_once(repo.ctx, task, "a")
    assert len(list(task.folder.iterdir())) == 2, "somebody may be at it"
    repo.clock.advance(minutes=1)
    assert not evaluate_once(repo.ctx, task, "a")
    assert [path.name for path in task.folder.iterdir()] == ["junk"]


def test_a_store_that_is_away_counts_as_no_try(
    repo: Repository, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise StorageUnavailable("The store is away.")

    with monkeypatch.context() as patch:
        patch.setattr(repo.ctx.store, "source", away)
        for _ in range(MAX_TRIES + 2):
            assert not evaluate_once(repo.ctx, task, "a")
            repo.clock.advance(minutes=1)
    assert tries(repo) == [0]
    assert evaluate_once(repo.ctx, task, "a") and len(posted(repo)) == 1


def test_damaged_objects_are_not_measured(repo: Repository, task: Task, fake: Fake) -> None:
    files = repo.get(f"/v1/models/{MODEL}/bases/v0")["manifest"]["files"]
    (entry,) = [file for file in files if file["path"] == "model.safetensors"]
    path = repo.ctx.store.local_path(entry["sha256"])
    assert path is not None
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)
    for _ in range(MAX_TRIES):
        assert evaluate_once(repo.ctx, task, "a")
        repo.clock.advance(hours=1)
    (failure,) = failures(repo)
    assert "model.safetensors" in failure["reason"] and "damaged" in failure["reason"]
    assert fake.seen == [] and nothing_left(task)


def test_a_stop_leaves_the_base_to_others_and_counts_as_no_try(
    repo: Repository, task: Task, fake: Fake
) -> None:
    stop = threading.Event()
    fake.during = lambda folder: stop.set()
    thread = threading.Thread(target=run_evaluator, args=(repo.ctx, stop, task))
    thread.start()
    thread.join(300)
    assert not thread.is_alive()
    assert tries(repo) == [0] and free(repo) and nothing_left(task) and posted(repo) == []
    fake.during = lambda folder: None
    assert evaluate_once(repo.ctx, task, "another") and len(posted(repo)) == 1


def test_a_stop_amid_a_step_that_cannot_be_left_counts_as_no_try(
    repo: Repository, task: Task, fake: Fake
) -> None:
    inside, go, stop = threading.Event(), threading.Event(), threading.Event()

    def step(folder: Path) -> None:
        inside.set()
        assert go.wait(300)

    fake.during = step
    thread = threading.Thread(target=run_evaluator, args=(repo.ctx, stop, task))
    thread.start()
    try:
        assert inside.wait(300) and tries(repo) == [1]
        stop.set()
        # The process may be killed from now on.
        wait_until(lambda: tries(repo) == [0], "the try to be given back")
    finally:
        go.set()
        thread.join(300)
    assert not thread.is_alive() and posted(repo) == [] and tries(repo) == [0]
    fake.during = lambda folder: None
    assert evaluate_once(repo.ctx, task, "another") and len(posted(repo)) == 1


def test_an_evaluator_that_only_fails_does_not_look_well(
    repo: Repository, task: Task, fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"run_dir": tmp_path / "run", "worker_seconds": 0.01}
    ctx = replace(repo.ctx, settings=repo.settings.model_copy(update=changes))
    stop, looks = threading.Event(), []

    def away(*_: object) -> bool:
        looks.append(examine_process(ctx.settings, Part.EVALUATOR).ok)
        if len(looks) == 4:
            stop.set()
        if len(looks) == 2:
            return False
        raise DatabaseUnavailable("It is away.")

    monkeypatch.setattr("coldfusion_server.evaluator.measure_next", away)
    run_evaluator(ctx, stop, task)
    assert looks == [False, False, True, True]


@both_databases
def test_of_two_evaluators_one_measures(repo: Repository, task: Task, fake: Fake) -> None:
    inside, go = threading.Event(), threading.Event()

    def wait(folder: Path) -> None:
        inside.set()
        assert go.wait(300)

    fake.during = wait
    thread = threading.Thread(target=evaluate_once, args=(repo.ctx, task, "a"))
    thread.start()
    assert inside.wait(300)
    assert not evaluate_once(repo.ctx, task, "b")
    go.set()
    thread.join(300)
    assert len(posted(repo)) == len(fake.seen) == 1


@both_databases
def test_who_lost_the_lease_hands_nothing_in(repo: Repository, task: Task, fake: Fake) -> None:
    def paused(folder: Path) -> None:
        # It was asleep for a minute, and another one has begun meanwhile.
        repo.clock.advance(minutes=1)
        (lease,) = [row.key for row in _leases(repo) if row.key.startswith("evaluation:")]
        assert leases.acquire(repo.ctx, lease, "another") is not None

    fake.during = paused
    assert evaluate_once(repo.ctx, task, "a")
    assert posted(repo) == [] and tries(repo) == [1]


def _leases(repo: Repository) -> list[LeaseRow]:
    with repo.ctx.database.read() as session:
        return list(session.query(LeaseRow))


# The lease of work that says nothing for a while.


def held(repo: Repository, **more: Any) -> tuple[leases.Lease, holding.Holding]:
    lease = leases.acquire(repo.ctx, "evaluation:1:frozen:x", "a")
    assert lease is not None
    settings = repo.settings.model_copy(update={"lease_seconds": 1.0})
    return lease, holding.Holding(replace(repo.ctx, settings=settings), lease, **more)


SECOND = timedelta(seconds=1)


def expiry(repo: Repository) -> Any:
    (row,) = _leases(repo)
    return row.expires_at


@both_databases
def test_a_lease_is_renewed_while_the_work_is_silent(repo: Repository) -> None:
    _, holds = held(repo)
    with holds:
        for _ in range(2):
            repo.clock.advance(hours=1)
            wait_until(lambda: expiry(repo) == repo.clock.now + SECOND, "the renewal")
        assert leases.acquire(repo.ctx, "evaluation:1:frozen:x", "b") is None
        holds()


def test_work_that_hangs_loses_its_lease(repo: Repository) -> None:
    before = (held(repo, silence=0.0), expiry(repo))
    with before[0][1] as holds:
        wait_until(lambda: not holds.thread.is_alive(), "the end of renewals")
    assert expiry(repo) == before[1]


@both_databases
def test_the_work_hears_that_its_lease_is_lost(repo: Repository) -> None:
    _, holds = held(repo)
    with holds:
        taken = None
        while taken is None:  # It may have been renewed since the clock went on.
            repo.clock.advance(hours=1)
            taken = leases.acquire(repo.ctx, "evaluation:1:frozen:x", "b")
        wait_until(lambda: holds.lost, "the loss")
        with pytest.raises(LeaseLost):
            holds()


def test_the_work_hears_that_it_is_to_stop(repo: Repository) -> None:
    def stopped() -> None:
        raise WorkStopped

    lease = leases.acquire(repo.ctx, "key", "a")
    assert lease is not None
    holds = holding.Holding(replace(repo.ctx, pulse=stopped), lease)
    with holds, pytest.raises(WorkStopped):
        holds()


# A child process beside.

CHILD = "import pathlib, os, time; pathlib.Path({path!r}).open('a').write(f'{{os.getpid()}}\\n'); "
ORPHAN = "from coldfusion_server.supervisor import end_with_parent; end_with_parent(); "
# Neither SIGTERM nor Python's own end of a process reaches it.
STUBBORN = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]); "


def pids(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def reached(path: Path, count: int) -> bool:
    return len(pids(path)) == count


def alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return status != "Z"


def test_a_child_is_started_again_and_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 0.05)
    path, stop = tmp_path / "pids", threading.Event()
    code = CHILD.format(path=str(path)) + "time.sleep(600)"
    arguments = ("child", [sys.executable, "-c", code], stop)
    thread = threading.Thread(target=supervisor.supervise, args=arguments)
    thread.start()
    for count in (1, 2, 3):
        wait_until(partial(reached, path, count), "another child")
        if count < 3:
            os.kill(pids(path)[-1], signal.SIGKILL)
    stop.set()
    thread.join(300)
    assert not thread.is_alive()
    assert not any(alive(pid) for pid in pids(path))


def test_what_a_child_is_told_once_it_is_told_at_its_first_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 0.05)
    path, stop = tmp_path / "said", threading.Event()
    code = f"import sys; open({str(path)!r}, 'a').write(' '.join(sys.argv[1:]) + '.')"
    command = [sys.executable, "-c", code, "always"]
    arguments = ("child", command, stop, ("--once",))
    thread = threading.Thread(target=supervisor.supervise, args=arguments)
    thread.start()
    wait_until(lambda: path.exists() and path.read_text().count(".") > 2, "three starts")
    stop.set()
    thread.join(300)
    assert path.read_text().startswith("always --once.always.always.")


def test_a_child_may_take_some_seconds_to_end(tmp_path: Path) -> None:
    path, stop = tmp_path / "pids", threading.Event()
    slowly = f"(time.sleep(3), open({str(tmp_path / 'ended')!r}, 'w').close(), os._exit(0))"
    code = f"import signal; signal.signal(15, lambda *_: {slowly}); "
    code = CHILD.format(path=str(path)).replace("; ", f"; {code}", 1) + "time.sleep(600)"
    arguments = ("child", [sys.executable, "-c", code], stop)
    thread = threading.Thread(target=supervisor.supervise, args=arguments)
    thread.start()
    wait_until(lambda: pids(path), "the child")
    stop.set()
    thread.join(300)
    assert (tmp_path / "ended").exists()


@pytest.mark.parametrize("how", ["", STUBBORN])
def test_a_child_does_not_outlive_a_parent_that_is_killed(how: str, tmp_path: Path) -> None:
    path = tmp_path / "pids"
    soon = "import coldfusion_server.supervisor as s; s.ORPHAN_SECONDS = 1; "
    code = soon + ORPHAN + how + CHILD.format(path=str(path)) + "time.sleep(600)"
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, threading; from coldfusion_server.supervisor import supervise; "
            "supervise('child', [sys.executable, '-c', sys.argv[1]], threading.Event())",
            code,
        ],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: pids(path), "the child")
        (child,) = pids(path)
        assert alive(child)
    finally:
        parent.kill()
        parent.wait()
    wait_until(lambda: not alive(child), "the child's end")


# The real programs.

# Its evaluator lets all others go first, and loads torch; on a busy machine that takes minutes.
PATIENCE_SECONDS = 400


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """A suite file of one small data set."""
    return write_films(tmp_path / "suite")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    settings = {
        "COLDFUSION_LOG_JSON": "true",
        "COLDFUSION_LEASE_SECONDS": "1",
        "OMP_NUM_THREADS": "1",
    }
    made = Server(tmp_path / "data", settings=settings)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.end()


def patiently(condition: Callable[[], Any], what: str) -> Any:
    """Poll until `condition` is true and return its value."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.3)
    raise AssertionError(f"waited in vain for {what}")


def told(log: Path, what: str, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, log.read_text()
    return what in log.read_text()


def log_of(server: Server) -> str:
    return (server.data_dir.parent / "server.log").read_text()


def children(server: Server) -> list[int]:
    assert server.process is not None
    found: list[int] = []
    for task in Path(f"/proc/{server.process.pid}/task").iterdir():
        # A thread may end while it is looked at.
        with suppress(OSError):
            found += map(int, (task / "children").read_text().split())
    return found


def commands_with(word: str) -> Iterator[int]:
    """Yield which processes of this machine have `word` on their command lines."""
    for folder in Path("/proc").glob("[0-9]*"):
        # It may end while it is looked at.
        with suppress(OSError):
            if word.encode() in (folder / "cmdline").read_bytes():
                yield int(folder.name)


def evaluated(server: Server, model: str) -> list[Json]:
    found: list[Json] = server.get(f"/models/{model}/bases/v0/evaluations")
    return found


def test_up_measures_every_base_and_goes_on_when_its_evaluator_is_killed(
    server: Server, films: Path, tmp_path: Path
) -> None:
    server.options = ("--evaluate", str(films), "--again")
    server.start()
    pretrained = tiny_bert(tmp_path / "pretrained")
    server.command("model", "create", "lab/one", "--from", str(pretrained), "--public")
    patiently(lambda: '"evaluating"' in log_of(server), "the first evaluation's beginning")
    (child,) = children(server)
    os.kill(child, signal.SIGKILL)
    (kept,) = patiently(lambda: evaluated(server, "lab/one"), "scores after the kill")
    assert (kept["evaluator"], kept["suite"], kept["protocol"]) == ("repository", "films", "frozen")
    assert kept["seeds"] == [0, 1, 2] and len(kept["by_seed"]["films"]) == 3
    assert server.get("/suites/films")["digest"] == kept["suite_digest"]
    # The next base, by the child that was started again.
    server.command("model", "create", "lab/two", "--from", str(pretrained))
    (second,) = patiently(lambda: evaluated(server, "lab/two"), "scores of the second base")
    assert second["scores"] == kept["scores"], "the same base, the same features"
    assert len(evaluated(server, "lab/one")) == 1
    (child,) = children(server)
    server.end()
    patiently(lambda: not alive(child), "the evaluator's end")
    assert list((server.data_dir / FOLDER / "bases").iterdir()) == []


def test_an_evaluator_does_not_outlive_a_server_that_is_killed(server: Server, films: Path) -> None:
    server.options = ("--evaluate", str(films))
    server.start()
    (child,) = patiently(lambda: children(server), "the evaluator")
    assert server.end(signal.SIGKILL) == -signal.SIGKILL
    patiently(lambda: not alive(child), "the evaluator's end")


def test_the_databases_url_is_on_no_command_line_but_the_operators_own(
    server: Server, films: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    url = f"sqlite:///{tmp_path / 'elsewhere' / 'other.db'}"
    server.options = ("--evaluate", str(films), "--database-url", url)
    server.start()
    assert server.process is not None
    (child,) = patiently(lambda: children(server), "the evaluator")
    # It has found the database, where it tells of its suite.
    patiently(lambda: server.get("/suites")["items"], "the suite")
    assert alive(child) and children(server) == [child]
    assert list(commands_with(url)) == [server.process.pid]


def test_an_evaluator_of_its_own_ends_on_a_signal_and_another_goes_on(
    server: Server, films: Path, tmp_path: Path
) -> None:
    server.start()
    model = str(tiny_bert(tmp_path / "pretrained"))
    server.command("model", "create", "lab/one", "--from", model, "--public")
    words = ["evaluator", "--suite", str(films), "--protocol", "few-shot", "--seeds", "2"]
    command = [sys.executable, "-m", "coldfusion_server", *words, "--data-dir"]
    for number, said in enumerate(('"evaluating"', '"evaluated"')):
        log = tmp_path / f"evaluator-{number}.log"
        with (
            log.open("w") as file,
            subprocess.Popen(
                [*command, str(server.data_dir)],
                stderr=file,
                stdin=subprocess.DEVNULL,
                env=server.environment,
            ) as process,
        ):
            try:
                patiently(partial(told, log, said, process), "the work")
                process.send_signal(signal.SIGTERM)
                assert process.wait(PATIENCE_SECONDS) == 0, log.read_text()
            finally:
                process.kill()
    (kept,) = evaluated(server, "lab/one")
    assert kept["protocol"] == "few-shot" and kept["seeds"] == [0, 1]


@pytest.mark.parametrize("words", [("evaluator", "--suite"), ("up", "--port", "0", "--evaluate")])
def test_a_suite_that_is_not_there_is_said_at_the_start(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "coldfusion_server", *words, "nowhere.yaml"],
        env={**os.environ, "COLDFUSION_DATA_DIR": str(tmp_path / "data")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1
    assert "nowhere.yaml" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()


def test_up_tries_nothing_again_that_it_does_not_measure(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "coldfusion_server", "up", "--again", "--port", "0"],
        env={**os.environ, "COLDFUSION_DATA_DIR": str(tmp_path / "data")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1 and "--evaluate" in done.stderr, done.stderr
    assert not (tmp_path / "data").exists()
