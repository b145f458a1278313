"""The server's processes are killed in the middle of everything, and started again."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import pytest

from coldfusion_server.storage import local
from coldfusion_server.storage.s3 import store as s3
from coldfusion_server.storage.s3.connection import S3Options
from tests.faults.stage import MIB, MODEL, Stage, clean_end, end, program, stage, wait_for


@pytest.fixture
def alone(middling: Path, rgw: S3Options, tmp_path: Path) -> Iterator[Stage]:
    """A server without a worker, whose rounds close with one contribution."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    with stage(
        tmp_path,
        middling,
        rgw,
        least=1,
        options=["--no-worker"],
        settings={"TMPDIR": str(temporary)},
    ) as made:
        yield made


class Watch:
    """The largest file that was seen in some folders, or open in some processes, by its name."""

    def __init__(self, folders: list[Path]) -> None:
        self.folders, self.processes = folders, list[int]()
        self.size, self.name = 0, ""
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.02):
            for path in [*self._files(), *self._open()]:
                with suppress(OSError):
                    self._note(path)

    def end(self) -> None:
        self._over.set()

    def _files(self) -> Iterator[Path]:
        for folder in self.folders:
            # A folder may be removed while it is looked through.
            with suppress(OSError):
                yield from (path for path in folder.rglob("*") if path.is_file())

    def _open(self) -> Iterator[Path]:
        """Also what has been removed from its folder as soon as it was made."""
        for process in list(self.processes):
            with suppress(OSError):
                yield from Path(f"/proc/{process}/fd").iterdir()

    def _note(self, path: Path) -> None:
        size = path.stat().st_size
        target = str(path.readlink()) if path.is_symlink() else str(path)
        if size > self.size and ".so" not in target:
            self.size, self.name = size, target


@contextmanager
def watched(*folders: Path) -> Iterator[Watch]:
    watch = Watch(list(folders))
    thread = threading.Thread(target=watch.run, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        watch.end()
        thread.join()


def killed(on: Stage) -> None:
    on.server.end(signal.SIGKILL)
    on.server.start()


def test_an_upload_goes_on_when_the_server_is_killed_under_it(on: Stage) -> None:
    model, client = on.finetuned(), on.client()
    on.wire.sent.allow(8 * MIB)
    process = client.start("push", MODEL, str(model), "--base", "v0", "--json")
    wait_for(on.wire.sent.closed.is_set, "half of the upload")
    on.server.end(signal.SIGKILL)
    on.wire.sent.allow(None)
    on.server.start()
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    on.accepted(json.loads(out)["id"])


def test_a_worker_killed_twice_loses_nothing_and_leaves_nothing(
    alone: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    on, log = alone, alone.folder / "worker.log"
    assert on.back
    model, client = on.finetuned(), on.client()
    data = on.server.data_dir
    with watched(data, on.folder / "tmp") as watch:
        # In the middle of reading what has arrived.
        on.back.answers.allow(10 * MIB)
        with program(on.server, log, "worker") as worker:
            watch.processes.append(worker.pid)
            process = client.start("push", MODEL, str(model), "--base", "v0", "--json")
            wait_for(on.back.answers.closed.is_set, "the reading of the upload")
        on.back.drop()
        on.back.answers.allow(None)
        # In the middle of writing what is fused.
        on.back.sent.allow(18 * MIB)
        with program(on.server, log, "worker") as worker:
            watch.processes.append(worker.pid)
            wait_for(on.back.sent.closed.is_set, "the writing of the fused model")
        on.back.drop()
        on.back.sent.allow(None)
        left_over = on.temporary()
        with program(on.server, log, "worker") as worker:
            watch.processes.append(worker.pid)
            wait_for(lambda: on.server.get(f"/models/{MODEL}")["current"] == "v1", "v1")
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    shown = on.accepted(json.loads(out)["id"])
    assert shown["state"] == "fused"
    bases = on.server.get(f"/models/{MODEL}/bases")["items"]
    assert [base["version"] for base in bases] == ["v1", "v0"]
    events = on.server.get("/events?limit=500")
    assert [event["type"] for event in events].count("base.published") == 2
    for entry in bases[0]["manifest"]["files"]:
        assert on.stored_sha256(entry["sha256"]) == entry["sha256"]
    # What the killed fuse was at stays for a day; then it goes, and nothing else does.
    assert len(left_over) >= 1 and on.temporary() == left_over
    monkeypatch.setattr(s3, "ABANDONED", timedelta(0))
    with on.store() as store:
        store.clean()
        assert store.pending_uploads() == []
    assert on.temporary() == []
    assert watch.size < 4 * MIB, watch.name
    on.accepted(shown["id"])


def test_a_server_killed_while_it_puts_parts_together(
    on_disk: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    on, model = on_disk, on_disk.finetuned()
    client = on.client()
    temporary = on.server.data_dir / "tmp"
    clean_end(client.run("pull", MODEL))
    process = client.start("push", MODEL, str(model), "--base", "v0", "--json")
    # Parts are smaller than what is put together of them.
    wait_for(
        lambda: (
            process.poll() is not None
            or any(path.stat().st_size > 6 * MIB for path in _present(temporary))
        ),
        "the file that is put together",
    )
    killed(on)
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    on.accepted(json.loads(out)["id"])
    monkeypatch.setattr(local, "ABANDONED_SECONDS", -1)
    with on.store() as store:
        # Its parts go behind the verdict, of which everybody is told first.
        wait_for(lambda: store.pending_uploads() == [], "the end of the upload's bytes")
        store.clean()
    assert on.temporary() == []


def _present(folder: Path) -> list[Path]:
    with suppress(OSError):
        return [path for path in folder.iterdir() if path.exists()]
    return []


def test_everything_is_killed_at_once(on: Stage) -> None:
    """Client and server both; another machine with the same token goes on."""
    model, client = on.finetuned(), on.client()
    push = ("push", MODEL, str(model), "--base", "v0", "--json")
    on.wire.sent.allow(12 * MIB)
    process = client.start(*push)
    wait_for(on.wire.sent.closed.is_set, "half of the upload")
    end(on.server)
    process.kill()
    process.communicate()
    on.wire.drop()
    on.wire.sent.allow(None)
    on.server.start()
    done = on.client().run(*push)
    clean_end(done)
    on.accepted(json.loads(done.stdout)["id"])
    assert set(on.acknowledged().values()) == {1}
