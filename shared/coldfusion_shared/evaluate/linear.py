"""Simple readers of frozen features, their strength of regularisation chosen on validation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coldfusion_shared.tasks.scores import Score

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Features = npt.NDArray[np.float32]
    # Features (n, hidden), and labels (n,): indices of classes, or numbers.
    Part = tuple[Features, npt.NDArray[Any]]

# Called after each fit with the share of them that is done; it may end the work.
Tick = Callable[[float], None]

# Inverse strengths of the regularisation, from strong to weak.
STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)
RIDGE_STRENGTHS = (0.0001, 0.001, 0.01, 0.1, 1.0)
MAX_ITERATIONS = 2000


@dataclass(frozen=True)
class Reading:
    """
    What a reader makes of the test part.

    Attributes:
        guesses: (n,), classes or numbers.
        strength: the inverse strength that did best on the validation part.
    """

    guesses: npt.NDArray[Any]
    strength: float


def classified(
    train: Part, validation: Part, test: Features, scorer: Score, tick: Tick = lambda share: None
) -> Reading:
    """Read classes with a logistic regression, multinomial where there are more than two."""
    from sklearn.linear_model import LogisticRegression

    models = [LogisticRegression(C=strength, max_iter=MAX_ITERATIONS) for strength in STRENGTHS]
    return _best(dict(zip(STRENGTHS, models, strict=True)), train, validation, test, scorer, tick)


def predicted(
    train: Part, validation: Part, test: Features, scorer: Score, tick: Tick = lambda share: None
) -> Reading:
    """Read numbers with a ridge regression."""
    from sklearn.linear_model import Ridge

    models = {strength: Ridge(alpha=1 / strength) for strength in RIDGE_STRENGTHS}
    return _best(models, train, validation, test, scorer, tick)


def _best(
    models: dict[float, Any],
    train: Part,
    validation: Part,
    test: Features,
    scorer: Score,
    tick: Tick,
) -> Reading:
    """Fit all and take what validates best; of equally good ones the stronger regularisation."""
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    scaler = StandardScaler().fit(train[0])
    x_train, x_validation, x_test = (
        scaler.transform(part) for part in (train[0], validation[0], test)
    )
    best: tuple[float, float] | None = None
    # These matrices are so small that handing them to several threads costs more than it brings.
    with threadpool_limits(1):
        for fitted, (strength, model) in enumerate(models.items(), 1):
            model.fit(x_train, train[1])
            # Whoever is to stop need not wait for all of them.
            tick(fitted / len(models))
            score = scorer(validation[1], model.predict(x_validation))
            if best is None or score > best[0]:
                best = (score, strength)
        assert best is not None
        return Reading(models[best[1]].predict(x_test), best[1])
