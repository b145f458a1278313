"""A server, its store, a contributor, and proxies on the ways between them."""

from __future__ import annotations

import hashlib
import re
import secrets
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

from coldfusion_server.storage.local import LocalStore
from coldfusion_server.storage.s3.connection import S3Options
from coldfusion_server.storage.s3.store import S3Store
from tests.e2e.programs import BIN, Client, Server
from tests.faults.models import finetuned
from tests.faults.proxy import Proxy, proxy

MODEL = "lab/large"
MIB = 2**20
# The least that S3 takes of a part.
PART_BYTES = 5 * MIB
WORKERS = 4


@dataclass
class Stage:
    """
    All that a fault test acts on.

    Attributes:
        server: `coldfusion-server up`.
        base: the folder of the pretrained model.
        wire: where the bytes of clients pass: before the bucket, or before a server that keeps the
            objects itself.
        back: between the server and its bucket; null where there is no bucket.
        token: of a contributor.
        bucket: the bucket, past all proxies; null where there is none.
        front: before several servers, where there are several.
    """

    server: Server
    base: Path
    folder: Path
    wire: Proxy
    back: Proxy | None
    token: str
    bucket: S3Options | None
    front: Proxy | None = None
    clients: list[Client] = field(default_factory=list)

    @property
    def in_bucket(self) -> bool:
        return self.server.store is not None

    def client(self, **settings: str) -> Client:
        """Return a machine that is new: nothing in its home, nothing in its cache."""
        home = self.folder / f"home-{len(self.clients)}"
        home.mkdir()
        url = self.server.url if self.in_bucket else self.wire.url
        made = Client(
            self.server,
            home,
            self.token,
            settings={"COLDFUSION_SERVER": url, "HOME": str(home), **settings},
        )
        self.clients.append(made)
        return made

    def finetuned(self) -> Path:
        """Return a model that nobody has contributed yet."""
        name = secrets.token_hex(4)
        return finetuned(self.base, self.folder / name, int(name, 16))

    def heal(self) -> None:
        """End all faults."""
        for each in [self.wire, *([self.back] if self.back else [])]:
            each.rule = lambda asked: None
            for gate in (each.sent, each.answers):
                gate.allow(None)
                gate.rate = None
            each.asked.clear()

    def ask(self, method: str, path: str, seconds: float = 120, **more: Any) -> httpx.Response:
        """Ask the server something as the contributor; it has to answer in `seconds`."""
        headers = {"Authorization": f"Bearer {self.token}", "Idempotency-Key": secrets.token_hex(8)}
        with httpx.Client(base_url=self.server.url, trust_env=False, timeout=seconds) as http:
            return http.request(method, path, headers=headers, **more)

    def declare(self) -> httpx.Response:
        """Announce a contribution of which nothing will ever come."""
        entry = {"path": "model.safetensors", "size": MIB, "sha256": secrets.token_hex(32)}
        body = {"base": "v0", "files": [entry]}
        return self.ask("POST", f"/v1/models/{MODEL}/contributions", json=body)

    def contributions(self) -> list[dict[str, Any]]:
        """Return all contributions, newest first."""
        found: list[dict[str, Any]] = self.server.get(f"/models/{MODEL}/contributions")["items"]
        return found

    def accepted(self, identity: str) -> dict[str, Any]:
        """Return an accepted contribution, after a look at its bytes in the store."""
        shown: dict[str, Any] = self.server.get(f"/contributions/{identity}")
        assert shown["state"] in ("accepted", "fused"), shown
        for entry in shown["files"]:
            assert self.stored_sha256(entry["sha256"]) == entry["sha256"]
        return shown

    def stored_sha256(self, digest: str) -> str:
        """Return the SHA-256 of what is stored under that name."""
        found = hashlib.sha256()
        with self.store() as store:
            source, size = store.source(digest), store.size(digest)
            block = memoryview(bytearray(MIB))
            for start in range(0, size, MIB):
                part = block[: min(MIB, size - start)]
                source.read_into(start, part)
                found.update(part)
            source.close()
        return found.hexdigest()

    @contextmanager
    def store(self) -> Iterator[LocalStore | S3Store]:
        """Open the server's store, past the server and all proxies."""
        opened = S3Store(self.bucket) if self.bucket else LocalStore(self.server.data_dir)
        try:
            yield opened
        finally:
            opened.close()

    def temporary(self) -> list[str]:
        """Return what the store has under ``tmp/``, unfinished uploads included."""
        with self.store() as store:
            if isinstance(store, LocalStore):
                return sorted(path.name for path in store.temporary.iterdir())
            objects = [entry.key for entry in store.bucket.entries("tmp/")]
            return sorted([*objects, *(item.key for item in store.bucket.multiparts("tmp/"))])

    def acknowledged(self) -> Counter[str]:
        """Return how often the store has taken each part."""
        puts = [
            asked for asked in self.wire.asked if (asked.method, asked.answered) == ("PUT", 200)
        ]
        part = re.compile(r"partNumber=([0-9]+)|/v1/uploads/[^/]+/([0-9]+)")
        found = (part.search(asked.target) for asked in puts)
        return Counter(match[1] or match[2] for match in found if match)

    @property
    def log(self) -> str:
        """What the server has written so far."""
        return (self.server.data_dir.parent / "server.log").read_text()


