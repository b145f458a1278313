"""Readers of features say how far they are, and can be left between two fits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from coldfusion_shared.evaluate import linear
from coldfusion_shared.tasks.scores import accuracy, pearson

CASES: dict[str, tuple[Any, ...]] = {
    "classes": (linear.classified, accuracy, linear.STRENGTHS),
    "numbers": (linear.predicted, pearson, linear.RIDGE_STRENGTHS),
}


class Left(BaseException):
    """As a process is told to stop."""


def parts() -> Any:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((40, 4)).astype(np.float32)
    labels = (features[:, 0] > 0).astype(np.int64)
    return (features, labels), (features, labels), features


@pytest.mark.parametrize("case", list(CASES))
def test_each_fit_is_told(case: str) -> None:
    read, scorer, strengths = CASES[case]
    shares: list[float] = []
    read(*parts(), scorer, shares.append)
    assert shares == pytest.approx(np.linspace(0, 1, len(strengths) + 1)[1:])


@pytest.mark.parametrize("case", list(CASES))
def test_the_work_can_be_left_after_the_first_fit(case: str) -> None:
    read, scorer, _ = CASES[case]
    shares: list[float] = []

    def leave(share: float) -> None:
        shares.append(share)
        raise Left

    with pytest.raises(Left):
        read(*parts(), scorer, leave)
    assert len(shares) == 1
