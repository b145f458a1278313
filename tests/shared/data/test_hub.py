"""Data sets of the Hub, which cannot be reached here: what becomes of one that was loaded."""

from __future__ import annotations

from typing import Any

import datasets
import pytest

from coldfusion_shared.data import load_dataset
from coldfusion_shared.errors import BadData

SENTENCES = {"sentence": [f"film {i}" for i in range(40)], "label": [0, 1] * 20}
FEATURES = datasets.Features(
    {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "a yes"])}
)


def part(**changed: list[Any]) -> datasets.Dataset:
    return datasets.Dataset.from_dict({**SENTENCES, **changed}, features=FEATURES)


def serve(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[tuple[Any, ...]]:
    asked = []

    def load(*arguments: Any) -> Any:
        asked.append(arguments)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(datasets, "load_dataset", load)
    return asked


def test_names_of_labels_are_kept_and_hidden_labels_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts = {"train": part(), "validation": part(), "test": part(label=[-1] * 40)}
    asked = serve(monkeypatch, datasets.DatasetDict(parts))
    dataset = load_dataset("glue:sst2")
    assert asked == [("glue", "sst2")]
    assert dataset.labels == ("no", "a yes")
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (34, 40, 6)
    assert ["test" in note for note in dataset.notes] == [True]


def test_a_name_without_a_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = serve(monkeypatch, datasets.DatasetDict({"train": part()}))
    load_dataset("somebody/films")
    assert asked == [("somebody/films", None)]


def test_what_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, ConnectionError("no network\nat all"))
    with pytest.raises(BadData, match="'flims' is no file or folder .* data set: no network$"):
        load_dataset("flims")


def test_no_train_split(monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, datasets.DatasetDict({"unsupervised": part()}))
    with pytest.raises(BadData, match="no labelled train split; it has unsupervised"):
        load_dataset("films")
