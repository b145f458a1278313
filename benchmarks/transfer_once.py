"""
One transfer by our client, in a process of its own: ``python -m benchmarks.transfer_once JOB``.

JOB is a JSON file. What was measured is printed as JSON: seconds, and the bytes of anonymous memory
that the process had before.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import anonymous_bytes
from coldfusion_client.api import Api
from coldfusion_client.bases import bring
from coldfusion_client.cache import Cache
from coldfusion_client.connection import Connection
from coldfusion_client.packing import Package
from coldfusion_client.reporting import Silent
from coldfusion_client.source import Source
from coldfusion_client.submission import declaration, idempotency_key
from coldfusion_client.transfer.upload import upload
from coldfusion_shared.schemas.bases import WEIGHTS_FILE
from coldfusion_shared.schemas.contributions import Work

Job = dict[str, Any]


def main(job: Job) -> None:
    """Do what `job` says and print what it cost."""
    idle = anonymous_bytes(os.getpid())
    with Api(Connection(job["server"], job["token"])) as api:
        cost = _sent(api, job) if "file" in job else _brought(api, job)
    sys.stdout.write(json.dumps({**cost, "idle": idle}) + "\n")


def _sent(api: Api, job: Job) -> Job:
    """Declare and upload; `seconds` are of the parts alone, each with its checksum."""
    started = time.perf_counter()
    package = Package("full", {WEIGHTS_FILE: Path(job["file"])})
    declared = declaration("v0", package, Work())
    hashed = time.perf_counter()
    answer = api.declare(job["model"], declared, idempotency_key(job["model"], declared))
    begun = time.perf_counter()
    upload(api, answer.upload, package.files, Silent())
    seconds = time.perf_counter() - begun
    if job["complete"]:
        api.complete(answer.contribution.id)
    return {
        "seconds": seconds,
        "hashing": hashed - started,
        "contribution": answer.contribution.id,
        "digest": declared.files[0].sha256,
    }


def _brought(api: Api, job: Job) -> Job:
    """Download a base into an empty cache, and verify it; `synced` is with the disk's time."""
    base = api.base(job["model"], "v0")
    cache = Cache(Path(job["cache"]))
    started = time.perf_counter()
    bring(Source(api, cache, Silent()), base.manifest)
    seconds = time.perf_counter() - started
    for entry in base.manifest.files:
        with cache.object(entry.sha256).open("rb") as file:
            os.fsync(file.fileno())
    return {"seconds": seconds, "synced": time.perf_counter() - started}


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
