"""How long a run would take here, by a few jobs that are measured."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from experiments.cache import Cache
from experiments.lab import Lab
from experiments.steps.finetuning import finetuned
from experiments.steps.scoring import FROZEN, LEARNING_COSTS, scored, suite_of

# Examples of the finetunings that are measured: what is the same for both is told from the rest.
FEW, MORE = 16, 112
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
    names = lab.data.names
    # The first one loads libraries, too.
    _finetuned(lab, FEW, SEED + 1)
    few, more = (_finetuned(lab, size, SEED) for size in (FEW, MORE))
    learnt = max(more - few, 0.0) / ((MORE - FEW) * lab.settings.learning.epochs)
    scored(lab, lab.pretrained, suite_of(lab, names[:1]), FROZEN, SEED)
    loaded = suite_of(lab, names[-1:])
    begun = time.monotonic()
    scored(lab, lab.pretrained, loaded, FROZEN, SEED + 1)
    entry = loaded.datasets[0].entry
    texts = entry.train + entry.validation + entry.test
    job = max(few - learnt * FEW * lab.settings.learning.epochs, 0.0)
    return Speed(job, learnt, (time.monotonic() - begun) / texts)


def _finetuned(lab: Lab, examples: int, seed: int) -> float:
    """Return the seconds that a finetuning takes."""
    # Of the data set with the most examples: others may have fewer than are wanted.
    part = lab.data.part(lab.data.largest(), examples, seed)
    begun = time.monotonic()
    finetuned(lab, lab.pretrained, part, RATE, seed)
    return time.monotonic() - begun
