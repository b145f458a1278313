"""Which data sets the pretrained model learns anything of: no other can tell bases apart."""

from __future__ import annotations

from collections import Counter

from coldfusion_shared.data import TextDataset
from coldfusion_shared.errors import InvalidRequest, TrainingFailed
from experiments.lab import Lab
from experiments.settings import Learnt
from experiments.steps.finetuning import TUNING_SEED, finetuned

# Validation examples that it is decided by, at most.
DECIDED_BY = 500
# One-sided: half of what is outside an interval of 95%.
LEVEL = 0.025


def learnt_by_pretrained(lab: Lab) -> dict[str, Learnt]:
    """
    Return what the pretrained model learns of each data set from a contribution's examples.

    A data set is kept where the validation accuracy is above the share of the largest class by an
    exact binomial test (no information rate; Kuhn and Johnson 2013, 11.2), with the first of the
    contributions' learning rates, from the lowest, that gets there. Neither test examples nor
    anything that is fused has a say.

    Args:
        lab: with all data sets. While it plans, all are kept.

    Raises:
        InvalidRequest: nothing is learnt of any.
    """
    found = {name: _learnt(lab, name) for name in lab.data.names}
    if not any(one.kept for one in found.values()):
        raise InvalidRequest(
            f"The base learns nothing of any data set from {lab.settings.examples} examples.",
            hint="Give contributions more examples or epochs, or set only_learnable: false.",
        )
    return found


def _learnt(lab: Lab, name: str) -> Learnt:
    part = lab.data.part(name, lab.settings.examples, TUNING_SEED, scored=DECIDED_BY)
    found = []
    for rate in sorted(lab.settings.learning.lr):
        found.append(_decided(lab, part, rate))
        if found[-1].kept:
            break
    return max(found, key=lambda one: one.score)


def _decided(lab: Lab, part: TextDataset, rate: float) -> Learnt:
    size = len(part.validation)
    right = round(_accuracy(lab, part, rate) * size)
    most = max(Counter(part.validation.strata).values())
    p_value = _chance(right, most, size)
    return Learnt(
        score=round(100 * right / size, 2),
        largest=round(100 * most / size, 2),
        p_value=p_value,
        kept=lab.planning or p_value < LEVEL,
    )


def _accuracy(lab: Lab, part: TextDataset, rate: float) -> float:
    try:
        model = finetuned(lab, lab.pretrained, part, rate, 0)
    except TrainingFailed:
        return 0.0
    return float(model.facts.get("validation", 0.0)) / 100


def _chance(right: int, most: int, size: int) -> float:
    """Return how often who guesses as often right as the largest class is has so many right."""
    from scipy.stats import binomtest

    return float(binomtest(right, size, most / size, alternative="greater").pvalue)
