"""
Scores of guesses, in percent.

By numpy, and for whole splits as for the thousands of resamples that tell a score's error:
scikit-learn checks its input for longer than it counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

# From labels (n,) and guesses (n,), indices of classes or numbers, to percent.
Score = Callable[[Any, Any], float]


def accuracy(labels: Any, guesses: Any) -> float:
    """Return how many guesses are right."""
    import numpy as np

    return 100.0 * float((np.asarray(labels) == np.asarray(guesses)).mean())


def macro_f1(labels: Any, guesses: Any) -> float:
    """Return the mean F1 of the classes that occur, among labels or guesses."""
    import numpy as np

    right, true, guessed = _counts(labels, guesses)
    occurring = true + guessed > 0
    return 100.0 * float(np.mean(2 * right[occurring] / (true + guessed)[occurring]))


def matthews(labels: Any, guesses: Any) -> float:
    """Return Matthews' correlation, for any number of classes; 0 where one side never varies."""
    import numpy as np

    right, true, guessed = _counts(labels, guesses)
    size = true.sum()
    spread = (size**2 - guessed @ guessed) * (size**2 - true @ true)
    if spread == 0:
        return 0.0
    return 100.0 * float((right.sum() * size - guessed @ true) / np.sqrt(spread))


def pearson(labels: Any, guesses: Any) -> float:
    """Return Pearson's correlation; 0 where one side never varies."""
    import numpy as np

    truth, found = (np.asarray(side, np.float64).reshape(-1) for side in (labels, guesses))
    if not (_varies(found) and _varies(truth)):
        return 0.0
    truth, found = truth - truth.mean(), found - found.mean()
    # Scaled first: numbers of any size have finite squares then.
    truth, found = truth / np.abs(truth).max(), found / np.abs(found).max()
    correlation = float(truth @ found / np.sqrt((truth @ truth) * (found @ found)))
    return 100.0 * min(1.0, max(-1.0, correlation))


def spearman(labels: Any, guesses: Any) -> float:
    """Return Spearman's correlation, of ranks; 0 where one side never varies."""
    import numpy as np
    from scipy.stats import rankdata

    truth, found = (np.asarray(side, np.float64).reshape(-1) for side in (labels, guesses))
    if not (_varies(found) and _varies(truth)):
        return 0.0
    return pearson(rankdata(truth), rankdata(found))


# The first is what counts where nobody chooses.
OF_CLASSES: Mapping[str, Score] = {
    "accuracy": accuracy,
    "macro F1": macro_f1,
    "Matthews": matthews,
}
OF_NUMBERS: Mapping[str, Score] = {"Pearson": pearson, "Spearman": spearman}


def _counts(labels: Any, guesses: Any) -> tuple[Any, Any, Any]:
    """Return how often each class was guessed rightly, how often it is there, and was guessed."""
    import numpy as np

    truth, found = np.asarray(labels, np.int64), np.asarray(guesses, np.int64)
    classes = int(max(truth.max(), found.max())) + 1
    counted = (
        np.bincount(indices, minlength=classes).astype(np.float64)
        for indices in (truth[truth == found], truth, found)
    )
    right, true, guessed = counted
    return right, true, guessed


def _varies(values: Any) -> bool:
    # Less than float32 can tell apart is rounding, of which a correlation would be made.
    spread = float(values.max() - values.min())
    return spread > 1e-6 * max(abs(float(values.max())), abs(float(values.min())), 1e-30)
