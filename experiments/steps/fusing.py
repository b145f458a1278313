"""Fusing models into a base, by the project's engine."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coldfusion_shared.finetune.threads import available_cores
from coldfusion_shared.fusion.folders import Contribution, Job, fuse_folders
from coldfusion_shared.fusion.views import MASTER
from coldfusion_shared.schemas.recipes import Recipe
from experiments.cache import MODEL
from experiments.lab import Lab, Model


@dataclass(frozen=True)
class Update:
    """
    What one contributor has sent.

    Attributes:
        name: no other one of the round has it.
        model: the finetuned model.
        made_from: its base, where that is an older one than the round's.
        age: rounds between the two.
    """

    name: str
    model: Model
    made_from: Model | None = None
    age: int = 0


@dataclass(frozen=True)
class Score:
    """
    What methods that choose by score go by.

    Attributes:
        name: all that it depends on.
        measure: from a model's folder to its score.
        cost: texts that it looks at.
    """

    name: str
    measure: Callable[[Path], float]
    cost: float = 0.0


def fused(
    lab: Lab,
    base: Model,
    updates: Sequence[Update],
    recipe: Recipe,
    *,
    dtype: str | None = None,
    forget: bool = False,
    score: Score | None = None,
) -> Model:
    """
    Return the base that `recipe` makes of `base` and `updates`.

    Args:
        lab: where it is made.
        base: what is fused onto.
        updates: the contributions, in their order.
        recipe: how.
        dtype: of the result's weights; null: the base's.
        forget: drop the float32 master of a coarser base, so that the next round goes on from
            what was rounded.
        score: for methods that choose by score.

    Raises:
        NonFiniteWeights, InvalidRequest: they cannot be fused so.
    """
    inputs = {
        "base": base.name,
        "updates": [_named(update) for update in updates],
        "recipe": recipe.model_dump(mode="json"),
        "dtype": dtype,
        "forget": forget,
        "score": score.name if score else None,
    }

    def build(folder: Path) -> dict[str, Any]:
        job = Job(
            base=base.folder(),
            contributions=[_contribution(update) for update in updates],
            recipe=recipe,
            out=folder / MODEL,
            dtype=dtype,
            origin=lab.pretrained.folder(),
            score=score.measure if score else None,
        )
        report = fuse_folders(job, available_cores())
        if forget:
            shutil.rmtree(folder / MODEL / MASTER, ignore_errors=True)
        return told(report.model_dump(mode="json"))

    what = f"{len(updates)} updates by {recipe.method}"
    if score is None:
        return lab.make_model("fuse", what, inputs, len(updates), build)
    # Each update is scored alone, then each with those that were taken.
    return lab.make_model("soup", what, inputs, (2 * len(updates) - 1) * score.cost, build)


def by_method(recipe: Recipe, method: str) -> Recipe:
    """
    Return `recipe` with another method, for a comparison of methods.

    An automatic rate goes by the updates as they came, whatever the method makes of them: a single
    huge one would make the step of a method small that is not impressed by it. So it is 1 then.
    """
    changed: dict[str, Any] = {"method": method, "parameters": {}}
    if recipe.server_lr == "auto":
        changed["server_lr"] = 1.0
    return recipe.model_copy(update=changed)


def told(report: dict[str, Any]) -> dict[str, Any]:
    """Return of a fuse's report what experiments ask for."""
    names = ("server_lr", "step_norm", "base_norm", "relative_norm", "mean_cosine")
    found = {name: report[name] for name in names if name in report}
    return {**found, "contributions": report.get("contributions")}


def _named(update: Update) -> list[Any]:
    made_from = update.made_from.digest if update.made_from else None
    return [update.name, update.model.digest, made_from, update.age]


def _contribution(update: Update) -> Contribution:
    made_from = update.made_from.folder() if update.made_from else None
    return Contribution(update.name, update.model.folder(), made_from, age=update.age)
