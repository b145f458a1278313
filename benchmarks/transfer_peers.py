"""
One transfer by others, in a process of its own: ``python -m benchmarks.transfer_peers KIND JOB``.

Imports nothing of ours. JOB is a JSON file; the seconds are printed as JSON. They begin when all is
imported and ready, and no connection is open.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

# As ours; what httpx takes by itself is 64 KiB.
BLOCK_BYTES = 2**18
TIMEOUT_SECONDS = 300.0

Job = dict[str, Any]
Work = Callable[[], object]


def put(job: Job) -> Work:
    """Return one PUT of the whole file."""
    return _puts(job, [(job["url"], 0, Path(job["file"]).stat().st_size)], 1)


def put_parts(job: Job) -> Work:
    """Return PUTs of its parts, some of them at once."""
    return _puts(job, job["parts"], job["workers"])


def get(job: Job) -> Work:
    """Return one GET to a file."""
    client = _client()

    def work() -> None:
        with Path(job["out"]).open("wb", buffering=0) as out:
            _get(client, job, out.write, {})

    return work


def get_ranges(job: Job) -> Work:
    """Return GETs of ranges of it, some of them at once."""
    client = _client()

    def one(start: int) -> None:
        with Path(job["out"]).open("r+b", buffering=0) as out:
            out.seek(start)
            end = min(start + job["step"], job["size"]) - 1
            _get(client, job, out.write, {"Range": f"bytes={start}-{end}"})

    def work() -> None:
        Path(job["out"]).touch()
        _all(one, range(0, job["size"], job["step"]), job["workers"])

    return work


def boto_up(job: Job) -> Work:
    """Return boto3's upload_file as it is by default."""
    client = _s3(job)
    return lambda: client.upload_file(job["file"], job["bucket"], job["key"])


def boto_down(job: Job) -> Work:
    """Return boto3's download_file as it is by default."""
    client = _s3(job)
    return lambda: client.download_file(job["bucket"], job["key"], job["out"])


def _puts(job: Job, parts: list[tuple[str, int, int]], workers: int) -> Work:
    client = _client()

    def one(part: tuple[str, int, int]) -> None:
        url, start, size = part
        headers = {"Content-Length": str(size)}
        answer = client.put(url, content=_blocks(job["file"], start, size), headers=headers)
        answer.raise_for_status()

    return lambda: _all(one, parts, workers)


def _get(client: httpx.Client, job: Job, write: Callable[[bytes], Any], asked: Job) -> None:
    headers = {**job.get("headers", {}), **asked}
    with client.stream("GET", job["url"], headers=headers) as answer:
        answer.raise_for_status()
        for block in answer.iter_bytes():
            write(block)


def _all(one: Callable[[Any], None], things: Any, workers: int) -> None:
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(one, things))


def _blocks(file: str, start: int, size: int) -> Iterator[bytes]:
    with Path(file).open("rb", buffering=0) as opened:
        opened.seek(start)
        while size and (block := opened.read(min(BLOCK_BYTES, size))):
            size -= len(block)
            yield block


def _client() -> httpx.Client:
    return httpx.Client(timeout=TIMEOUT_SECONDS)


def _s3(job: Job) -> Any:
    import boto3
    from botocore.client import Config

    return boto3.client(
        "s3",
        endpoint_url=job["endpoint"],
        region_name="us-east-1",
        aws_access_key_id=job["access_key"],
        aws_secret_access_key=job["secret_key"],
        config=Config(s3={"addressing_style": "path"}),
    )


KINDS = {
    "put": put,
    "put_parts": put_parts,
    "get": get,
    "get_ranges": get_ranges,
    "boto_up": boto_up,
    "boto_down": boto_down,
}


def main(kind: str, job: Job) -> None:
    """Do what `job` says and print the seconds that it took."""
    work = KINDS[kind](job)
    started = time.perf_counter()
    work()
    sys.stdout.write(json.dumps({"seconds": time.perf_counter() - started}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], json.loads(Path(sys.argv[2]).read_text()))
