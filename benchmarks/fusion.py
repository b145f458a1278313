"""
The fuse beside its physical limit (reading all models once and writing one) and beside its peers.

The limit is `cat` of the same files and a synced copy of one of them. Every run is a whole process,
and what Python and imports cost is measured as a process of its own, for ours and for each peer.
Runs are interleaved, and the best of each is compared, because whatever else the machine does only
ever adds. Peers take minutes, so they run less often. Every output is looked at: it must have all
tensors, and the results of peers are compared with ours.

The peers live in an environment of their own, which need not have anything of this project::

    python3.11 -m venv /tmp/peers
    /tmp/peers/bin/pip install -r benchmarks/peers.txt
    python -m benchmarks --peers /tmp/peers/bin/python

A peer that is not installed there has a row that says so. mergekit is run as its own program on a
configuration; of Flower the aggregation is called directly, without a network (`flwr_once.py`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.measure import Measurement, run
from benchmarks.models import linked, value_count, write_models
from benchmarks.programs import (
    FLWR,
    LIMIT,
    MERGEKIT,
    START,
    Floats,
    Inputs,
    Program,
    largest_tensor,
    limit,
    ours,
    peers,
    sample,
    start_up,
)
from coldfusion_shared.weights.checkpoint import Checkpoint

# Of the machine that the budget was written for.
THREADS = 2
OTHER_METHODS = ("norm_clipped_mean", "geometric_median", "median", "trimmed_mean", "ties")
MEASURED_FOR_MEMORY = ("mean", "ties", "median")
NOT_INSTALLED = "not installed"

# With fewer runs a ratio is shown, but no verdict: single runs of the limit varied threefold.
ENOUGH_RUNS = 5

# Above what rounding does, in units of the update's root mean square.
OFF = 1e-3

# Ours and a peer's of which the results should be the same.
SAME = {
    f"{MERGEKIT}: linear": "mean",
    f"{MERGEKIT}: ties": "ties",
    f"{FLWR}: mean": "mean",
    f"{FLWR}: median": "median",
    f"{FLWR}: trimmed_mean": "trimmed_mean",
}


@dataclass(frozen=True)
class Settings:
    """
    What is measured, and how often.

    Attributes:
        folder: for models and outputs.
        contributions: models to fuse.
        layers: their size; 12 is RoBERTa-base.
        repeats: interleaved runs of ours and the limit.
        peer_repeats: of these, runs with the peers.
        peers: the interpreter that has the peers.
        memory_layers: size of the models by which memory is compared; 0: it is not.
        many: the large number of contributions by which memory is compared.
    """

    folder: Path
    contributions: int
    layers: int
    repeats: int
    peer_repeats: int
    peers: str
    memory_layers: int
    many: int


@dataclass(frozen=True)
class Results:
    """Runs of each program, by name, and some values of what it wrote."""

    runs: Mapping[str, Sequence[Measurement]]
    values: Mapping[str, Floats]


def table(settings: Settings) -> str:
    """Generate the models, run everything in turn, and return Markdown tables."""
    models = settings.folder / f"roberta{settings.layers}"
    base, folders = write_models(models, settings.contributions, settings.layers)
    inputs = Inputs(base, folders, settings.folder)
    results = _measured(_programs(inputs, settings.peers), inputs, settings)
    size = settings.contributions * 4 * value_count(settings.layers) / 1e9
    lines = [
        f"{settings.contributions} models of {settings.layers} layers, {size:.1f} GB in all; "
        f"whole processes. Peak anonymous memory is of the process itself, without children.",
        "",
        *_cost_rows(results.runs),
        "",
        *_goal_rows(results.runs),
        "",
        *_difference_rows(results.values, base),
    ]
    if settings.memory_layers:
        lines += ["", *_memory_rows(settings)]
    return "\n".join(lines)


def _programs(inputs: Inputs, interpreter: str) -> dict[str, Program]:
    programs = {LIMIT: limit(inputs), START: start_up()}
    for threads in (1, 2):
        programs[_name("mean", threads)] = ours(inputs, "mean", threads)
        programs[_name("mean and Gram", threads)] = ours(inputs, "mean", threads, gram=True)
    for method in OTHER_METHODS:
        programs[_name(method)] = ours(inputs, method, THREADS)
    return programs | peers(inputs, interpreter)


def _name(method: str, threads: int = THREADS) -> str:
    return f"ours: {method}, threads: {threads}"


def _measured(programs: Mapping[str, Program], inputs: Inputs, settings: Settings) -> Results:
    _warm(programs)
    runs: dict[str, list[Measurement]] = {name: [] for name in programs}
    values: dict[str, Floats] = {}
    for repeat in range(max(settings.repeats, settings.peer_repeats)):
        for name, program in programs.items():
            wanted = settings.peer_repeats if program.is_peer else settings.repeats
            if program.command is None or repeat >= wanted:
                continue
            runs[name].append(_run(program))
            written = sample(program, inputs.base)
            if written is not None:
                values[name] = written
            _remove(program.output)
    _remove(inputs.folder / "copy")
    return Results(runs, values)


def _warm(programs: Mapping[str, Program]) -> None:
    """Read all models and import everything once, so that the first run finds what others find."""
    for name, program in programs.items():
        if program.command is not None and (name == LIMIT or "start-up" in name):
            run(program.command)


def _run(program: Program) -> Measurement:
    """Run it with nothing of an earlier run to find, and nothing of another's to write back."""
    assert program.command is not None, "the caller leaves out what is not installed"
    _remove(program.output)
    os.sync()
    return run(program.command)


