"""Finetuning a base on a part of a data set, as a contributor does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coldfusion_shared.data import TextDataset
from coldfusion_shared.errors import TrainingFailed
from coldfusion_shared.finetune import FinetuneSettings, finetune
from experiments.cache import MODEL
from experiments.lab import Lab, Model


def finetuned(
    lab: Lab, base: Model, part: TextDataset, lr: float, seed: int, **options: Any
) -> Model:
    """
    Return `base` finetuned on `part`.

    Args:
        lab: whose settings hold.
        base: what to begin with.
        part: what to learn from.
        lr: learning rate.
        seed: of the head and of the order.
        options: further settings of a finetuning.

    Raises:
        TrainingFailed: it diverges.
    """
    learning = lab.settings.learning
    chosen = {
        "epochs": learning.epochs,
        "batch_size": learning.batch_size,
        "max_length": learning.max_length,
        "early_stopping": False,
        **options,
    }
    settings = FinetuneSettings(lr=lr, seed=seed, **chosen)
    inputs = {
        "base": base.digest,
        "data": part.digest,
        "settings": settings.as_used(),
        "machine": lab.machine,
    }

    def build(folder: Path) -> dict[str, Any]:
        result = finetune(base.folder(), part, settings, folder / MODEL)
        return {
            "validation": result.validation,
            "test": result.test,
            "steps": result.steps,
            "seconds": round(result.seconds, 2),
            "dataset": part.name,
        }

    what = f"{part.name}, {len(part.train)} examples, lr {lr:g}, seed {seed}"
    cost = len(part.train) * settings.epochs
    return lab.make_model("finetune", what, inputs, cost, build)


def best_rate(
    lab: Lab,
    base: Model,
    parts: Sequence[TextDataset],
    rates: Sequence[float],
    arm: str,
    **options: Any,
) -> float:
    """
    Return the learning rate of `rates` that does best on the parts' validation examples.

    Args:
        lab: notes what was tried.
        base: what is finetuned.
        parts: to learn from, and to be scored on.
        rates: of one, nothing is tried.
        arm: whom it is for.
        options: further settings of the finetunings.
    """
    if len(rates) == 1:
        return rates[0]
    scores = [_validated(lab, base, parts, rate, options) for rate in rates]
    if lab.planning:
        return rates[0]
    best = max(range(len(rates)), key=lambda index: scores[index])
    tried = ", ".join(f"{r:g}: {s:.1f}" for r, s in zip(rates, scores, strict=True))
    lab.note("choice", arm, value=rates[best], note=f"learning rate by validation scores ({tried})")
    return rates[best]


def _validated(
    lab: Lab, base: Model, parts: Sequence[TextDataset], rate: float, options: dict[str, Any]
) -> float:
    try:
        found = [finetuned(lab, base, part, rate, 0, **options) for part in parts]
    except TrainingFailed:
        return float("-inf")
    return sum(float(one.facts.get("validation", 0.0)) for one in found) / len(found)


def tuning_parts(lab: Lab, names: Sequence[str], examples: int) -> list[TextDataset]:
    """Return parts that rates are chosen by: of some data sets, spread over `names`."""
    count = min(lab.settings.tuning.datasets, len(names))
    chosen = [names[index * len(names) // count] for index in range(count)]
    validation = lab.settings.measuring.validation
    # A seed that no line has: nobody contributes just these.
    return [lab.data.part(name, examples, 2**31, scored=validation) for name in chosen]


def contribution_rate(
    lab: Lab, names: Sequence[str], arm: str, examples: int | None = None, **options: Any
) -> float:
    """Return the learning rate of contributions, chosen on the pretrained model."""
    learning = lab.settings.learning
    rates = learning.lora_lr if options.get("lora") else learning.lr
    parts = tuning_parts(lab, names, examples or lab.settings.examples)
    return best_rate(lab, lab.pretrained, parts, rates, arm, **options)
