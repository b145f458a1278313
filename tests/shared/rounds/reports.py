"""Suites and reports to try the gate with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from coldfusion_shared.schemas.evaluations import EvaluationReport, Suite, SuiteDataset
from coldfusion_shared.schemas.gates import Gate


def suite(*names: str, metric: str = "accuracy", task: str = "classification") -> Suite:
    """Return a suite whose data sets have 400 test examples each."""
    entries = [
        SuiteDataset(
            name=name,
            task=task,
            metric=metric,
            labels=2,
            train=100,
            validation=100,
            test=400,
            digest="0" * 64,
        )
        for name in names
    ]
    return Suite(name="text", datasets=entries, max_length=64, seed=0, few_shot=16)


def report(
    scores: Mapping[str, float],
    errors: Mapping[str, float] | None = None,
    by_seed: Mapping[str, Sequence[float]] | None = None,
    flips: Mapping[str, float] | None = None,
    seeds: Sequence[int] | None = None,
) -> EvaluationReport:
    """Return a report; `seeds`: 0, 1, ... if not given."""
    columns = {name: list(found) for name, found in (by_seed or {}).items()}
    count = max(map(len, columns.values()), default=0)
    return EvaluationReport(
        suite="text",
        protocol="frozen",
        scores=dict(scores),
        standard_errors=dict(errors or {}),
        by_seed=columns,
        seeds=list(range(count)) if seeds is None else list(seeds),
        negative_flips=dict(flips or {}),
    )


def gate(**given: object) -> Gate:
    """Return a gate of kind suite."""
    return Gate.model_validate({"kind": "suite", "suite": "text", **given})
