"""Scoring bases on the data sets: frozen, finetuned, few-shot; and on validation parts."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from coldfusion_shared.evaluate.metrics import metrics_of
from coldfusion_shared.evaluate.results import Evaluated
from coldfusion_shared.evaluate.runner import evaluate_base
from coldfusion_shared.evaluate.software import kept_by
from coldfusion_shared.evaluate.suite import LoadedSuite, SuiteData
from coldfusion_shared.schemas.evaluations import Suite, SuiteDataset
from experiments.data import SUITE_SEED, TASK, halves, spread
from experiments.lab import Lab, Model
from experiments.notebook import Place
from experiments.settings import Settings
from experiments.steps.finetuning import best_on_parts
from experiments.steps.fusing import Score

FROZEN, FINETUNED, FEW_SHOT = "frozen", "finetuned", "few-shot"
SCORES = "scores.json"
# Of `halves`: those that bases are scored on where no test part is to be looked at, and those that
# something is chosen by.
JUDGED, CHOSEN_BY = 0, 1
# An example that is learnt from takes as long as so many that are only looked at.
LEARNING_COSTS = 3


def suite_of(
    lab: Lab, names: Sequence[str], seen: Collection[str] = (), *, chooses: bool = False
) -> LoadedSuite:
    """
    Return data sets to score bases on.

    Args:
        lab: whose limits hold.
        names: of data sets, in their order.
        seen: those that contributors may train on.
        chooses: whether something is chosen by the scores: they are of validation examples that
            no base is judged by.
    """
    settings = lab.settings
    half = None if settings.measuring.split == "test" else JUDGED
    half = CHOSEN_BY if chooses else half
    found = [_suite_data(lab, name, name in seen, half) for name in names]
    suite = Suite(
        name="experiments",
        datasets=[one.entry for one in found],
        max_length=settings.learning.max_length,
        seed=SUITE_SEED,
        few_shot=settings.measuring.few_shot,
        training=_training(settings),
    )
    return LoadedSuite(suite, tuple(found))


def _training(settings: Settings) -> dict[str, Any]:
    measuring = settings.measuring
    return {
        "epochs": measuring.epochs,
        "batch_size": settings.learning.batch_size,
        "few_shot_epochs": measuring.few_shot_epochs,
        "few_shot_batch_size": settings.learning.batch_size,
    }


def _suite_data(lab: Lab, name: str, seen: bool, half: int | None) -> SuiteData:
    limits, whole = lab.settings.measuring, lab.data.dataset(name)
    dataset = whole.capped(validation=limits.validation, test=limits.test, seed=SUITE_SEED)
    if half is not None:
        parts = [whole.validation.take(one) for one in halves(whole.validation, limits.validation)]
        dataset = replace(dataset, validation=parts[1 - half], test=parts[half])
    entry = SuiteDataset(
        name=name,
        task=TASK,
        metric=metrics_of(TASK)[0],
        labels=len(whole.labels),
        seen=seen,
        train=min(limits.train, len(whole.train)),
        validation=len(dataset.validation),
        test=len(dataset.test),
        digest=whole.digest if half is None else dataset.digest,
    )
    return SuiteData(entry, dataset, limits.few_shot)


def measured(
    lab: Lab,
    arm: str,
    iteration: int,
    model: Model,
    loaded: LoadedSuite,
    scoring: str,
    seed: int,
    rate: float | None = None,
) -> None:
    """
    Score a base, and write it into the notebook; a failure is written there, too.

    Args:
        lab: whose.
        arm: which of the compared things it is.
        iteration: round of its line.
        model: the base.
        loaded: data sets.
        scoring: frozen, finetuned or few-shot.
        seed: draws the training examples.
        rate: of learning, where something is learnt: `scoring_rate`.
    """
    with lab.failing(arm, iteration, seed):
        found = scored(lab, model, loaded, scoring, seed, rate)
        if found is not None and lab.notes:
            evaluated, seconds = found
            place = Place(arm, iteration, scoring)
            lab.notebook.enter(place, seed, evaluated, model.digest, seconds)


def scored(
    lab: Lab,
    model: Model,
    loaded: LoadedSuite,
    scoring: str,
    seed: int,
    rate: float | None = None,
) -> tuple[Evaluated, float] | None:
    """
    Return what one seed measures, and the seconds it took; null while planning.

    Raises:
        Pending: another process is at it, or at the model.
    """
    suite = loaded.suite
    if rate is not None:
        name = "few_shot_lr" if scoring == FEW_SHOT else "lr"
        suite = suite.model_copy(update={"training": {**suite.training, name: rate}})
    inputs = {
        "base": model.digest,
        "suite": suite.digest(),
        "scoring": scoring,
        "seed": seed,
        "by": kept_by(),
        "machine": lab.machine,
    }

    def build(folder: Path) -> dict[str, Any]:
        begun = time.monotonic()
        kept = _kept(lab)
        asked = replace(loaded, suite=suite)
        found = evaluate_base(model.folder(), asked, scoring, [seed], kept)
        (folder / SCORES).write_text(found.to_json(), encoding="utf-8")
        return {"seconds": round(time.monotonic() - begun, 2)}

    kind = "probe" if scoring == FROZEN else "measure"
    what = f"{len(loaded.datasets)} data sets, {scoring}, seed {seed}"
    made = lab.make(kind, what, inputs, _cost(loaded, scoring), build)
    if lab.planning:
        return None
    seconds = made.facts["seconds"]
    found = Evaluated.from_json((made.folder / SCORES).read_bytes())
    # The rate is each base's own, chosen alike for all: it is not what the suite is about. Names
    # and who has seen what are the suite's, whoever has measured it before.
    results = tuple(
        replace(result, name=data.entry.name, seen=data.entry.seen)
        for result, data in zip(found.results, loaded.datasets, strict=True)
    )
    return replace(found, suite=loaded.suite, results=results), seconds


def scoring_rate(lab: Lab, names: Sequence[str], scoring: str) -> float:
    """
    Return the learning rate that bases are scored with: what suits the pretrained model best.

    It is chosen on validation parts, and is the same for all: one of each base's own is the luck
    of a few finetunings, and where a data set then learns nothing, an average over data sets moves
    by more than most bases move it. What is wrong with it is in the pretrained model's favour.
    """
    measuring, few = lab.settings.measuring, scoring == FEW_SHOT
    return best_on_parts(
        lab,
        names,
        measuring.few_shot if few else measuring.train,
        measuring.few_shot_lr if few else measuring.lr,
        f"{scoring} scores of all bases",
        epochs=measuring.few_shot_epochs if few else measuring.epochs,
        # As the protocols of measuring do it.
        early_stopping=not few,
    )


def validation_score(lab: Lab, names: Sequence[str]) -> Score:
    """
    Return the mean frozen score on validation parts, for methods that choose by one.

    A greedy soup asks for it dozens of times: so it may be of some of the data sets alone.
    """
    chosen = spread(names, lab.settings.tuning.score_datasets)
    loaded = suite_of(lab, chosen, chosen, chooses=True)

    def measure(folder: Path) -> float:
        kept = _kept(lab)
        return evaluate_base(folder, loaded, FROZEN, [0], kept).average

    told = f"data sets that it chooses by, frozen on validation parts: {', '.join(chosen)}"
    lab.note("choice", "what needs a score", value=len(chosen), note=told)
    name = f"frozen validation {loaded.suite.digest()}"
    return Score(name, measure, _cost(loaded, FROZEN))


def _kept(lab: Lab) -> Path:
    """Return where evaluations keep features and results: those of other code are not found."""
    return lab.cache.folder / "kept" / lab.cache.code.replace("/", "-")


def _cost(loaded: LoadedSuite, scoring: str) -> float:
    """Return the examples that are looked at, those that are learnt from counting several times."""
    total = 0.0
    for data in loaded.datasets:
        entry, training = data.entry, loaded.suite.training
        total += entry.validation + entry.test
        if scoring == FROZEN:
            total += entry.train
        elif scoring == FEW_SHOT:
            total += LEARNING_COSTS * data.few_train * float(training["few_shot_epochs"] or 1)
        else:
            total += LEARNING_COSTS * entry.train * float(training["epochs"] or 1)
    return total
