"""What a data set must have so that a classifier can learn from it and be scored on it."""

from __future__ import annotations

from collections.abc import Mapping

from coldfusion_shared.data.dataset import TextDataset
from coldfusion_shared.data.table import Table
from coldfusion_shared.errors import BadData

MIN_EXAMPLES = 10
# With fewer examples a label than this, the column is rather an identifier or a measurement.
EXAMPLES_PER_LABEL = 3


def check_labels(where: str, labels: Mapping[str, tuple[str, ...]]) -> None:
    """Refuse too few examples, one label only, or nearly as many labels as examples."""
    total = sum(len(column) for column in labels.values())
    if total < MIN_EXAMPLES:
        raise BadData(
            f"{where} has {total} examples; at least {MIN_EXAMPLES} are needed.",
            hint="Add examples: a few hundred are a good start.",
        )
    seen = set(labels["train"])
    if len(seen) < 2:
        raise BadData(
            f"{where}: every training example has the same label, {next(iter(seen))!r}.",
            hint="Add examples of other labels, or say which column holds the label with "
            "--label-column.",
        )
    if len(seen) * EXAMPLES_PER_LABEL > len(labels["train"]):
        raise BadData(
            f"{where}: {len(labels['train'])} training examples have {len(seen)} different labels.",
            hint=f"A label needs at least {EXAMPLES_PER_LABEL} examples on average; say which "
            "column holds the label with --label-column.",
        )


def check_seen(tables: Mapping[str, Table], labels: Mapping[str, tuple[str, ...]]) -> None:
    """Refuse a given validation or test split with a label that the training data lack."""
    seen = set(labels["train"])
    for split, column in labels.items():
        strange = next((row for row, label in enumerate(column) if label not in seen), None)
        if strange is not None:
            raise BadData(
                f"{tables[split].at(strange)}: the label {column[strange]!r} is not in the "
                "training data.",
                hint="Add training examples of that label, or correct the label.",
            )


def check_divided(dataset: TextDataset) -> None:
    """Refuse splits of our own making that came out without a label or an example."""
    lost = (set(dataset.validation.labels) | set(dataset.test.labels)) - set(dataset.train.labels)
    if lost or not dataset.train:
        raise BadData(
            f"{dataset.name} has too few different examples to hold some back for scoring.",
            hint="Add examples, above all of its rare labels.",
        )
