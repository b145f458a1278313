"""What a fuse was made of and how its updates relate: numbers for programs, a table for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from coldfusion_shared.fusion.gram import Gram, norms
from coldfusion_shared.fusion.plan import Plan
from coldfusion_shared.fusion.step import Step
from coldfusion_shared.schemas.recipes import Recipe


class Section(BaseModel):
    """Base of the report's parts."""

    model_config = ConfigDict(frozen=True)


class ContributionReport(Section):
    """One contribution's part in the fuse."""

    name: str
    weight: float | None = Field(description="in the fused update; null: value by value")
    prior: float = Field(description="weight that the maintainer gave")
    age: int = Field(description="rounds between its base and the one that is fused onto")
    discount: float = Field(description="factor of the update, from its age")
    taken: bool = Field(description="whether anything of it went into the fused update")
    norm: float | None = Field(default=None, description="Euclidean norm of the update")
    cosine_to_mean: float | None = Field(default=None, description="with the mean of all updates")
    zeros: float | None = Field(default=None, description="share of the values that did not change")
    changed_integers: list[str] = Field(
        default=[], description="integer tensors that differ from the base's; they are left alone"
    )


class TensorReport(Section):
    """One tensor of the updates."""

    norms: list[float]
    mean_cosine: float | None = Field(description="between pairs of updates; null for one update")


class Report(Section):
    """A whole fuse."""

    format: Annotated[int, Field(description="of this file")] = 1
    software: str
    base: str
    recipe: Recipe
    server_lr: float
    dtype: str | None = Field(description="of the weights that were written; null: the base's own")
    contributions: list[ContributionReport]
    cosines: list[list[float]] | None = Field(
        default=None, description="between the updates; null if they were not compared"
    )
    sign_agreement: float | None = Field(
        default=None, description="1: the updates pull every value the same way"
    )
    update_norm: float | None = Field(
        default=None, description="norm of the fused update, before the server learning rate"
    )
    base_norm: float | None = Field(
        default=None, description="norm of what the step was added to; only what is fused counts"
    )
    step_norm: float | None = Field(
        default=None, description="norm of the step, the new weights less those of the base"
    )
    step_factor: float | None = Field(
        default=None, description="what the cap on the step left of it; null: everything"
    )
    tensors: dict[str, TensorReport] = {}


def make_report(
    plan: Plan,
    gram: Gram | None,
    step: Step,
    *,
    base: str,
    software: str,
    dtype: str | None,
    changed_integers: Sequence[list[str]],
) -> Report:
    """
    Describe the fuse that `plan` decided.

    Args:
        plan: of the fuse.
        gram: of its updates; null if they were not compared.
        step: how far it moved the base.
        base: name of the base.
        software: program and version.
        dtype: of the weights that were written.
        changed_integers: for each update the integer tensors that differ from the base's.
    """
    return Report(
        software=software,
        base=base,
        recipe=plan.recipe,
        server_lr=plan.server_lr,
        dtype=dtype,
        contributions=_contributions(plan, gram, changed_integers),
        cosines=None if gram is None else gram.cosines.tolist(),
        sign_agreement=None if gram is None else gram.sign_agreement,
        update_norm=None
        if gram is None or plan.weights is None
        else float(np.sqrt(plan.square_norm(gram))),
        base_norm=step.base_norm,
        step_norm=step.norm,
        step_factor=None if step.factor == 1 else step.factor,
        tensors={} if gram is None else _tensors(gram),
    )


def _contributions(
    plan: Plan, gram: Gram | None, changed_integers: Sequence[list[str]]
) -> list[ContributionReport]:
    weights, toward = plan.mean_weights, None if gram is None else cosines_to_mean(gram)
    taken = {update.id for update in plan.taken}
    return [
        ContributionReport(
            name=update.id,
            weight=None if weights is None else weights[place],
            prior=update.prior,
            age=update.age,
            discount=update.discount,
            taken=update.id in taken and (weights is None or weights[place] != 0),
            norm=None if gram is None else float(gram.norms[place]),
            cosine_to_mean=None if toward is None else float(toward[place]),
            zeros=None if gram is None else float(gram.sparsity[place]),
            changed_integers=changed_integers[place],
        )
        for place, update in enumerate(plan.updates)
    ]


def cosines_to_mean(gram: Gram) -> list[float]:
    """Return each update's cosine with the mean of all, 0 where one of the two is 0."""
    along = gram.total.mean(axis=1)
    scale = gram.norms * np.sqrt(max(0.0, float(gram.total.mean())))
    cosines = np.divide(along, scale, out=np.zeros_like(along), where=scale > 0)
    return [float(value) for value in np.clip(cosines, -1, 1)]


def _tensors(gram: Gram) -> dict[str, TensorReport]:
    pairs = np.triu_indices(len(gram.ids), 1)
    found = {}
    for name, tensor in gram.tensors.items():
        lengths = norms(tensor.products)
        scale = np.outer(lengths, lengths)
        cosines = np.divide(
            tensor.products, scale, out=np.zeros_like(tensor.products), where=scale > 0
        )
        mean = float(cosines[pairs].mean()) if len(gram.ids) > 1 else None
        found[name] = TensorReport(norms=lengths.tolist(), mean_cosine=mean)
    return found
