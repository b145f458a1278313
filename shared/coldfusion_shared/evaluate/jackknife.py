"""How much each test example counts for a score: the jackknife's pseudo-values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

# Labels and guesses of the test examples, as arrays (n,), to a score in percent.
Scorer = Callable[[Any, Any], float]

# Of more examples, groups are left out: that takes no longer and tells the error as well.
MOST_GROUPS = 500


def pseudo_values(
    labels: Sequence[int | float], guesses: Sequence[Sequence[int | float]], scorer: Scorer
) -> Floats:
    """
    Return what each group of test examples counts, (seeds, groups), in percent.

    With G groups a group's value is G times the score less G - 1 times the score without the
    group. The values of an accuracy are 0 and 100, example by example, and those of any smooth
    metric spread as if it were such a mean (Tukey 1958; Efron and Stein 1981). A group is a single
    example as long as there are no more than `MOST_GROUPS`. The groups depend on the number of
    examples alone, so that the values of two bases belong together.

    Args:
        labels: of the test examples, (n,).
        guesses: of each seed, (seeds, n).
        scorer: the metric.
    """
    import numpy as np

    truth = np.asarray(labels)
    order = np.random.default_rng(0).permutation(len(truth))
    groups = np.array_split(order, min(len(truth), MOST_GROUPS))
    return np.array([_of_one_seed(truth, np.asarray(seed), groups, scorer) for seed in guesses])


def _of_one_seed(
    labels: npt.NDArray[Any],
    guesses: npt.NDArray[Any],
    groups: list[npt.NDArray[np.int64]],
    scorer: Scorer,
) -> list[float]:
    import numpy as np

    whole = scorer(labels, guesses)
    # Examples of one label and one guess are missed alike, so that few scores are computed.
    known: dict[tuple[Any, ...], float] = {}
    values = []
    for group in groups:
        missed = tuple(sorted(zip(labels[group].tolist(), guesses[group].tolist(), strict=True)))
        if missed not in known:
            known[missed] = scorer(np.delete(labels, group), np.delete(guesses, group))
        values.append(len(groups) * whole - (len(groups) - 1) * known[missed])
    return values
