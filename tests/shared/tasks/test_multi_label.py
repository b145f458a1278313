"""Any number of labels for a text: read from lists and from separated text, scored by F1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coldfusion_shared.data import load_dataset
from coldfusion_shared.errors import BadData
from coldfusion_shared.tasks import task_named
from coldfusion_shared.tasks.pretrained import load_tokenizer
from tests.shared.tasks.rows import one_batch, read_csv, read_rows, tuned, write_rows
from tests.tiny_models import ENCODERS, tiny_bert, tiny_model

TASK = task_named("multi-label")


def rows(count: int = 60) -> list[dict[str, Any]]:
    return [
        {
            "text": f"{'film' if i % 2 else 'cold'} {'good' if i // 2 % 2 else 'bad'} {i}",
            "labels": ["film"] * (i % 2) + ["good"] * (i // 2 % 2),
        }
        for i in range(count)
    ]


@pytest.mark.parametrize("separator", [None, "|", ";", "; "])
def test_lists_and_separated_texts_are_the_same(tmp_path: Path, separator: str | None) -> None:
    if separator is None:
        dataset = read_rows(tmp_path, rows())
    else:
        lines = [f'{row["text"]},"{separator.join(row["labels"])}"' for row in rows()]
        dataset = read_csv(tmp_path, "\n".join(["text,labels", *lines]))
    assert (dataset.task, dataset.labels) == ("multi-label", ("film", "good"))
    for text, labels in dataset.train.keys(["text", "label"]):
        assert labels == (0,) * ("film" in text) + (1,) * ("good" in text)
    assert {len(labels) for labels in dataset.train["label"]} == {0, 1, 2}


def test_numbers_have_the_names_of_the_card(tmp_path: Path) -> None:
    numbered = [{**row, "labels": [0] * (i % 2) + [2, 2]} for i, row in enumerate(rows())]
    (tmp_path / "dataset.json").write_text('{"labels": ["x", "y", "z"]}')

    write_rows(tmp_path / "train.jsonl", numbered)
    dataset = load_dataset(str(tmp_path))
    assert dataset.labels == ("x", "y", "z")
    assert set(dataset.train["label"]) == {(2,), (0, 2)}


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_batch_has_a_row_of_zeros_and_ones_for_each_example(tmp_path: Path, kind: str) -> None:
    dataset = read_rows(tmp_path, rows())
    output, batch = one_batch(tiny_model(tmp_path / "base", kind), dataset)
    assert batch["labels"].tolist() == [
        [float(label in labels) for label in range(2)] for labels in dataset.train["label"][:4]
    ]
    assert output.logits.shape == (4, 2)
    assert output.loss.isfinite()


def test_macro_and_micro_f1(tmp_path: Path) -> None:
    dataset = read_rows(tmp_path, rows())
    tokenizer = load_tokenizer(tiny_bert(tmp_path / "base"))
    score = TASK.scoring(tokenizer, dataset.test, 24).score
    truth = np.array([[1, 0], [1, 1], [0, 0], [0, 1]], np.float32)
    logits = np.array([[2, -1], [-1, 3], [0.5, -2], [-2, -3]], np.float32)
    # film: 1 of 2 found, 2 said: F1 1/2. good: 1 of 2 found, 1 said: F1 2/3. Both: 2 of 4, 3 said.
    assert score(logits, truth) == pytest.approx(
        {"macro F1": 100 * (1 / 2 + 2 / 3) / 2, "micro F1": 100 * 4 / 7}
    )
    nothing = np.full_like(logits, -1)
    assert score((nothing, "more"), truth) == {"macro F1": 0.0, "micro F1": 0.0}


def test_it_learns(tmp_path: Path) -> None:
    dataset = read_rows(tmp_path, rows(120))
    result = tuned(tiny_bert(tmp_path / "base"), dataset, tmp_path / "out", epochs=20, lr=5e-3)
    assert (result.metric, result.task) == ("macro F1", "multi-label")
    assert result.test > 90


BAD: dict[str, tuple[list[dict[str, Any]], str]] = {
    "unseen": ([{"text": "x", "labels": ["new"]}], "test.jsonl, line 1: the label 'new' is not in"),
    "missing": (
        [{"text": "x", "labels": None}],
        "line 1: column 'labels' holds None, which is not a list",
    ),
    "a number": ([{"text": "x", "labels": 0.5}], "holds 0.5, which is not a list"),
    "an object": ([{"text": "x", "labels": [{"a": 1}]}], "holds {'a': 1}, which is not the name"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_labels(tmp_path: Path, case: str) -> None:

    test, message = BAD[case]
    write_rows(tmp_path / "d" / "train.jsonl", rows())
    write_rows(tmp_path / "d" / "test.jsonl", test)
    with pytest.raises(BadData, match=message):
        load_dataset(str(tmp_path / "d"))


def test_without_any_label_there_is_nothing_to_learn(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="no training example has a label in column 'labels'"):
        read_rows(tmp_path, [{**row, "labels": []} for row in rows()])
