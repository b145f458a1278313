"""Measuring a line as it goes, and single bases, by the run's settings."""

from __future__ import annotations

import random
from collections.abc import Sequence

from coldfusion_shared.evaluate.suite import LoadedSuite
from experiments.lab import Lab, Model
from experiments.steps.lines import Way, line
from experiments.steps.scoring import FINETUNED, FROZEN, measured, scoring_rate

PRETRAINED = "pretrained"


def scorings(lab: Lab) -> list[str]:
    """Return how last bases are scored: finetuned where the settings want it."""
    return [FINETUNED] if lab.settings.finetuned else []


def followed(
    lab: Lab,
    way: Way,
    seed: int,
    loaded: LoadedSuite,
    last: Sequence[str],
    as_seed: int | None = None,
) -> Model | None:
    """
    Run a line and score its bases.

    Args:
        lab: whose settings say how often.
        way: the line.
        seed: its seed.
        loaded: data sets.
        last: scorings of the last base beside frozen.
        as_seed: the seed that scores are drawn and noted with; null: the line's.

    Returns:
        The last base; null if the line came to nothing, which is noted.
    """
    measuring = lab.settings.measuring
    rounds = way.rounds or lab.settings.rounds
    noted = seed if as_seed is None else as_seed
    with lab.failing(way.arm, seed=seed):
        for iteration, model in line(lab, way, seed):
            if iteration % measuring.every == 0 or iteration == rounds:
                measured(lab, way.arm, iteration, model, loaded, FROZEN, noted)
            if iteration % measuring.finetuned_every == 0 or iteration == rounds:
                learnt(lab, way.arm, iteration, model, loaded, last, noted)
        return model
    return None


def looked_at(
    lab: Lab,
    arm: str,
    model: Model,
    seed: int,
    loaded: LoadedSuite,
    last: Sequence[str],
    iteration: int = 0,
) -> None:
    """Score one base in all ways."""
    measured(lab, arm, iteration, model, loaded, FROZEN, seed)
    learnt(lab, arm, iteration, model, loaded, last, seed)


def learnt(
    lab: Lab,
    arm: str,
    iteration: int,
    model: Model,
    loaded: LoadedSuite,
    last: Sequence[str],
    seed: int,
) -> None:
    """Score one base in ways that train it."""
    if FINETUNED in last:
        loaded = _some(loaded, lab.settings.finetuned_datasets)
    names = [data.entry.name for data in loaded.datasets]
    for scoring in last:
        with lab.failing(arm, iteration, seed):
            rate = scoring_rate(lab, names, scoring)
            measured(lab, arm, iteration, model, loaded, scoring, seed, rate)


def _some(loaded: LoadedSuite, most: int) -> LoadedSuite:
    """Return a suite of at most so many of the data sets, drawn once for all arms and seeds."""
    places = range(len(loaded.datasets))
    chosen = sorted(random.Random("finetuned").sample(places, min(most, len(places))))
    datasets = tuple(loaded.datasets[place] for place in chosen)
    entries = [data.entry for data in datasets]
    return LoadedSuite(loaded.suite.model_copy(update={"datasets": entries}), datasets)
