"""Whether memory stays flat: client and API while a small and a large model are moved."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import partial

import httpx

from benchmarks.measure import Peak, anonymous_bytes, say
from benchmarks.repository import Repository
from benchmarks.transfer_runs import OURS_DOWN, OURS_UP, Site, Step
from benchmarks.weights import write_weights

MIB = 2**20
MOST = 200 * MIB


# What is watched, by the row's name: a process, in a transfer.
Peaks = dict[str, list[int]]


def peaks(repository: Repository, sizes: Sequence[int], tidy: Callable[[], object]) -> Peaks:
    """Return for each of the models' `sizes` in bytes what the processes needed, in bytes."""
    httpx.get(f"{repository.url}/v1", trust_env=False).raise_for_status()
    idle = anonymous_bytes(repository.api)
    found: Peaks = {}
    for size in sizes:
        say(f"memory with {size / 1e6:,.0f} MB")
        model = f"bench/m{size}"
        file = write_weights(repository.folder / "model", size)
        repository.create_model(model, file.parent)
        site = Site(repository, model, file, counted=False, tidy=tidy)
        for what, row, transfer in (
            ("upload", OURS_UP, partial(site.upload, complete=False)),
            ("download", OURS_DOWN, site.download),
        ):
            client, api = _above_rest(repository.api, idle, row, transfer)
            found.setdefault(f"client, {what}", []).append(client)
            found.setdefault(f"API's process, {what}", []).append(api)
        shutil.rmtree(file.parent)
    return found


def rows(found: Peaks, sizes: Sequence[int]) -> list[str]:
    """Return the table of `found`, and whether that is what it should be."""
    lines = [
        "Peak anonymous MiB above what the process had before, one run each.",
        "",
        f"| | {' | '.join(f'{size / 1e6:,.0f} MB' for size in sizes)} | goal | |",
        f"|---|{'---|' * len(sizes)}---|---|",
    ]
    for name, bytes_above in found.items():
        figures = " | ".join(f"{above / MIB:.0f}" for above in bytes_above)
        verdict = "met" if max(bytes_above) < MOST else "missed"
        lines.append(f"| {name} | {figures} | below {MOST // MIB} | {verdict} |")
    return lines


def _above_rest(api: int, idle: int, row: str, transfer: Step) -> tuple[int, int]:
    watched = Peak(api)
    run = transfer()[row]
    peak = watched.stop()
    assert run.anonymous is not None and run.before is not None, "a process of ours"
    return run.anonymous - run.before, max(0, peak - idle)
