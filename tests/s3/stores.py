"""Object stores for the tests, each with a way to see all that it keeps."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx

from coldfusion_server.storage import ObjectStore
from coldfusion_server.storage.local import LocalStore
from coldfusion_server.storage.s3.connection import S3Options, connect
from coldfusion_server.storage.s3.store import S3Store

BUCKET = "coldfusion-tests"
MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class Case:
    """A store, and the names of everything in it: objects, parts, what is half written."""

    store: ObjectStore
    everything: Callable[[], list[str]]


def local_case(folder: Path) -> Case:
    """Return a store in `folder`."""

    def everything() -> list[str]:
        found = (path for path in folder.rglob("*") if path.is_file())
        return sorted(str(path.relative_to(folder)) for path in found)

    return Case(LocalStore(folder), everything)


def s3_case(options: S3Options) -> Case:
    """Return a store in a part of the bucket that nobody else uses."""
    store = S3Store(replace(options, prefix=f"{secrets.token_hex(8)}/"))

    def everything() -> list[str]:
        parts = [
            f"{item.key} part {part['PartNumber']}"
            for item in store.bucket.multiparts("")
            for part in store.bucket.parts(item.key, item.upload_id) or []
        ]
        return sorted([*(entry.key for entry in store.bucket.entries("")), *parts])

    return Case(store, everything)


def bucket_of(endpoint: str, access_key: str, secret_key: str, **more: Any) -> S3Options:
    """Make the tests' bucket unless it is there, and return how it is reached."""
    options = S3Options(
        bucket=BUCKET,
        endpoint=endpoint,
        access_key=access_key,
        secret_key=secret_key,
        addressing="path",
        **more,
    )
    connect(options, endpoint).create_bucket(Bucket=BUCKET)
    return options


@contextmanager
def moto() -> Iterator[S3Options]:
    """Run moto's mock of S3: quick, but it takes wrong signatures and wrong checksums."""
    from moto.server import ThreadedMotoServer

    # It tells every address that it is asked for, signatures among them.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield bucket_of(f"http://{host}:{port}", "tests", "a secret")
    finally:
        server.stop()


def put_part(store: ObjectStore, number: int, raw: bytes, upload: str = "up.0") -> str:
    """Send one part as a client does, and return its ETag."""
    urls = store.part_urls(upload, {number: len(raw)}, MINUTE)
    if urls is not None:
        answer = httpx.put(urls[number], content=raw, timeout=300)
        assert answer.status_code == 200, answer.text
        return str(answer.headers["ETag"]).strip('"')
    writer = store.open_part(upload, number)
    writer.write(raw)
    return writer.commit()