def _remove(output: Path | None) -> None:
    if output is not None and output.is_dir():
        shutil.rmtree(output)
    elif output is not None:
        output.unlink(missing_ok=True)


def _cost_rows(runs: Mapping[str, Sequence[Measurement]]) -> list[str]:
    lines = [
        "| | runs | CPU s (min / median) | wall s (min / median) | peak anonymous MB |",
        "|---|---|---|---|---|",
    ]
    for name, measured in runs.items():
        if not measured:
            lines.append(f"| {name} | {NOT_INSTALLED} | | | |")
            continue
        cpu, wall = _pair([one.cpu for one in measured]), _pair([one.wall for one in measured])
        peak = _peak(measured) / 1e6
        # The shell's own memory says nothing of its children's.
        shown = "" if name == LIMIT else f"{peak:.0f}"
        lines.append(f"| {name} | {len(measured)} | {cpu} | {wall} | {shown} |")
    return lines


@dataclass(frozen=True)
class _Goal:
    """
    A ratio of best figures, and where it should be; null where a program is not installed.

    Attributes:
        bare: the same with start-up taken off both, where the goal is for whole processes.
        runs: how often the one of ours, and the limit where it is the measure, were run.
    """

    what: str
    ratio: float | None
    wanted: float
    at_least: bool = False
    bare: float | None = None
    runs: int = 0

    def row(self) -> str:
        goal = f"{'at least' if self.at_least else 'at most'} {self.wanted:g}"
        if self.ratio is None:
            return f"| {self.what} | {NOT_INSTALLED} | {goal} | | |"
        met = self.ratio >= self.wanted if self.at_least else self.ratio <= self.wanted
        bare = "" if self.bare is None else f"{self.bare:.2f}"
        verdict = "met" if met else "missed"
        if self.runs < ENOUGH_RUNS:
            verdict = "too few runs to say"
        return f"| {self.what} | {self.ratio:.2f} | {goal} | {verdict} | {bare} |"


def _goal_rows(runs: Mapping[str, Sequence[Measurement]]) -> list[str]:
    return [
        "| ratio of the best runs | measured | goal | | start-up taken off both |",
        "|---|---|---|---|---|",
        *[goal.row() for goal in [*_limit_goals(runs), *_peer_goals(runs)]],
    ]


def _limit_goals(runs: Mapping[str, Sequence[Measurement]]) -> list[_Goal]:
    goals = []
    for method, most in (("mean", 1.8), ("mean and Gram", 3.0)):
        for threads in (1, 2):
            name = _name(method, threads)
            what = f"{name}: start-up taken off, as a multiple of the limit's"
            goals.append(
                _Goal(
                    f"{what} CPU", _beyond_start(runs, name, _best_cpu), most, runs=len(runs[name])
                )
            )
            if method == "mean":
                wall = _beyond_start(runs, name, _best_wall)
                goals.append(_Goal(f"{what} wall", wall, 1.3, runs=len(runs[name])))
    return goals


