"""
The fuse beside its physical limit: reading all models once and writing one.

The limit is `cat` of the same files and a synced copy of one of them. Every run is a whole process;
what Python and its imports cost is measured as a process of its own. Runs are interleaved, and the
best of each is compared, because whatever else the machine does only ever adds.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.measure import Measurement, python, run
from benchmarks.models import write_models

IMPORTS = "import coldfusion_shared.fusion.engine"


def table(folder: Path, contributions: int, layers: int, repeats: int) -> str:
    """Generate the models, run everything `repeats` times in turn, and return a Markdown table."""
    base, models = write_models(folder / f"layers{layers}", contributions, layers)
    files = [str(model / "model.safetensors") for model in models]
    out = folder / "fused.safetensors"
    copy = f"cat {' '.join(files)} > /dev/null && dd if={files[0]} of={out} bs=1M conv=fsync"
    programs = {
        "limit: read all, write one": ["sh", "-c", copy],
        "start-up: Python and imports": [sys.executable, "-c", IMPORTS],
    }
    for threads in (1, 2):
        arguments = [str(threads), str(out), str(base), *map(str, models)]
        programs[f"mean, threads: {threads}"] = python("benchmarks.fuse_once", *arguments)
    runs: dict[str, list[Measurement]] = {name: [] for name in programs}
    for _ in range(repeats):
        for name, command in programs.items():
            runs[name].append(run(command))
    out.unlink()
    size = sum(Path(file).stat().st_size for file in files)
    return "\n".join([f"{contributions} models, {size / 1e9:.1f} GB in all", "", *_rows(runs)])


def _rows(runs: dict[str, list[Measurement]]) -> list[str]:
    limit, start, *means = runs.values()
    lines = [
        "| | CPU s (min / median) | wall s (min / median) | peak anonymous MB |",
        "|---|---|---|---|",
    ]
    for name, measured in runs.items():
        cpu, wall = _pair([one.cpu for one in measured]), _pair([one.wall for one in measured])
        peak = max(one.anonymous for one in measured) / 1e6
        lines.append(f"| {name} | {cpu} | {wall} | {peak:.0f} |")
    for name, mean in zip(list(runs)[2:], means, strict=True):
        cpu_ratio = (_best_cpu(mean) - _best_cpu(start)) / _best_cpu(limit)
        wall_ratio = (_best_wall(mean) - _best_wall(start)) / _best_wall(limit)
        what = f"{name}, without start-up, as a multiple of the limit"
        lines.append(f"| {what} | {cpu_ratio:.2f} | {wall_ratio:.2f} | |")
    return lines


def _pair(values: Sequence[float]) -> str:
    return f"{min(values):.2f} / {median(values):.2f}"


def _best_cpu(runs: Sequence[Measurement]) -> float:
    return min(one.cpu for one in runs)


def _best_wall(runs: Sequence[Measurement]) -> float:
    return min(one.wall for one in runs)
