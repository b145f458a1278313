"""Suites and reports for tests."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from coldfusion_shared.schemas.evaluations import EvaluationReport, Suite, SuiteDataset
from tests.toy_data import toy_dataset

NAMES = ("reviews", "questions")


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def dataset(name: str, **changes: Any) -> SuiteDataset:
    values: dict[str, Any] = {
        "name": name,
        "task": "classification",
        "metric": "accuracy",
        "labels": 2,
        "train": 1000,
        "validation": 300,
        "test": 500,
        "digest": digest(name),
    }
    return SuiteDataset(**{**values, **changes})


def suite(name: str = "text-2", datasets: Any = NAMES, **changes: Any) -> Suite:
    """Return a suite of data sets that are called so, or are given."""
    made = [dataset(item) if isinstance(item, str) else item for item in datasets]
    values: dict[str, Any] = {"max_length": 128, "seed": 13, "few_shot": 100}
    return Suite(name=name, datasets=made, **{**values, **changes})


def report(of: Suite | None = None, level: float = 80.0, **changes: Any) -> EvaluationReport:
    """Return what somebody measured with a suite: `level` everywhere, errors of a point."""
    names = NAMES if of is None else [item.name for item in of.datasets]
    values: dict[str, Any] = {
        "suite": "hand-made" if of is None else of.name,
        "suite_digest": None if of is None else of.digest(),
        "protocol": "frozen",
        "scores": dict.fromkeys(names, level),
        "standard_errors": dict.fromkeys(names, 1.0),
        "by_seed": {name: [level - 1, level, level + 1] for name in names},
        "seeds": [0, 1, 2],
        "software": "tests 1",
    }
    return EvaluationReport(**{**values, **changes})


FILMS = """\
name: films
datasets:
- data: films
limits: {train: 32, validation: 16, test: 24}
max_length: 16
"""


def write_films(folder: Path) -> Path:
    """Write a suite of one small data set, and its data, into `folder`; return its file."""
    (folder / "films").mkdir(parents=True)
    for name, split in toy_dataset().splits.items():
        rows = zip(split["text"], split["label"], strict=True)
        lines = ["text,label", *(f"{text},{('awful', 'great')[label]}" for text, label in rows)]
        (folder / "films" / f"{name}.csv").write_text("\n".join(lines) + "\n")
    (folder / "suite.yaml").write_text(FILMS)
    return folder / "suite.yaml"
