"""Transfers over real sockets through all that goes wrong there."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coldfusion_client.api import Api
from coldfusion_client.cache import Cache
from coldfusion_client.connection import Connection
from coldfusion_client.patience import Patience
from coldfusion_client.transfer import receiving
from coldfusion_client.transfer.download import fetch
from coldfusion_client.transfer.upload import upload
from coldfusion_shared import errors
from coldfusion_shared.schemas.bases import Manifest
from coldfusion_shared.schemas.contributions import FileUpload, Part, UploadPlan
from tests.client.faults import SLOW_DOWN, Asked, Fault, FaultServer, faulty
from tests.client.helpers import Notes
from tests.client.repository import NOW, Repository

CONTENT = random.Random(4).randbytes(1_000_000)
RANGE = 2**16
READ_SECONDS = 0.5


def right(_: Asked) -> Fault:
    return Fault()


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "LONGEST_RANGE_BYTES", RANGE)


@pytest.fixture
def open_api() -> Iterator[Callable[..., Api]]:
    made: list[Api] = []

    def make(url: str, seconds: float = 60) -> Api:
        connection = Connection(url, "token", patience=Patience(tries=30, first=0.001))
        connection._client.timeout = seconds
        made.append(Api(connection))
        return made[-1]

    yield make
    for api in made:
        api.connection.close()


def manifest(content: bytes = CONTENT) -> Manifest:
    return Repository({"model.safetensors": content}).newest.manifest


def some_faults(seed: int) -> Callable[[Asked], Fault]:
    """Half of the requests fail, in ways that a generator with that seed chooses."""
    chance, lock = random.Random(seed), threading.Lock()
    kinds: list[Callable[[], Fault]] = [
        lambda: Fault(cut=chance.randrange(RANGE)),
        lambda: Fault(cut=chance.randrange(RANGE), reset=True),
        lambda: Fault(cut=0, reset=True),
        lambda: Fault(500, text="oops"),
        lambda: Fault(503, text=SLOW_DOWN),
        lambda: Fault(429, headers={"Retry-After": "0"}),
        lambda: Fault(delay=READ_SECONDS + 0.3),
        lambda: Fault(307, headers={"Location": f"/{chance.random()}"}),
    ]

    def fault(asked: Asked) -> Fault:
        with lock:
            kind = chance.randrange(2 * len(kinds))
            found = kinds[kind]() if kind < len(kinds) else Fault()
        if found.status == 307:
            # Five in a row, which may come by chance, would be a circle.
            if asked.target.count("/moved") == 3:
                return Fault()
            found.headers["Location"] = f"{asked.target}/moved{found.headers['Location']}"
        return found

    return fault


@pytest.mark.parametrize("seed", range(6))
def test_a_download_survives_whatever_happens(
    open_api: Callable[..., Api], tmp_path: Path, seed: int
) -> None:
    base, cache, notes = manifest(), Cache(tmp_path / "cache"), Notes()
    with faulty(CONTENT, some_faults(seed)) as server:
        fetch(open_api(server.url, READ_SECONDS), cache, base, base.files, notes)
    found = cache.find(base.files[0])
    assert found and found.read_bytes() == CONTENT
    assert sum(notes.moved) == len(CONTENT)


def plan(server: str, part_size: int = RANGE) -> UploadPlan:
    parts = [
        Part(number=number, size=min(part_size, len(CONTENT) - start), uploaded=False, etag=None,
             url=f"{server}/parts/{number}")
        for number, start in enumerate(range(0, len(CONTENT), part_size), 1)
    ]  # fmt: skip
    file = FileUpload(path="w", size=len(CONTENT), part_size=part_size, parts=parts)
    return UploadPlan(contribution="c0", expires_at=NOW, files=[file])


@pytest.fixture
def body(tmp_path: Path) -> Path:
    path = tmp_path / "body"
    path.write_bytes(CONTENT)
    return path


@pytest.mark.parametrize("seed", range(6))
def test_an_upload_survives_whatever_happens(
    open_api: Callable[..., Api], body: Path, seed: int
) -> None:
    notes = Notes()
    with faulty(b"", some_faults(seed)) as server:
        upload(open_api(server.url, READ_SECONDS), plan(server.url), {"w": body}, notes)
        # A redirect has taken some of them to other paths.
        arrived = {
            asked.headers["content-md5"]: server.parts[asked.target]
            for asked in server.seen
            if asked.target in server.parts
        }
    for start in range(0, len(CONTENT), RANGE):
        part = CONTENT[start : start + RANGE]
        assert arrived[b64encode(hashlib.md5(part).digest()).decode()] == part
    assert sum(notes.moved) == len(CONTENT)
    assert all("authorization" not in asked.headers for asked in server.seen)
    assert all("transfer-encoding" not in asked.headers for asked in server.seen)


def test_a_part_follows_to_another_server_with_its_body(
    open_api: Callable[..., Api], body: Path
) -> None:
    with faulty(b"", right) as region, faulty(b"", right) as first:
        first.fault = lambda asked: Fault(307, headers={"Location": region.url + asked.target})
        upload(open_api(first.url), plan(first.url), {"w": body}, Notes())
    whole = b"".join(region.parts[f"/parts/{n + 1}"] for n in range(len(region.parts)))
    assert whole == CONTENT


def test_a_clock_that_is_off_is_named(open_api: Callable[..., Api], body: Path) -> None:
    skewed = (
        "<?xml version='1.0'?><Error><Code>RequestTimeTooSkewed</Code><Message>The difference "
        "between the request time and the current time is too large.</Message></Error>"
    )
    with (
        faulty(b"", lambda _: Fault(403, text=skewed)) as server,
        pytest.raises(errors.StorageUnavailable, match="a clock is off") as caught,
    ):
        upload(open_api(server.url), plan(server.url), {"w": body}, Notes(), 1)
    assert "clocks" in (caught.value.hint or "")
    assert len(server.seen) == 1


def test_an_endless_refusal_is_read_no_further(open_api: Callable[..., Api]) -> None:
    with (
        faulty(b"", lambda _: Fault(404, text="x" * 3_000_000)) as server,
        pytest.raises(errors.ServerError, match="404"),
        open_api(server.url).open_file("demo/tiny", "v0", "a"),
    ):
        pass


def test_no_cookie_is_kept(open_api: Callable[..., Api], body: Path) -> None:
    with faulty(b"", lambda _: Fault(200, headers={"Set-Cookie": "a=b; Path=/"})) as server:
        upload(open_api(server.url), plan(server.url), {"w": body}, Notes(), 1)
    assert len(server.seen) > 1
    assert all("cookie" not in asked.headers for asked in server.seen)


DOWNLOAD = """
import sys
from pathlib import Path
from coldfusion_client.api import Api
from coldfusion_client.cache import Cache
from coldfusion_client.connection import Connection
from coldfusion_client.reporting import Silent
from coldfusion_client.transfer import receiving
from coldfusion_client.transfer.download import fetch
from coldfusion_shared.schemas.bases import Manifest
receiving.LONGEST_RANGE_BYTES = int(sys.argv[3])
base = Manifest.model_validate_json(sys.stdin.read())
with Api(Connection(sys.argv[1])) as api:
    fetch(api, Cache(Path(sys.argv[2])), base, base.files, Silent())
