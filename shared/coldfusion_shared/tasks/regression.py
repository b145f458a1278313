"""A number for a text, or for a pair of texts, such as how similar the two are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coldfusion_shared.data.dataset import Split
from coldfusion_shared.data.values import is_given, nearly_all, number, numbers_of
from coldfusion_shared.errors import BadData
from coldfusion_shared.tasks import Scoring, tasks
from coldfusion_shared.tasks.labelled import (
    LabelledTexts,
    build_classifier,
    by_length,
    first,
    inputs_of,
)
from coldfusion_shared.tasks.scores import OF_NUMBERS

if TYPE_CHECKING:
    from coldfusion_shared.data.dataset import TextDataset
    from coldfusion_shared.data.table import Table
    from coldfusion_shared.tasks.architectures import Architecture


class Regression(LabelledTexts):
    """One number for each text or pair."""

    name = "regression"
    metric = "Pearson"

    def fits(
        self, table: Table, columns: Mapping[str, str], architecture: Architecture | None
    ) -> bool:
        """Nearly every label is a number, and one at least is not whole."""
        cells = [value for value in table.columns[columns["label"]] if is_given(value)]
        numbers = [number(_with_point(value)) for value in cells]
        found = [value for value in numbers if value is not None]
        whole = all(value.is_integer() for value in found)
        return nearly_all(value is not None for value in numbers) and not whole

    def parse(
        self, tables: Mapping[str, Table], columns: Mapping[str, str]
    ) -> tuple[tuple[str, ...], dict[str, Split]]:
        """Return no names, and texts with numbers."""
        splits = {
            name: Split({**inputs_of(table, columns), "label": numbers_of(table, columns["label"])})
            for name, table in tables.items()
        }
        if len(set(splits["train"]["label"])) < 2:
            raise BadData(
                f"{tables['train'].where}: every training example has the same number, "
                f"{splits['train']['label'][0]:g}.",
                hint="Add others, or say which column holds the number with --column label=NAME.",
            )
        return (), splits

    def check(self, dataset: TextDataset) -> None:
        """Nothing more is needed: any part has numbers."""

    def build_model(self, base: Path, dataset: TextDataset) -> Any:
        """Return the base with one output."""
        return build_classifier(base, num_labels=1, problem_type="regression")

    def scoring(self, tokenizer: Any, split: Split, max_length: int) -> Scoring:
        """Pearson's correlation, with Spearman's beside it."""
        return Scoring(by_length(self.encode(tokenizer, split, max_length)), _score)


def _with_point(value: object) -> object:
    # With a comma it is a number all the same, though none that can be told from a thousand's.
    return value.replace(",", ".") if isinstance(value, str) else value


def _score(predictions: Any, labels: Any) -> dict[str, float]:
    """Return correlations in percent of outputs (n, 1) with labels (n,)."""
    return {name: score(labels, first(predictions)) for name, score in OF_NUMBERS.items()}


tasks.register("regression")(Regression())
