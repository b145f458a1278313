"""How often the gate is wrong: by chance against a harmless candidate, or for a harmful one."""

from __future__ import annotations

from random import Random
from statistics import fmean, variance

import pytest

from coldfusion_shared.rounds.gate import Measurements, decide
from coldfusion_shared.schemas.evaluations import EvaluationReport
from tests.shared.rounds.reports import gate, report, suite

TRIES = 400
# An accuracy of 80 percent over 400 examples has an error of 2 points, mostly of examples that
# are hard for base and candidate alike.
ALIKE, APART = 1.8, 0.87
# What a seed's training examples do to both, and what it does to each by itself.
DRAWN, OWN = 2.0, 1.0


def _pair(
    random: Random, names: list[str], seeds: int, loss: float
) -> tuple[EvaluationReport, EvaluationReport]:
    """Return what one evaluator measures of a base, and of a candidate that is so much worse."""
    columns: list[dict[str, list[float]]] = [{}, {}]
    for name in names:
        drawn = [random.gauss(0, DRAWN) for _ in range(seeds)]
        alike = random.gauss(0, ALIKE)
        for column, level in zip(columns, (80.0, 80.0 - loss), strict=True):
            score = level + alike + random.gauss(0, APART)
            column[name] = [score + both + random.gauss(0, OWN) for both in drawn]
    base, candidate = (_report(column) for column in columns)
    return base, candidate


def _report(column: dict[str, list[float]]) -> EvaluationReport:
    errors = {
        name: (variance(found) / len(found) + ALIKE**2 + APART**2) ** 0.5
        for name, found in column.items()
    }
    return report({name: fmean(found) for name, found in column.items()}, errors, column)


def _passing(names: list[str], seeds: int, loss: float) -> float:
    """Return the share of candidates that pass, in percent."""
    random, policy, known = Random(seeds), gate(), suite(*names)
    passed = 0
    for _ in range(TRIES):
        base, candidate = _pair(random, names, seeds, loss)
        found = Measurements(known, {"eva": base}, {"eva": candidate})
        passed += decide(policy, 0.01, found).passed is True
    return 100 * passed / TRIES


# As the gate's module says.
@pytest.mark.parametrize(
    ("count", "seeds", "rejected", "three", "six"),
    [
        (1, 2, 2, 50, 2),
        (1, 3, 2, 46, 2),
        (1, 5, 3, 46, 1),
        (4, 2, 3, 3, 0),
        (4, 3, 2, 2, 0),
        (4, 5, 2, 1, 0),
    ],
)
def test_the_gate_is_wrong_as_often_as_it_says(
    count: int, seeds: int, rejected: float, three: float, six: float
) -> None:
    names = [f"d{place}" for place in range(count)]
    found = [100 - _passing(names, seeds, 0), _passing(names, seeds, 3), _passing(names, seeds, 6)]
    assert found == pytest.approx([rejected, three, six], abs=1.5)
