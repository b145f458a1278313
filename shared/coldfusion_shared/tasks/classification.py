"""Classification of a text, or of a pair of texts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coldfusion_shared.data.checks import check_labels, check_seen, too_few
from coldfusion_shared.data.dataset import Split
from coldfusion_shared.data.values import labels_of, sorted_names
from coldfusion_shared.tasks import Scoring, tasks
from coldfusion_shared.tasks.labelled import (
    LabelledTexts,
    build_classifier,
    by_length,
    first,
    inputs_of,
    named,
)
from coldfusion_shared.tasks.scores import OF_CLASSES

if TYPE_CHECKING:
    from coldfusion_shared.data.dataset import TextDataset
    from coldfusion_shared.data.table import Table
    from coldfusion_shared.tasks.architectures import Architecture


class Classification(LabelledTexts):
    """One label of several for each text or pair."""

    name = "classification"
    metric = "accuracy"

    def fits(
        self, table: Table, columns: Mapping[str, str], architecture: Architecture | None
    ) -> bool:
        """A text and a label are enough."""
        return True

    def parse(
        self, tables: Mapping[str, Table], columns: Mapping[str, str]
    ) -> tuple[tuple[str, ...], dict[str, Split]]:
        """Return the labels' names, and texts with label indices."""
        column = columns["label"]
        labels = {name: labels_of(table, column) for name, table in tables.items()}
        check_labels(tables["train"].where, labels["train"])
        for name, table in tables.items():
            check_seen(table, labels[name], set(labels["train"]))
        names = tables["train"].classes.get(column) or sorted_names(labels["train"])
        index = {name: position for position, name in enumerate(names)}
        return names, {
            name: Split(
                {
                    **inputs_of(table, columns),
                    "label": tuple(index[label] for label in labels[name]),
                }
            )
            for name, table in tables.items()
        }

    def check(self, dataset: TextDataset) -> None:
        """Refuse a label that is scored but was never learnt."""
        learnt = set(dataset.train["label"])
        if not learnt >= {*dataset.validation["label"], *dataset.test["label"]}:
            raise too_few(dataset.name)

    def build_model(self, base: Path, dataset: TextDataset) -> Any:
        """Return the base with a new classifier, which knows the labels' names."""
        return build_classifier(base, **named(dataset.labels))

    def scoring(self, tokenizer: Any, split: Split, max_length: int) -> Scoring:
        """Accuracy, with macro F1 and Matthews' correlation beside it."""
        return Scoring(by_length(self.encode(tokenizer, split, max_length)), _score)


def _score(predictions: Any, labels: Any) -> dict[str, float]:
    """Return scores in percent of logits (n, labels), or a tuple that begins with them."""
    guesses = first(predictions).argmax(axis=-1)
    return {name: score(labels, guesses) for name, score in OF_CLASSES.items()}


tasks.register("classification")(Classification())
