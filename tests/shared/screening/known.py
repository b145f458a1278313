"""Measures and histories made by hand, for checks that compare numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.schemas.contributions import Finding
from coldfusion_shared.screening import check_parameters, discover
from coldfusion_shared.screening.check import Subject
from coldfusion_shared.screening.history import Other, Past
from coldfusion_shared.screening.measures import Measures
from coldfusion_shared.screening.sketch import SIZE, Sketch

TENSOR_NORMS = {"words.weight": 0.01, "layer.0.weight": 0.03, "layer.1.weight": 0.02}


def direction(*parts: float) -> Sketch:
    """Return a sketch with `parts` in its first buckets and nothing in the others."""
    values = np.zeros(SIZE, np.float32)
    values[: len(parts)] = parts
    return Sketch(values)


def measures(**changes: Any) -> Measures:
    """Return the measures of an honest update, with `changes`."""
    honest: dict[str, Any] = {
        "norm": 1.0,
        "base_norm": 100.0,
        "cosine_to_base": 0.9999,
        "changed_share": 0.9,
        "largest": 0.01,
        "tensor_norms": TENSOR_NORMS,
        "digest": "a" * 64,
        "sketch": direction(1.0),
    }
    return Measures(**{**honest, **changes})


def other(number: int, **changes: Any) -> Other:
    """Return another contribution to round 1, by a contributor of its own, with `changes`."""
    honest: dict[str, Any] = {
        "id": f"c{number}",
        "contributor": f"contributor {number}",
        "round": 1,
        "base": "v0",
        "state": ContributionState.ACCEPTED,
        "relative_norm": 0.01,
        "tensor_norms": TENSOR_NORMS,
        "digest": f"{number:064x}",
        "sketch": direction(0.3, *[0.0] * number, 1.0),
    }
    return Other(**{**honest, **changes})


def past(others: Sequence[Other]) -> Past:
    """Return what a contribution to round 1 is compared with, when all of that are there."""
    return Past(contributor="me", round=1, base="v0", others=others, complete=True)


def concluded(
    name: str,
    found: Measures,
    history: Past | None = None,
    encoding: str = "full",
    frozen: Sequence[str] = (),
    parameters: Mapping[str, Any] | None = None,
) -> Finding:
    """Return what the check called `name` says of an update's numbers."""
    subject = Subject(encoding, frozenset(TENSOR_NORMS), frozen, {})
    chosen = check_parameters({name: parameters or {}})[name]
    return discover()[name](subject, chosen).conclude(found, history or Past())
