"""
Several evaluators of one base: how far each is from the median, and who differs beyond chance.

Pure: it compares what it is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import hypot
from statistics import median

from coldfusion_shared.schemas.agreement import Agreement, EvaluatorAgreement
from coldfusion_shared.schemas.evaluations import Evaluation

# All evaluators score the same test examples, and standard errors count those as chance. So equal
# work differs by less than they say, and what is beyond these is hardly ever chance.
OUTLIER_ERRORS = 2.0
# Of many data sets the strangest one is farther away.
DATASET_ERRORS = 3.0
# Points. Machines round differently, also where a standard error is 0.
LEAST_ERROR = 0.05

# A difference in points, and in its own standard errors; null where those are not known.
Departure = tuple[float, float | None]


def agreements(evaluations: Iterable[Evaluation]) -> list[Agreement]:
    """
    Return the agreement on each suite and protocol; of each evaluator the newest scores count.

    Args:
        evaluations: of one base, oldest first.
    """
    groups: dict[tuple[object, ...], dict[str, Evaluation]] = {}
    for item in evaluations:
        # What is not pinned is only held to be the same where nothing speaks against it.
        key = (item.suite_digest or item.suite, item.protocol, item.metric, *sorted(item.scores))
        groups.setdefault(key, {})[item.evaluator] = item
    return [_agreement(list(group.values())) for group in groups.values()]


def departures(values: Sequence[float], errors: Sequence[float | None]) -> list[Departure]:
    """
    Return how far each value is from the median of all.

    The difference of value i is the sum of c_j * value_j, where c is 1 at i less each value's share
    in the median; so its standard error is the square root of the sum of (c_j * error_j)^2, as for
    independent values. Of two values that is their difference's, for both.

    Args:
        values: at least one.
        errors: their standard errors, in the same order; null: not known.
    """
    shares = _shares(values)
    middle = median(values)
    return [
        (value - middle, _ratio(value - middle, index, shares, errors))
        for index, value in enumerate(values)
    ]


def _shares(values: Sequence[float]) -> list[float]:
    """Return each value's share in the median: one has all of it, or two have a half."""
    order = sorted(range(len(values)), key=lambda index: values[index])
    middle = {order[(len(order) - 1) // 2], order[len(order) // 2]}
    return [1 / len(middle) if index in middle else 0.0 for index in range(len(values))]


def _ratio(
    difference: float, index: int, shares: Sequence[float], errors: Sequence[float | None]
) -> float | None:
    if difference == 0:
        return 0.0
    parts = []
    for other, (share, error) in enumerate(zip(shares, errors, strict=True)):
        weight = (other == index) - share
        if weight and error is None:
            return None
        parts.append(weight * (error or 0.0))
    return difference / max(hypot(*parts), LEAST_ERROR)


def _agreement(found: list[Evaluation]) -> Agreement:
    first = found[0]
    averages = [item.average for item in found]
    whole = departures(averages, [item.standard_error for item in found])
    by_dataset = {
        name: departures(
            [item.scores[name] for item in found],
            [item.standard_errors.get(name) for item in found],
        )
        for name in first.scores
    }
    return Agreement(
        suite=first.suite,
        suite_digest=first.suite_digest,
        protocol=first.protocol,
        metric=first.metric,
        median=median(averages),
        evaluators=[
            _evaluator(item, whole[index], {name: by_dataset[name][index] for name in first.scores})
            for index, item in enumerate(found)
        ],
    )


def _evaluator(
    item: Evaluation, whole: Departure, by_dataset: dict[str, Departure]
) -> EvaluatorAgreement:
    difference, errors = whole
    strange = {
        name: points
        for name, (points, ratio) in by_dataset.items()
        if ratio is not None and abs(ratio) > DATASET_ERRORS
    }
    far = errors is not None and abs(errors) > OUTLIER_ERRORS
    unknown = errors is None or any(ratio is None for _, ratio in by_dataset.values())
    return EvaluatorAgreement(
        evaluator=item.evaluator,
        average=item.average,
        standard_error=item.standard_error,
        difference=difference,
        standard_errors=errors,
        datasets=strange,
        outlier=True if far or strange else None if unknown else False,
        software=item.software,
        created_at=item.created_at,
    )
