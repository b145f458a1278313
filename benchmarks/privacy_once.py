"""One finetuning with DP-SGD or without, and what screening says of it; prints a line of JSON."""

from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import asdict
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.honest_runs import data_of
from benchmarks.kept import Kept
from benchmarks.screened import findings, see, seen_before
from benchmarks.sent import Sent
from coldfusion_shared.finetune import FinetuneSettings, finetune
from coldfusion_shared.finetune.training import ADAPTER_FOLDER
from coldfusion_shared.weights.checkpoint import Checkpoint
from coldfusion_shared.weights.layout import SINGLE_FILE
from coldfusion_shared.weights.write import write_body

VALIDATION = 50


class StepClock:
    """Seconds of CPU time of every step but the first, which warms up."""

    def __init__(self) -> None:
        """Begin before the first step."""
        self.ends: list[float] = []

    def __call__(self, done: int, total: int, loss: float) -> None:
        """Note the end of a step."""
        self.ends.append(time.process_time())

    @property
    def step(self) -> float:
        """The median."""
        return median(b - a for a, b in zip(self.ends, self.ends[1:], strict=False))


def measured(base: Path, data: Path, name: str, order: dict[str, Any]) -> dict[str, Any]:
    """
    Finetune, screen, and tell what both have shown.

    Args:
        base: the model folder.
        data: a folder with one folder for each data set.
        name: of the data set.
        order: examples of `train` and `test`, `settings`, and the file `history` of contributions
            that the update is compared with.
    """
    chosen = FinetuneSettings(**order["settings"])
    sizes = {split: order[split] for split in ("train", "test")}
    dataset = data_of(data, name).capped(**sizes, validation=VALIDATION, seed=chosen.seed)
    clock = StepClock()
    with TemporaryDirectory() as folder:
        out = Path(folder, "out")
        result = finetune(base, dataset, chosen, out, clock)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        sent = _sent(out, base, lora=chosen.lora)
        seen = see(Kept(Path(folder, "seen.jsonl")), "it", sent, base, "it", "it", 0)
    others = [one.other() for one in seen_before(Kept(Path(order["history"])), ".*")]
    found = findings(seen, [one for one in others if one is not None], {})
    return {
        "score": result.test,
        "steps": result.steps,
        "step_seconds": clock.step,
        "megabytes": peak / 1024,
        "privacy": asdict(result.privacy) if result.privacy else None,
        "findings": {one.check: [one.verdict, one.measured] for one in found},
        "relative_norm": seen.measures.relative_norm if seen.measures else None,
    }


def _sent(finetuned: Path, base: Path, *, lora: bool) -> Sent:
    if lora:
        return Sent("lora", finetuned / ADAPTER_FOLDER)
    folder = finetuned / "sent"
    folder.mkdir()
    with Checkpoint.from_folder(finetuned) as weights, Checkpoint.from_folder(base) as ours:
        write_body(weights, ours, folder / SINGLE_FILE)
    return Sent("full", folder)


def main() -> None:
    """Measure what the arguments ask for."""
    base, data, name, order = sys.argv[1:]
    found = measured(Path(base), Path(data), name, json.loads(order))
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
