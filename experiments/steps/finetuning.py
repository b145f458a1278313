"""Finetuning a base on a part of a data set, as a contributor does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from coldfusion_shared.data import TextDataset
from coldfusion_shared.errors import TrainingFailed
from coldfusion_shared.finetune import FinetuneSettings, finetune
from experiments.cache import MODEL
from experiments.data import spread
from experiments.lab import Lab, Model

# Of parts that rates are tried on; no line has it: nobody contributes just these.
TUNING_SEED = 2**31


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
    rates: Sequence[float],
    arm: str,
    tried: Callable[[float], Sequence[Model]],
) -> float:
    """
    Return the learning rate whose models do best on their validation examples.

    Args:
        lab: notes what was tried.
        rates: of one, nothing is tried.
        arm: whom it is for.
        tried: from a rate to what is learnt with it, which may raise `TrainingFailed`.

    Raises:
        Pending: another process is at one of them.
    """
    if len(rates) == 1:
        return rates[0]
    # All of them before any is looked at: where others are at some, there is one to make here.
    models = {rate: _models(tried, rate) for rate in rates}
    if lab.planning:
        return rates[0]
    scores = {rate: _validated(found) for rate, found in models.items()}
    best = max(rates, key=lambda rate: scores[rate])
    told = ", ".join(f"{rate:g}: {scores[rate]:.1f}" for rate in rates)
    note = f"learning rate by validation scores ({told})"
    if best in (min(rates), max(rates)):
        side = "lowest" if best == min(rates) else "highest"
        note += f", the {side} of those tried"
    lab.note("choice", arm, value=best, note=note)
    return best


def _models(tried: Callable[[float], Sequence[Model]], rate: float) -> Sequence[Model]:
    try:
        return tried(rate)
    except TrainingFailed:
        return ()


def _validated(found: Sequence[Model]) -> float:
    """Return the mean of what they score on their validation examples; of none, the least."""
    if not found:
        return float("-inf")
    return sum(float(one.facts.get("validation", 0.0)) for one in found) / len(found)


def best_on_parts(
    lab: Lab,
    names: Sequence[str],
    examples: int,
    rates: Sequence[float],
    arm: str,
    **options: Any,
) -> float:
    """
    Return the learning rate of `rates` that suits the pretrained model best on some data sets.

    Args:
        lab: says of how many.
        names: of data sets to take some of.
        examples: to learn from, of each.
        rates: of one, nothing is tried.
        arm: whom it is for.
        options: further settings of the finetunings.
    """
    chosen = spread(names, lab.settings.tuning.datasets)
    scored = lab.settings.measuring.validation
    parts = [lab.data.part(name, examples, TUNING_SEED, scored=scored) for name in chosen]
    return best_rate(
        lab,
        rates,
        arm,
        lambda rate: [finetuned(lab, lab.pretrained, part, rate, 0, **options) for part in parts],
    )


def contribution_rate(
    lab: Lab, names: Sequence[str], arm: str, examples: int | None = None, **options: Any
) -> float:
    """Return the learning rate of contributions, chosen on the pretrained model."""
    learning = lab.settings.learning
    rates = learning.lora_lr if options.get("lora") else learning.lr
    size = examples or lab.settings.examples
    return best_on_parts(lab, names, size, rates, arm, **options)
