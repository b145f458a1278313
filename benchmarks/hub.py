"""
The hub door beside our own client: the same base from the same server, in one run and interleaved.

The Repository keeps its objects in a folder. Each download is a process of its own and is timed in
it, from its first request to its last byte, into an empty cache; the disk is synced before.
huggingface_hub takes a file in one stream and does not verify it; ours takes ranges, 4 at once, and
does. What one stream gives by itself is shown by a bare GET at the same address.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.measure import Measurement, python, run, say
from benchmarks.models import WEIGHTS
from benchmarks.repository import Repository, running
from benchmarks.transfer_runs import Run
from benchmarks.weights import write_weights

MODEL = "bench/model"
HUB = "huggingface_hub: snapshot_download by the hub door, not verified"
OURS = "ours: fetched and verified, 4 ranges at once"
BARE = "bare GET at the hub door, not verified"
# The share of our own client's throughput that the hub door should reach.
GOAL = 0.9
# With fewer runs the ratio is shown, but no verdict.
ENOUGH_RUNS = 3

Runs = Mapping[str, list[Run]]


@dataclass(frozen=True)
class Settings:
    """
    What is measured, and how often.

    Attributes:
        folder: for everything that is written; a new folder in it, removed in the end.
        size: bytes of the model that is moved.
        repeats: interleaved runs of all.
    """

    folder: Path
    size: int
    repeats: int


def table(settings: Settings) -> str:
    """Run everything and return a Markdown table."""
    settings.folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="hub-", dir=settings.folder) as folder:
        runs, size = _measured(replace(settings, folder=Path(folder).absolute()))
    return "\n".join(_lines(runs, size))


def _measured(settings: Settings) -> tuple[Runs, int]:
    with running(settings.folder / "repository") as repository:
        say(f"a model of {settings.size / 1e6:,.0f} MB")
        file = write_weights(repository.folder / "model", settings.size)
        repository.create_model(MODEL, file.parent)
        site = _Site(repository)
        steps: dict[str, Callable[[], Run]] = {HUB: site.hub, OURS: site.ours, BARE: site.bare}
        runs: dict[str, list[Run]] = {name: [] for name in steps}
        for repeat in range(settings.repeats):
            for name, step in steps.items():
                say(f"run {repeat + 1} of {settings.repeats}: {name}")
                runs[name].append(step())
        return runs, file.stat().st_size


@dataclass(frozen=True)
class _Site:
    """A Repository with one model."""

    repository: Repository

    def hub(self) -> Run:
        job = {"model": MODEL, "cache": str(self._cache)}
        environment = {
            "HF_ENDPOINT": self.repository.url,
            "HF_TOKEN": self.repository.token,
            "HF_HOME": str(self.repository.folder / "hub-home"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
        return self._done(run(python("benchmarks.hub_once", self._write(job)), environment))

    def ours(self) -> Run:
        repository = self.repository
        job = {"server": repository.url, "token": repository.token, "model": MODEL}
        command = python(
            "benchmarks.transfer_once", self._write({**job, "cache": str(self._cache)})
        )
        return self._done(run(command))

    def bare(self) -> Run:
        self._cache.mkdir()
        job = {
            "url": f"{self.repository.url}/{MODEL}/resolve/main/{WEIGHTS}",
            "headers": {"Authorization": f"Bearer {self.repository.token}"},
            "out": str(self._cache / "out"),
        }
        return self._done(run(python("benchmarks.transfer_peers", "get", self._write(job))))

    @property
    def _cache(self) -> Path:
        return self.repository.folder / "cache"

    def _write(self, job: Mapping[str, Any]) -> str:
        # With nothing of an earlier run to be written back.
        os.sync()
        file = self.repository.folder / "job.json"
        file.write_text(json.dumps(job))
        return str(file)

    def _done(self, cost: Measurement) -> Run:
        shutil.rmtree(self._cache)
        return Run(json.loads(cost.said.splitlines()[-1])["seconds"], cost.cpu, cost.anonymous)


def _lines(runs: Runs, size: int) -> list[str]:
    lines = [
        f"{size / 1e6:,.0f} MB, {len(runs[HUB])} interleaved runs.",
        "",
        "| | s: median (least to most) | MB/s | CPU s | peak anonymous MiB |",
        "|---|---|---|---|---|",
    ]
    for name, measured in runs.items():
        seconds = [one.seconds for one in measured]
        spread = f"{median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"
        cpu = median(one.cpu or 0.0 for one in measured)
        peak = max(one.anonymous or 0 for one in measured) / 2**20
        rate = size / median(seconds) / 1e6
        lines.append(f"| {name} | {spread} | {rate:.0f} | {cpu:.2f} | {peak:.0f} |")
    return [*lines, "", _verdict(runs)]


def _verdict(runs: Runs) -> str:
    # Of runs beside each other: a machine that is slow for a while is so for both.
    ratios = [ours.seconds / hub.seconds for ours, hub in zip(runs[OURS], runs[HUB], strict=True)]
    ratio = median(ratios)
    said = f"The hub door's throughput is {ratio:.2f}x of our own client's"
    if len(ratios) < ENOUGH_RUNS:
        return f"{said} (too few runs for a verdict)."
    reached = "reached" if ratio >= GOAL else "missed"
    return f"{said}; the goal, {GOAL}x, is {reached}."
