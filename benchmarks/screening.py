"""
How fast an upload is screened, beside reading its file: from the page cache, and from disk.

One process. The limit reads the same ranges by the same code and does nothing with them: of the
upload alone, and of the upload and its base, without which nobody knows what it changed. A
screening takes every check, the sketch and the digest. Runs are interleaved and the best of each
counts. Before each run from disk the kernel is asked to forget the upload, and need not obey; the
base, which all uploads of a round are measured against, stays in its cache. The SHA-256 of the
file, which is taken when it becomes an object, stands beside them.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.encoding_speed import write_pair
from coldfusion_shared.fusion.executor import threads
from coldfusion_shared.screening.screen import Encoded, screen
from coldfusion_shared.weights.checkpoint import CHUNK_ELEMENTS, Checkpoint, FileSource
from coldfusion_shared.weights.layout import SINGLE_FILE

GB = 10**9
# What a chunk of float32 has.
CHUNK_BYTES = 4 * CHUNK_ELEMENTS
GOAL = 0.5


@dataclass(frozen=True)
class Settings:
    """
    What is measured.

    Attributes:
        folder: for the two models.
        layers: 12 of RoBERTa-base's width make files of 494 MB.
        repeats: runs of each.
    """

    folder: Path
    layers: int
    repeats: int


@dataclass
class Cost:
    """Seconds of wall and of CPU time, as each run had them."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def table(settings: Settings) -> str:
    """Measure and return the table, in Markdown."""
    settings.folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=settings.folder) as scratch:
        base, upload = write_pair(Path(scratch), settings.layers)
        os.sync()
        cached = _measured(base, upload, settings.repeats, cold=False)
        cold = _measured(base, upload, settings.repeats, cold=True)
        size = upload.stat().st_size
    lines = [
        f"An upload of {size / 1e6:,.0f} MB, float32, encoding full; {os.cpu_count()} cores.",
        "",
        "| | GB/s, page cache | GB/s of CPU time | GB/s, disk | of reading the upload | of "
        "reading upload and base | from disk, of reading the upload |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    return "\n".join([*lines, *(_row(name, size, cached, cold) for name in cached)])


UPLOAD, BOTH = "reading the upload", "reading upload and base"


def _row(name: str, size: int, cached: dict[str, Cost], cold: dict[str, Cost]) -> str:
    wall, disk = min(cached[name].wall), min(cold[name].wall)
    shares = [
        min(cached[UPLOAD].wall) / wall,
        min(cached[BOTH].wall) / wall,
        min(cold[UPLOAD].wall) / disk,
    ]
    told = [
        f"{size / GB / wall:.2f}",
        f"{size / GB / min(cached[name].cpu):.2f}",
        f"{size / GB / disk:.2f}",
        *(_judged(share) if "screening" in name else f"{share:.2f}" for share in shares),
    ]
    return f"| {name} | {' | '.join(told)} |"


def _judged(share: float) -> str:
    return f"{share:.2f} ({'holds' if share >= GOAL else 'MISSES'}: >= {GOAL:g})"


def _measured(base: Path, upload: Path, repeats: int, *, cold: bool) -> dict[str, Cost]:
    programs: dict[str, Callable[[], None]] = {
        UPLOAD: partial(read, upload),
        BOTH: partial(read, upload, base),
        "SHA-256 of the upload": partial(digest, upload),
        **{
            f"screening, threads: {count}": partial(screened, upload, base, count)
            for count in sorted({1, os.cpu_count() or 1})
        },
    }
    costs = {name: Cost() for name in programs}
    for number in range(1 + repeats):
        for name, program in programs.items():
            if cold:
                forget(upload)
            wall, cpu = time.perf_counter(), time.process_time()
            program()
            # The first run of each brings the files into the cache and does not count.
            if number:
                costs[name].wall.append(time.perf_counter() - wall)
                costs[name].cpu.append(time.process_time() - cpu)
    return costs


def read(*paths: Path) -> None:
    """Read files by the chunks that screening reads."""
    buffer = memoryview(bytearray(CHUNK_BYTES))
    for path in paths:
        source = FileSource(path)
        for start in range(0, source.size, CHUNK_BYTES):
            source.read_into(start, buffer[: min(CHUNK_BYTES, source.size - start)])
        source.close()


def digest(path: Path) -> None:
    """Take the SHA-256 of a file."""
    with path.open("rb") as file:
        hashlib.file_digest(file, "sha256")


def screened(upload: Path, base: Path, count: int) -> None:
    """Screen an upload with so many threads."""
    source = FileSource(upload)
    with Checkpoint.from_file(base) as opened:
        outcome = screen(Encoded("full", {SINGLE_FILE: source}), opened, executor=threads(count))
    source.close()
    if outcome.measures is None:
        raise RuntimeError(f"The upload was not read: {outcome.findings}")


def forget(path: Path) -> None:
    """Ask the kernel to drop a file's pages."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(file)
