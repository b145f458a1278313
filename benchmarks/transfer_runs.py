"""The transfers that are measured: ours, and what others do with the same bytes and store."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.measure import Measurement, Peak, python, run
from benchmarks.models import WEIGHTS
from benchmarks.namespace import moved_bytes
from benchmarks.repository import Repository
from benchmarks.weights import renew
from coldfusion_client.api import Api
from coldfusion_client.connection import Connection
from coldfusion_client.transfer.upload import WORKERS
from coldfusion_server.storage.s3.store import S3Store
from coldfusion_shared.schemas.bases import WEIGHTS_FILE
from coldfusion_shared.schemas.contributions import Declaration
from coldfusion_shared.schemas.files import FileEntry

OURS_UP = "ours: the parts, 4 at once, each with its MD5"
HASHING = "ours: SHA-256 for the declaration, before"
BOTH_UP = "ours: both"
STORED = "server: complete to verified and stored"
ACCEPTED = "server: screening, after that"
PUT = "bare PUT of the whole"
PUT_PARTS = "bare PUT of the same parts, 4 at once"
BOTO_UP = "boto3 upload_file"
CP_SYNC = "cp, and sync of the copy"

OURS_DOWN = "ours: fetched and verified, 4 ranges at once"
SYNCED = "ours: the same, and sync of the file"
PULL = "ours: coldfusion-client pull, the whole program"
GET = "bare GET of the whole, not verified"
GET_RANGES = "bare GET of ranges of 64 MiB, 4 at once, not verified"
BOTO_DOWN = "boto3 download_file, not verified"
CP = "cp"

LIFETIME = timedelta(hours=2)
RANGE_BYTES = 2**26


@dataclass(frozen=True)
class Run:
    """
    One transfer.

    Attributes:
        seconds: from the first request to the last byte.
        cpu: seconds of the whole process; null where it is not one of its own.
        anonymous: peak of its anonymous memory, or of the worker's, in bytes; null where there is
            no process of interest.
        before: what of that it had before it began, in bytes; null where it was not asked.
        moved: bytes over the network of the API's process meanwhile; null where nobody counts.
    """

    seconds: float
    cpu: float | None = None
    anonymous: int | None = None
    before: int | None = None
    moved: int | None = None


Step = Callable[[], dict[str, Run]]


@dataclass(frozen=True)
class Site:
    """
    A Repository with one model, and a place for what is sent and fetched.

    Attributes:
        repository: it.
        model: the model's name.
        file: weights to send, changed before each time.
        counted: whether the API's process has a network of its own.
        tidy: called after something was removed from the store.
    """

    repository: Repository
    model: str
    file: Path
    counted: bool
    tidy: Callable[[], object]

    @property
    def folder(self) -> Path:
        """Where things may be written."""
        return self.repository.folder

    def upload(self, *, complete: bool) -> dict[str, Run]:
        """Send the file by our client; with `complete`, let the worker verify and screen it."""
        renew(self.file)
        cost, said = self._ours({"file": str(self.file), "complete": complete})
        hashing = said["hashing"]
        rows = {
            OURS_UP: cost,
            HASHING: Run(hashing),
            BOTH_UP: Run(hashing + cost.seconds),
        }
        if complete:
            rows[STORED] = self._worked(self.repository.wait_stored, said["digest"])
            rows[ACCEPTED] = self._worked(self.repository.wait_accepted, said["contribution"])
            self.repository.store.delete(said["digest"])
        else:
            self.repository.discard(said["contribution"])
        self.tidy()
        return rows

    def download(self) -> dict[str, Run]:
        """Fetch the base by our client."""
        cache = self.folder / "cache"
        cost, said = self._ours({"cache": str(cache)})
        shutil.rmtree(cache)
        return {OURS_DOWN: cost, SYNCED: Run(said["synced"])}

    def pull(self) -> dict[str, Run]:
        """Run the program that a person runs."""
        cache, out = self.folder / "cache", self.folder / "pulled"
        environment = {
            "COLDFUSION_SERVER": self.repository.url,
            "COLDFUSION_TOKEN": self.repository.token,
            "COLDFUSION_CONFIG": str(self.folder / "config"),
            "COLDFUSION_CACHE": str(cache),
        }
        program = Path(sys.executable).with_name("coldfusion-client")
        cost = _run([str(program), "pull", self.model, "--out", str(out)], environment)
        shutil.rmtree(cache)
        shutil.rmtree(out)
        return {PULL: Run(cost.wall, cost.cpu, cost.anonymous)}

    def peer(self, row: str, kind: str, job: Mapping[str, Any]) -> dict[str, Run]:
        """Do a transfer of `transfer_peers.py`, and remove what it fetched."""
        cost = _run(python("benchmarks.transfer_peers", kind, self._write(job)))
        if "out" in job:
            Path(job["out"]).unlink()
        return {row: Run(_said(cost)["seconds"], cost.cpu, cost.anonymous)}

    def put_parts(self) -> dict[str, Run]:
        """Send the parts of an upload of its own, without any care."""
        size = self.file.stat().st_size
        entry = FileEntry(path=WEIGHTS_FILE, size=size, sha256=secrets.token_hex(32))
        with self._api() as api:
            plan = api.declare(
                self.model, Declaration(base="v0", files=[entry]), entry.sha256
            ).upload
        sent = plan.files[0]
        parts = [(part.url, (part.number - 1) * sent.part_size, part.size) for part in sent.parts]
        rows = self.peer(
            PUT_PARTS,
            "put_parts",
            {"file": str(self.file), "parts": parts, "workers": WORKERS},
        )
        self.repository.discard(plan.contribution)
        self.tidy()
        return rows

    def gets(self, url: str, headers: dict[str, str]) -> dict[str, Step]:
        """Return the bare ways to fetch the base's weights from `url`."""
        job = {
            "url": url,
            "headers": headers,
            "out": str(self.folder / "out"),
            "size": self.file.stat().st_size,
            "step": RANGE_BYTES,
            "workers": WORKERS,
        }
        return {
            GET: lambda: self.peer(GET, "get", job),
            GET_RANGES: lambda: self.peer(GET_RANGES, "get_ranges", job),
        }

    def base_digest(self) -> str:
        """Return the digest of the base's weights."""
        with self._api() as api:
            files = api.base(self.model, "v0").manifest.files
        return next(entry.sha256 for entry in files if entry.path == WEIGHTS)

    def _ours(self, job: Mapping[str, Any]) -> tuple[Run, dict[str, Any]]:
        whole = {
            "server": self.repository.url,
            "token": self.repository.token,
            "model": self.model,
            **job,
        }
        before = self._moved()
        cost = _run(python("benchmarks.transfer_once", self._write(whole)))
        after = self._moved()
        said = _said(cost)
        moved = None if before is None or after is None else after - before
        return Run(said["seconds"], cost.cpu, cost.anonymous, said["idle"], moved), said

    def _worked(self, wait: Callable[[str], float], what: str) -> Run:
        worker = Peak(self.repository.worker)
        seconds = wait(what)
        return Run(seconds, anonymous=worker.stop())

    def _moved(self) -> int | None:
        return moved_bytes(self.repository.api) if self.counted else None

    def _api(self) -> Api:
        return Api(Connection(self.repository.url, self.repository.token))

    def _write(self, job: Mapping[str, Any]) -> str:
        file = self.folder / "job.json"
        file.write_text(json.dumps(job))
        return str(file)


