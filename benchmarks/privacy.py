"""
What DP-SGD costs on real data: score, time and memory beside the same finetuning without it.

Every result is kept in a file of JSON lines as soon as it is there; a run that was stopped goes on
with what lacks.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.kept import Kept, key_of
from benchmarks.measure import OFFLINE, python, say

RESULTS = "privacy.jsonl"
PLAIN = {"early_stopping": False}


@dataclass(frozen=True)
class Settings:
    """
    What to measure.

    Attributes:
        folder: for the results.
        data: a folder with one folder for each data set.
        base: the pretrained model.
        name: of the data set.
        train: examples to learn from.
        test: examples that are scored.
        epsilons: to train with, beside a training without DP-SGD.
        common: settings of all trainings.
        private: settings of those with DP-SGD.
        history: measures of honest contributions, which the updates are screened beside.
    """

    folder: Path
    data: Path
    base: Path
    name: str
    train: int
    test: int
    epsilons: Sequence[float]
    common: Mapping[str, Any]
    private: Mapping[str, Any]
    history: Path


def table(settings: Settings) -> str:
    """Measure what was not measured yet, and return the table; a sentence if nothing can be."""
    if not (settings.data / settings.name).is_dir():
        return (
            f"Skipped: there is no {settings.name} in {settings.data}; name a folder with --data."
        )
    settings.folder.mkdir(parents=True, exist_ok=True)
    return "\n".join([*_heading(settings), *(_line(*row) for row in _rows(settings))])


def _rows(settings: Settings) -> Iterator[tuple[str, int, dict[str, Any]]]:
    kept = Kept(settings.folder / RESULTS)
    ways: dict[str, Mapping[str, Any]] = {"without": PLAIN}
    for epsilon in settings.epsilons:
        ways[f"epsilon {epsilon:g}"] = {"dp": True, "dp_epsilon": epsilon, **settings.private}
    for told, way in ways.items():
        order: dict[str, Any] = {
            "train": settings.train, "test": settings.test, "settings": {**settings.common, **way},
        }  # fmt: skip
        key = key_of(settings.name, order)
        found = kept.get(key)
        if found is None:
            say(f"{settings.name}, {told} ...")
            found = _measure(settings, {**order, "history": str(settings.history)})
            kept.put(key, found)
        yield told, order["settings"].get("batch_size", 16), found


def _measure(settings: Settings, order: dict[str, Any]) -> dict[str, Any]:
    done = subprocess.run(
        python(
            "benchmarks.privacy_once",
            *(str(settings.base), str(settings.data), settings.name, json.dumps(order)),
        ),
        env={**os.environ, **OFFLINE},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def _heading(settings: Settings) -> list[str]:
    common = ", ".join(f"{name} {value}" for name, value in settings.common.items())
    private = ", ".join(f"{name} {value}" for name, value in settings.private.items())
    return [
        f"{settings.name}, {settings.train} training examples, {settings.test} of test; {common}; "
        f"with DP-SGD {private}.",
        "",
        "| | accuracy, % | steps of | noise | s of CPU a step | ms an example | MB | length of the "
        "update, by the base | screening |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---|",
    ]


def _line(told: str, batch: int, found: dict[str, Any]) -> str:
    private, seconds = found["privacy"], found["step_seconds"]
    noise = f"{private['noise']:.2f}" if private else ""
    flagged = [name for name, (verdict, _) in found["findings"].items() if verdict != "pass"]
    return (
        f"| {told} | {found['score']:.1f} | {found['steps']} of {batch} | {noise} | {seconds:.2f} "
        f"| {1000 * seconds / batch:.0f} | {found['megabytes']:.0f} "
        f"| {found['relative_norm']:.4f} | {', '.join(flagged) or 'passes'} |"
    )