@contextmanager
def stage(
    folder: Path,
    base: Path,
    store: S3Options | None,
    *,
    least: int = 1000,
    database_url: str | None = None,
    options: Sequence[str] = (),
    settings: Mapping[str, str] | None = None,
) -> Iterator[Stage]:
    """
    Start a server with one model, and end everything with the block.

    Args:
        folder: for all that is kept.
        base: the pretrained model.
        store: a bucket; null: the server's folder.
        least: contributions that close a round.
        database_url: of a database elsewhere.
        options: of `coldfusion-server up`.
        settings: more variables of the server's environment.
    """
    settings = {
        "COLDFUSION_PART_BYTES": str(PART_BYTES),
        "COLDFUSION_LEASE_SECONDS": "2",
        "COLDFUSION_QUOTA_UPLOADS": "1000",
        "OMP_NUM_THREADS": "1",
        **(settings or {}),
    }
    with ExitStack() as stack:
        wire = back = bucket = None
        if store is not None:
            assert store.endpoint is not None
            wire = stack.enter_context(proxy(store.endpoint))
            back = stack.enter_context(proxy(store.endpoint))
            bucket = replace(store, prefix=f"{secrets.token_hex(6)}/")
            store = replace(bucket, endpoint=back.url, public_endpoint=wire.url)
        server = Server(
            folder / "data", store, database_url, settings=settings, options=tuple(options)
        )
        server.start()
        stack.callback(end, server)
        if wire is None:
            wire = stack.enter_context(proxy(server.url))
        given = ("--from", str(base), "--min-contributions", str(least), "--public")
        server.command("model", "create", MODEL, *given)
        token = server.command("token", "create", "ada", "--role", "contributor")
        made = Stage(server, base, folder, wire, back, token, bucket)
        try:
            yield made
        finally:
            made.heal()
            for client in made.clients:
                client.end()


def end(server: Server) -> None:
    """Kill a server that may have ended already."""
    if server.process is not None and server.process.poll() is None:
        server.process.kill()
        server.process.wait()
    if server.process is not None and server.process.stdout is not None:
        server.process.stdout.close()


@contextmanager
def program(server: Server, log: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run another process of the server's programs on the same data; killed with the block."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            [str(BIN / "coldfusion-server"), *words, "--data-dir", str(server.data_dir)],
            stdout=out,
            stderr=out,
            env=server.environment,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(condition: Any, what: str, seconds: float = 1200) -> Any:
    """Poll until `condition` gives something, and return it."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited in vain for {what}")


def clean_end(done: subprocess.CompletedProcess[str], code: int = 0) -> str:
    """Check how a command has ended, without a traceback; return what it said."""
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    assert "Traceback" not in said
    return said
