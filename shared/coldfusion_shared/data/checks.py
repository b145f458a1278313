"""What a data set must have so that a model can learn from it and be scored on it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from coldfusion_shared.data.dataset import TextDataset
from coldfusion_shared.data.table import Table
from coldfusion_shared.errors import BadData

MIN_EXAMPLES = 10
# With fewer examples a label than this, the column is rather an identifier or a measurement.
EXAMPLES_PER_LABEL = 3
# More are rather identifiers, too, and their head would be larger than the body.
MAX_LABELS = 10_000
WHICH = "say which column holds the label with --column label=NAME"


def check_size(where: str, tables: Mapping[str, Table]) -> None:
    """Refuse too few examples for any task."""
    total = sum(len(table.lines) for table in tables.values())
    if total < MIN_EXAMPLES:
        raise BadData(
            f"{where} has {total} examples; at least {MIN_EXAMPLES} are needed.",
            hint="Add examples: a few hundred are a good start.",
        )


def check_labels(where: str, train: tuple[str, ...]) -> None:
    """Refuse one label only, too many, or nearly as many labels as examples."""
    seen = set(train)
    if len(seen) < 2:
        raise BadData(
            f"{where}: every training example has the same label, {next(iter(seen))!r:.60}.",
            hint=f"Add examples of other labels, or {WHICH}.",
        )
    if len(seen) * EXAMPLES_PER_LABEL > len(train):
        raise BadData(
            f"{where}: {len(train)} training examples have {len(seen)} different labels.",
            hint=f"A label needs at least {EXAMPLES_PER_LABEL} examples on average; {WHICH}, or, "
            "if it is a number to be predicted, add --task regression.",
        )


def check_count(where: str, labels: int) -> None:
    """Refuse more labels than a head can reasonably have."""
    if labels > MAX_LABELS:
        raise BadData(
            f"{where} has {labels} different labels; more than {MAX_LABELS} are not supported.",
            hint=f"Join rare labels, or {WHICH}.",
        )


def check_seen(table: Table, labels: Sequence[str], seen: Collection[str]) -> None:
    """Refuse a given validation or test split with a label that the training data lack."""
    check_seen_all(table, [(label,) for label in labels], seen)


def check_seen_all(table: Table, labels: Sequence[Sequence[str]], seen: Collection[str]) -> None:
    """Refuse one, where an example has any number of labels."""
    for row, several in enumerate(labels):
        for label in several:
            if label not in seen:
                raise BadData(
                    f"{table.at(row)}: the label {label!r:.60} is not in the training data.",
                    hint="Add training examples of that label, or correct the label.",
                )


def check_divided(dataset: TextDataset) -> None:
    """Refuse splits of our own making that came out without an example."""
    if not all(len(split) for split in dataset.splits.values()):
        raise too_few(dataset.name)


def too_few(name: str) -> BadData:
    """Return the refusal of data that cannot be divided."""
    return BadData(
        f"{name} has too few different examples to hold some back for scoring.",
        hint="Add examples, above all of its rare labels.",
    )
