"""
Moving a model's weights beside what the same store gives to others, in one run and interleaved.

Every transfer is a process of its own and is timed in it, from its first request to its last byte:
imports and start-up are left out, for ours and for the others. The server's programs are the real
ones, each a process of its own. What is sent and fetched lies in the page cache before. The disk
is synced before each transfer. Who fetches does not wait for the disk in the end, and neither does
`cp`; both are shown with that wait, too. The local store syncs each part that it takes, so sending
is put beside a synced copy. Ours sends each part with its checksum and verifies all that it
fetches; the others do not. What the server does after that is timed from outside, with the up to
half a second after which its worker looks for work.

With S3 the API's process has a network of its own (`namespace.py`), whose counters are read.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from benchmarks import transfer_memory, transfer_tables
from benchmarks.measure import say
from benchmarks.namespace import Namespace, is_possible, namespace
from benchmarks.repository import running
from benchmarks.transfer_runs import Run, Site, Step, local_steps, s3_steps
from benchmarks.transfer_tables import Runs
from benchmarks.weights import write_weights
from coldfusion_server.storage.s3.connection import S3Options

MODEL = "bench/model"
# The small one of the models by which memory is compared, in bytes.
SMALL = 100_000_000


@dataclass(frozen=True)
class Settings:
    """
    What is measured, and how often.

    Attributes:
        folder: for everything that is written; a new folder in it, removed in the end.
        size: bytes of the model that is moved.
        repeats: interleaved runs of all.
        memory_size: bytes of the large model by which memory is compared; 0: it is not.
    """

    folder: Path
    size: int
    repeats: int
    memory_size: int


@dataclass(frozen=True)
class _Place:
    """
    Where a Repository keeps its objects.

    Attributes:
        bucket: the bucket; null: a folder.
        network: of the API's process; null: this machine's.
        tidy: gives room back after objects were removed.
    """

    bucket: S3Options | None = None
    network: Namespace | None = None
    tidy: Callable[[], object] = lambda: None

    def under(self, prefix: str) -> S3Options | None:
        """Return a part of the bucket for a Repository of its own."""
        return None if self.bucket is None else replace(self.bucket, prefix=prefix)


def table(settings: Settings) -> str:
    """Run everything and return Markdown tables."""
    settings.folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="transfer-", dir=settings.folder) as folder:
        inside = replace(settings, folder=Path(folder).absolute())
        lines = ["### Local store", "", *_tables(inside, _Place()), "", "### S3 store", ""]
        with _ceph() as place:
            lines += [place] if isinstance(place, str) else _tables(inside, place)
    return "\n".join(lines)


@contextmanager
def _ceph() -> Iterator[_Place | str]:
    """Run Ceph's RADOS gateway; yields a sentence where it is not installed."""
    import pytest

    from tests.s3 import rgw, stores

    with ExitStack() as stack:
        try:
            server = stack.enter_context(rgw.server())
        except pytest.skip.Exception as skipped:
            yield f"Not measured: {skipped}."
            return
        bucket = stores.bucket_of(server.endpoint, server.access_key, server.secret_key)
        port = urlsplit(server.endpoint).port
        network = None
        if is_possible() and port is not None:
            network = stack.enter_context(namespace(port))
        # Ceph by itself gives room back two hours after an object was removed.
        configuration = server.folder / "ceph.conf"
        collect = ["radosgw-admin", "-c", str(configuration), "gc", "process", "--include-all"]
        tidy = partial(subprocess.run, collect, check=True, capture_output=True, timeout=120)
        yield _Place(bucket, network, tidy)


def _tables(settings: Settings, place: _Place) -> list[str]:
    runs, size = _measured(settings, place)
    if place.bucket is None:
        lines = transfer_tables.local(runs, size)
    else:
        lines = transfer_tables.s3(runs, size)
    if settings.memory_size:
        folder = settings.folder / "memory"
        with running(folder, place.under("memory/"), place.network) as repository:
            sizes = sorted({min(SMALL, settings.memory_size), settings.memory_size})
            peaks = transfer_memory.peaks(repository, sizes, place.tidy)
        shutil.rmtree(folder)
        lines += ["", *transfer_memory.rows(peaks, sizes)]
    return lines


def _measured(settings: Settings, place: _Place) -> tuple[Runs, int]:
    """Return the runs of each row, and how many bytes were moved in each."""
    folder = settings.folder / "speed"
    with running(folder, place.under("speed/"), place.network) as repository:
        say(f"a model of {settings.size / 1e6:,.0f} MB")
        file = write_weights(folder / "model", settings.size)
        repository.create_model(MODEL, file.parent)
        site = Site(repository, MODEL, file, place.network is not None, place.tidy)
        steps = local_steps(site) if place.bucket is None else s3_steps(site)
        runs, size = _repeated(steps, settings.repeats), file.stat().st_size
    shutil.rmtree(folder)
    return runs, size


def _repeated(steps: Mapping[str, Step], repeats: int) -> Runs:
    runs: dict[str, list[Run]] = {}
    for repeat in range(repeats):
        for name, step in steps.items():
            say(f"run {repeat + 1} of {repeats}: {name}")
            for row, run in step().items():
                runs.setdefault(row, []).append(run)
    return runs
