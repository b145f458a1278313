"""Which data sets the pretrained model learns anything of: others hardly tell bases apart."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress

from coldfusion_shared.data import TextDataset
from coldfusion_shared.errors import InvalidRequest, TrainingFailed
from experiments.lab import Lab, Pending
from experiments.settings import Learnt
from experiments.steps.finetuning import TUNING_SEED, finetuned

# Validation examples that it is decided by, at most.
DECIDED_BY = 500
# Of all rates together, and one-sided: half of what is outside an interval of 95%.
LEVEL = 0.025


def learnt_by_pretrained(lab: Lab) -> dict[str, Learnt]:
    """
    Return what the pretrained model learns of each data set from a contribution's examples.

    A data set is left out where the validation accuracy with none of the contributions' learning
    rates is above the share of the largest class by an exact binomial test (no information rate;
    Kuhn and Johnson 2013, 11.2), at `LEVEL` divided by the number of rates (Bonferroni). One with
    so few validation examples that not even a perfect score would be is kept. Neither test
    examples nor anything that is fused has a say.

    Args:
        lab: with all data sets. While it plans, all are kept.

    Raises:
        InvalidRequest: nothing is learnt of any.
        Pending: another process is at some of it.
    """
    found = _all_learnt(lab)
    if not any(one.kept for one in found.values()):
        raise InvalidRequest(
            f"The base learns nothing of any data set from {lab.settings.examples} examples.",
            hint="Give contributions more examples, more epochs or other learning rates, or set "
            "only_learnable: false.",
        )
    return found


def _all_learnt(lab: Lab) -> dict[str, Learnt]:
    found = {}
    for name in lab.data.names:
        # Other processes may be at some of them; the others are made here.
        with suppress(Pending):
            found[name] = _learnt(lab, name)
    if len(found) < len(lab.data.names):
        raise Pending
    return found


def _learnt(lab: Lab, name: str) -> Learnt:
    """Return what is learnt with the lowest rate that is enough, or else with the best one."""
    part = lab.data.part(name, lab.settings.examples, TUNING_SEED, scored=DECIDED_BY)
    found: list[Learnt] = []
    for rate in sorted(lab.settings.learning.lr):
        found.append(_decided(lab, part, rate))
        if found[-1].kept:
            break
    return max(found, key=lambda one: -1.0 if one.score is None else one.score)


def _decided(lab: Lab, part: TextDataset, rate: float) -> Learnt:
    size, level = len(part.validation), LEVEL / len(lab.settings.learning.lr)
    most = max(Counter(part.validation.strata).values())
    accuracy = _accuracy(lab, part, rate)
    right = round((accuracy or 0.0) * size)
    p_value = _chance(right, most, size)
    telling = _chance(size, most, size) < level
    return Learnt(
        score=None if accuracy is None else round(100 * right / size, 2),
        largest=round(100 * most / size, 2),
        p_value=p_value,
        kept=lab.planning or not telling or p_value < level,
    )


def _accuracy(lab: Lab, part: TextDataset, rate: float) -> float | None:
    """Return the share of validation examples that are right; null: the training diverged."""
    try:
        model = finetuned(lab, lab.pretrained, part, rate, 0)
    except TrainingFailed:
        return None
    return float(model.facts.get("validation", 0.0)) / 100


def _chance(right: int, most: int, size: int) -> float:
    """Return how often who guesses as often right as the largest class is has so many right."""
    from scipy.stats import binomtest

    return float(binomtest(right, size, most / size, alternative="greater").pvalue)
