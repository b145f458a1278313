"""How long a run would take here, by a few jobs that are measured."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from coldfusion_shared.evaluate.suite import LoadedSuite
from experiments.cache import Cache
from experiments.data import spread
from experiments.lab import Lab
from experiments.steps.finetuning import finetuned
from experiments.steps.scoring import FROZEN, LEARNING_COSTS, scored, suite_of

# Examples of the finetunings that are measured: what is the same for both is told from the rest.
FEW, MORE = 16, 112
# Data sets that are measured: texts of one may be several times as long as those of another.
MEASURED = 3
# A seed that no line has, and a rate that harms nothing.
SEED, RATE = 2**31, 1e-4
# Seconds of what is not measured: a fuse of one update.
FUSED = 0.5


@dataclass(frozen=True)
class Speed:
    """
    What was measured, in seconds.

    Attributes:
        job: what a finetuning takes whatever it learns from: to load, score and save.
        learnt: an example that is learnt from once.
        looked: an example that a probe looks at, with its share of the fits.
    """

    job: float
    learnt: float
    looked: float

    def seconds(self, kind: str, jobs: int, cost: float) -> float:
        """Return about what so many jobs of a kind with so much work together take."""
        if kind == "finetune":
            return jobs * self.job + cost * self.learnt
        if kind in ("multitask", "pretrain"):
            return cost * self.learnt
        if kind == "measure":
            return cost * self.learnt / LEARNING_COSTS
        return cost * (self.looked if kind in ("probe", "soup") else FUSED)


class Took(NamedTuple):
    """What finetunings learnt from, and the time that they took."""

    examples: int
    seconds: float


def estimated(lab: Lab) -> float:
    """Return about the seconds that what was counted takes, and tell what there is of each kind."""
    with TemporaryDirectory() as folder:
        speed = _speed(replace(lab, cache=Cache(Path(folder), lab.cache.most_bytes)))
    total = 0.0
    for kind, jobs in lab.clock.expected.items():
        seconds = speed.seconds(kind, len(jobs), sum(jobs.values()))
        total += seconds
        lab.clock.say(f"{kind}: {len(jobs)} jobs, about {seconds / 60:.0f} minutes")
    return total


def _speed(lab: Lab) -> Speed:
    names, epochs = spread(lab.data.names, MEASURED), lab.settings.learning.epochs
    # The first ones load libraries, too.
    _finetuned(lab, names[0], FEW, SEED + 1)
    scored(lab, lab.pretrained, suite_of(lab, names[:1]), FROZEN, SEED)
    few, more = (_all_finetuned(lab, names, size) for size in (FEW, MORE))
    # Data sets may have no more than few examples each.
    learnt = max(more.seconds - few.seconds, 0.0) / max(
        (more.examples - few.examples) * epochs, 1.0
    )
    job = max(few.seconds - learnt * few.examples * epochs, 0.0) / len(names)
    loaded = suite_of(lab, names)
    begun = time.monotonic()
    scored(lab, lab.pretrained, loaded, FROZEN, SEED + 1)
    looked = (time.monotonic() - begun) / _texts(loaded)
    return Speed(job, learnt, looked)


def _texts(loaded: LoadedSuite) -> int:
    return sum(one.entry.train + one.entry.validation + one.entry.test for one in loaded.datasets)


def _all_finetuned(lab: Lab, names: Sequence[str], examples: int) -> Took:
    took = [_finetuned(lab, name, examples, SEED) for name in names]
    return Took(sum(one.examples for one in took), sum(one.seconds for one in took))


def _finetuned(lab: Lab, name: str, examples: int, seed: int) -> Took:
    part = lab.data.part(name, examples, seed)
    begun = time.monotonic()
    finetuned(lab, lab.pretrained, part, RATE, seed)
    return Took(len(part.train), time.monotonic() - begun)
