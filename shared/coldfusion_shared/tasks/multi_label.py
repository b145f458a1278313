"""Several labels, or none, for a text or a pair of texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coldfusion_shared.data.checks import check_labels, check_seen_all
from coldfusion_shared.data.dataset import Split
from coldfusion_shared.data.values import name_of, nearly_all, sorted_names
from coldfusion_shared.errors import BadData
from coldfusion_shared.tasks import Scoring, tasks
from coldfusion_shared.tasks.labelled import (
    LabelledTexts,
    build_classifier,
    by_length,
    first,
    inputs_of,
    named,
    padding_collator,
)

if TYPE_CHECKING:
    from coldfusion_shared.data.dataset import TextDataset
    from coldfusion_shared.data.table import Table
    from coldfusion_shared.tasks.architectures import Architecture

# What stands between labels where a cell is one text.
SEPARATORS = ("|", ";")

Labels = tuple[str, ...]


class MultiLabel(LabelledTexts):
    """Any number of labels for each text or pair."""

    name = "multi-label"
    metric = "macro F1"

    def fits(
        self, table: Table, columns: Mapping[str, str], architecture: Architecture | None
    ) -> bool:
        """Labels are lists, or texts that a separator divides into fewer different ones."""
        cells = [value for value in table.columns[columns["label"]] if value is not None]
        texts = [value for value in cells if isinstance(value, str)]
        if nearly_all(isinstance(value, list | tuple) for value in cells):
            return True
        separator = _separator(texts)
        # A few with one are rather names that hold it.
        if separator is None or nearly_all(separator not in text for text in texts):
            return False
        parts = {part.strip() for text in texts for part in text.split(separator)}
        return len(texts) == len(cells) and len(parts) < len(set(texts))

    def parse(
        self, tables: Mapping[str, Table], columns: Mapping[str, str]
    ) -> tuple[tuple[str, ...], dict[str, Split]]:
        """Return the labels' names, and texts with tuples of label indices in rising order."""
        column = columns["label"]
        separator = _separator(tables["train"].columns[column])
        train = tables["train"]
        _refuse_yes_and_no(train, column)
        labels = {name: _labels(table, column, separator) for name, table in tables.items()}
        given = tuple(label for row in labels["train"] for label in row)
        if not given:
            raise BadData(
                f"{train.where}: no training example has a label in column {column!r}.",
                hint="Add labels, or say which column holds them with --column label=NAME.",
            )
        check_labels(train.where, given)
        if len(set(map(frozenset, labels["train"]))) < 2:
            raise BadData(
                f"{train.where}: every training example has the same labels.",
                hint="Add examples of others, or say which column holds the labels with --column "
                "label=NAME.",
            )
        for name, table in tables.items():
            check_seen_all(table, labels[name], set(given))
        names = train.classes.get(column) or sorted_names(given)
        index = {name: position for position, name in enumerate(names)}
        return names, {
            name: Split(
                {
                    **inputs_of(table, columns),
                    "label": tuple(
                        tuple(sorted({index[label] for label in row})) for row in labels[name]
                    ),
                }
            )
            for name, table in tables.items()
        }

    def check(self, dataset: TextDataset) -> None:
        """Nothing more is needed: a rare label may be missing from a split."""

    def build_model(self, base: Path, dataset: TextDataset) -> Any:
        """Return the base with one yes or no for each label."""
        return build_classifier(
            base, problem_type="multi_label_classification", **named(dataset.labels)
        )

    def scoring(self, tokenizer: Any, split: Split, max_length: int) -> Scoring:
        """Macro F1, with micro F1 beside it."""
        return Scoring(by_length(self.encode(tokenizer, split, max_length)), _score)

    def collator(self, tokenizer: Any, model: Any) -> Callable[[list[dict[str, Any]]], Any]:
        """Return what pads a batch and makes a row of zeros and ones of each example's labels."""
        pad, width = padding_collator(tokenizer, model), model.config.num_labels

        def collate(examples: list[dict[str, Any]]) -> Any:
            import torch

            rows = torch.zeros(len(examples), width)  # (batch, labels)
            for row, example in enumerate(examples):
                rows[row, list(example["labels"])] = 1.0
            batch = pad([{k: v for k, v in one.items() if k != "labels"} for one in examples])
            batch["labels"] = rows
            return batch

        return collate


def _refuse_yes_and_no(table: Table, column: str) -> None:
    """Refuse a zero or a one for each label: they would be taken for the labels 0 and 1."""
    rows = [cell for cell in table.columns[column] if isinstance(cell, list | tuple)]
    told = all(value in (0, 1) for row in rows for value in row)
    if told and len(set(map(len, rows))) == 1 and any(len(set(row)) < len(row) for row in rows):
        raise BadData(
            f"{table.where}: column {column!r} holds a zero or a one for each label.",
            hint='List the labels that an example has by their names, such as ["price", "taste"].',
        )


def _separator(cells: Sequence[object]) -> str | None:
    texts = [value for value in cells if isinstance(value, str)]
    return next((mark for mark in SEPARATORS if any(mark in text for text in texts)), None)


def _labels(table: Table, column: str, separator: str | None) -> list[Labels]:
    return [
        tuple(
            name
            for value in _values(table, column, row, cell, separator)
            if (name := name_of(table, row, column, value))
        )
        for row, cell in enumerate(table.columns[column])
    ]


def _values(
    table: Table, column: str, row: int, cell: object, separator: str | None
) -> Sequence[object]:
    if isinstance(cell, list | tuple):
        return cell
    if isinstance(cell, str):
        return cell.split(separator) if separator else [cell]
    if isinstance(cell, int):
        return [cell]
    raise BadData(
        f"{table.at(row)}: column {column!r} holds {cell!r:.40}, which is not a list of labels.",
        hint="Write an empty list for an example without any label.",
    )


def _score(predictions: Any, labels: Any) -> dict[str, float]:
    """Return scores in percent of logits (n, labels); a label is given from a half up."""
    from sklearn.metrics import f1_score

    guesses, truth = first(predictions) > 0, labels > 0
    return {
        f"{average} F1": 100.0 * float(f1_score(truth, guesses, average=average, zero_division=0))
        for average in ("macro", "micro")
    }


tasks.register("multi-label")(MultiLabel())