def s3_steps(site: Site) -> dict[str, Step]:
    """Return the transfers to and from a bucket, by the first row that each of them gives."""
    store, digest = site.repository.store, site.base_digest()
    assert isinstance(store, S3Store)
    options = store.bucket.options
    access = {
        "endpoint": options.endpoint,
        "access_key": options.access_key,
        "secret_key": options.secret_key,
        "bucket": options.bucket,
    }

    def put(row: str, kind: str) -> dict[str, Run]:
        url = store.bucket.url("put_object", "theirs", LIFETIME)
        job = {**access, "key": f"{options.prefix}theirs", "url": url, "file": str(site.file)}
        rows = site.peer(row, kind, job)
        store.bucket.delete("theirs")
        site.tidy()
        return rows

    url = store.object_url(digest, LIFETIME, WEIGHTS)
    assert url is not None
    # By path, as the tests' bucket is addressed.
    key = urlsplit(url).path.removeprefix(f"/{options.bucket}/")
    down = {**access, "key": key, "out": str(site.folder / "out")}
    return {
        OURS_UP: lambda: site.upload(complete=True),
        PUT: lambda: put(PUT, "put"),
        PUT_PARTS: site.put_parts,
        BOTO_UP: lambda: put(BOTO_UP, "boto_up"),
        OURS_DOWN: site.download,
        PULL: site.pull,
        **site.gets(url, {}),
        BOTO_DOWN: lambda: site.peer(BOTO_DOWN, "boto_down", down),
    }


def local_steps(site: Site) -> dict[str, Step]:
    """Return the transfers to and from a folder of the server's, as above."""
    stored = site.repository.store.local_path(site.base_digest())
    out = site.folder / "out"
    url = f"{site.repository.url}/v1/models/{site.model}/bases/v0/files/{WEIGHTS}"

    def copy(row: str, then: str) -> dict[str, Run]:
        cost = _run(["sh", "-c", f"cp '{stored}' '{out}'{then}"])
        out.unlink()
        return {row: Run(cost.wall, cost.cpu)}

    return {
        OURS_UP: lambda: site.upload(complete=True),
        PUT_PARTS: site.put_parts,
        OURS_DOWN: site.download,
        PULL: site.pull,
        **site.gets(url, {"Authorization": f"Bearer {site.repository.token}"}),
        CP: lambda: copy(CP, ""),
        CP_SYNC: lambda: copy(CP_SYNC, f" && sync '{out}'"),
    }


def _said(cost: Measurement) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(cost.said.splitlines()[-1])
    return said


def _run(command: list[str], environment: Mapping[str, str] | None = None) -> Measurement:
    """Run it with nothing of an earlier one to be written back."""
    os.sync()
    return run(command, environment)