"""


def process(server: FaultServer, cache: Path, base: Manifest) -> subprocess.Popen[bytes]:
    started = subprocess.Popen(
        [sys.executable, "-c", DOWNLOAD, server.url, str(cache), str(RANGE)],
        stdin=subprocess.PIPE,
    )
    assert started.stdin
    started.stdin.write(base.model_dump_json().encode())
    started.stdin.close()
    return started


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_download_that_is_killed_again_and_again_ends_right(tmp_path: Path) -> None:
    chance = random.Random(20)
    content = chance.randbytes(80 * RANGE + 17)
    base, cache = manifest(content), Cache(tmp_path / "cache")
    kills = 5
    with faulty(content, right) as server:
        server.pace = 0.003
        for _ in range(kills):
            most, gone = len(server.seen) + chance.randrange(1, 12), threading.Event()

            def held(_: Asked, most: int = most, gone: threading.Event = gone) -> Fault:
                # However late the kill comes, it is not through.
                if len(server.seen) > most:
                    gone.wait(300)
                return Fault()

            server.fault = held
            victim = process(server, cache.root, base)
            until(lambda most=most: len(server.seen) >= most)  # type: ignore[misc]
            os.kill(victim.pid, signal.SIGKILL)
            assert victim.wait(300) == -signal.SIGKILL
            assert cache.find(base.files[0]) is None
            gone.set()
        server.pace, server.fault = 0.0, right
        assert process(server, cache.root, base).wait(300) == 0
    found = cache.find(base.files[0])
    assert found and found.read_bytes() == content
    twice = sum(end - start for start, end in server.spans()) - len(content)
    assert 0 <= twice <= kills * 4 * RANGE


def test_two_processes_download_a_file_once(tmp_path: Path) -> None:
    base, cache = manifest(), Cache(tmp_path / "cache")
    with faulty(CONTENT, right) as server:
        server.pace = 0.005
        both = [process(server, cache.root, base) for _ in range(2)]
        assert [one.wait(300) for one in both] == [0, 0]
    assert cache.find(base.files[0])
    assert sum(end - start for start, end in server.spans()) == len(CONTENT)


def test_ctrl_c_ends_a_download_soon_and_keeps_what_has_come(tmp_path: Path) -> None:
    # So much that it is not through when the signal comes.
    content = CONTENT * 20
    base, cache = manifest(content), Cache(tmp_path / "cache")
    with faulty(content, right) as server:
        server.pace = 0.05
        victim = process(server, cache.root, base)
        until(lambda: len(server.seen) >= 5)
        victim.send_signal(signal.SIGINT)
        assert victim.wait(300) not in {0, -signal.SIGKILL}
    assert cache.begun(base.files[0]) > 0