def _peer_goals(runs: Mapping[str, Sequence[Measurement]]) -> list[_Goal]:
    pairs = [
        (_name("mean", 1), f"{MERGEKIT}: linear", 3.0),
        (_name("mean", 2), f"{MERGEKIT}: linear", 3.0),
        (_name("median"), f"{FLWR}: median", 8.0),
        (_name("trimmed_mean"), f"{FLWR}: trimmed_mean", 8.0),
        (_name("ties"), f"{MERGEKIT}: ties", 20.0),
    ]
    goals = []
    for name, peer, least in pairs:
        what = f"{peer}: CPU of the whole process, as a multiple of {name}"
        if not runs[peer]:
            goals.append(_Goal(what, None, least, at_least=True))
            continue
        theirs, own = _best_cpu(runs[peer]), _best_cpu(runs[name])
        start = _best_cpu(runs[f"{peer.split(':')[0]}: start-up"])
        bare = (theirs - start) / (own - _best_cpu(runs[START]))
        goals.append(_Goal(what, theirs / own, least, True, bare, len(runs[name])))
    return goals


def _difference_rows(values: Mapping[str, Floats], base: Path) -> list[str]:
    """Say whether peers do the same as ours: a ratio of two different things would mean nothing."""
    with Checkpoint.from_folder(base) as opened:
        before = largest_tensor(opened)
    lines = [
        f"| {len(before)} values beside ours, in units of the fused update's RMS "
        f"| largest difference | share of values off by more than {OFF:g} |",
        "|---|---|---|",
    ]
    for peer, method in SAME.items():
        if peer not in values:
            lines.append(f"| {peer} | {NOT_INSTALLED} | |")
            continue
        fused = values[_name(method)]
        scale = float(np.sqrt(np.mean(np.square(fused - before, dtype=np.float64))))
        gaps = np.abs(values[peer] - fused) / scale
        lines.append(f"| {peer} | {gaps.max():.1e} | {np.mean(gaps > OFF):.1e} |")
    return lines


def _memory_rows(settings: Settings) -> list[str]:
    """Compare memory over numbers of contributions and sizes; links keep the disk from filling."""
    few, small = settings.contributions, settings.memory_layers
    large = _layers_of(4 * value_count(small))
    cases = [(small, few), (small, settings.many), (large, few)]
    shown = [f"K = {count}, {4 * value_count(layers) / 1e6:.0f} MB each" for layers, count in cases]
    lines = [
        f"Peak anonymous MB; models of {small} and of {large} layers, {THREADS} threads, one run "
        "each; K models are links to two in turn.",
        "",
        f"| | {' | '.join(shown)} |",
        "|---|---|---|---|",
    ]
    peaks = [_peaks(settings.folder, layers, count) for layers, count in cases]
    for method in peaks[0]:
        lines.append(f"| {method} | {' | '.join(f'{peak[method]:.0f}' for peak in peaks)} |")
    return lines


def _layers_of(values: int) -> int:
    """Return how many layers make a model of at least so many values."""
    layers = 1
    while value_count(layers) < values:
        layers += 1
    return layers


def _peaks(folder: Path, layers: int, count: int) -> dict[str, float]:
    base, models = write_models(folder / f"roberta{layers}", 2, layers)
    inputs = Inputs(base, linked(folder / f"links{layers}", models, count), folder)
    programs = {method: ours(inputs, method, THREADS) for method in MEASURED_FOR_MEMORY}
    programs["mean and Gram"] = ours(inputs, "mean", THREADS, gram=True)
    peaks = {}
    for name, program in programs.items():
        peaks[name] = _run(program).anonymous / 1e6
        sample(program, base)
        _remove(program.output)
    return peaks


def _pair(values: Sequence[float]) -> str:
    return f"{min(values):.2f} / {median(values):.2f}"


def _beyond_start(
    runs: Mapping[str, Sequence[Measurement]],
    name: str,
    best: Callable[[Sequence[Measurement]], float],
) -> float:
    return (best(runs[name]) - best(runs[START])) / best(runs[LIMIT])


def _best_cpu(runs: Sequence[Measurement]) -> float:
    return min(one.cpu for one in runs)


def _best_wall(runs: Sequence[Measurement]) -> float:
    return min(one.wall for one in runs)


def _peak(runs: Sequence[Measurement]) -> int:
    return max(one.anonymous for one in runs)
