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
    assert ["test" in note for note in dataset.notes[1:]] == [True]


def test_numbers_may_be_hidden_too(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = {"sentence": SENTENCES["sentence"], "label": [i / 10 for i in range(40)]}
    rows = datasets.Dataset.from_dict(columns)
    for nothing in (-1.0, None):
        hidden = datasets.Dataset.from_dict({**columns, "label": [nothing] * 40})
        serve(monkeypatch, datasets.DatasetDict({"train": rows, "test": hidden}))
        dataset = load_dataset("glue:stsb")
        assert dataset.task == "regression"
        assert min(dataset.test["label"]) >= 0


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


def test_tags_have_their_names_and_what_is_no_text_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = ["O", "B-X"]
    features = datasets.Features(
        {
            "tokens": datasets.List(datasets.Value("string")),
            "ner_tags": datasets.List(datasets.ClassLabel(names=names)),
            "picture": datasets.Image(),
        }
    )
    columns = {"tokens": [["a", "b"]] * 40, "ner_tags": [[0, 1]] * 40, "picture": [None] * 40}
    columns["tokens"] = [[f"a{i}", "b"] for i in range(40)]
    rows = datasets.Dataset.from_dict(columns, features=features)
    serve(monkeypatch, datasets.DatasetDict({"train": rows}))
    dataset = load_dataset("conll2003")
    assert (dataset.task, dataset.labels) == ("token-classification", ("O", "B-X"))
    assert set(dataset.train["tags"]) == {(0, 1)}
