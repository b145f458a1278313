"""Lists in the cells of a CSV file, as JSON and as Python write them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coldfusion_shared.data import TextDataset, load_dataset
from coldfusion_shared.data.nested import nested

ROWS: dict[str, Callable[[int], dict[str, Any]]] = {
    "multi-label": lambda i: {
        "text": f"film {i}", "labels": [["good"], [], ["it's", "bad"]][i % 3],
    },
    "token-classification": lambda i: {"tokens": ["a", f"film{i}"], "ner_tags": ["O", "B-ART"]},
    "multiple-choice": lambda i: {
        "premise": f"film {i}", "choices": ["good, warm", "bad"], "label": i % 2,
    },
    "question-answering": lambda i: {
        "question": f"film {i}?", "context": "a film",
        "answers": {"text": ["film"], "answer_start": [2]},
    },
}  # fmt: skip


def read(path: Path, rows: list[dict[str, Any]], write: Callable[[Any], str]) -> TextDataset:
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(rows[0])
        for row in rows:
            plain = (str, int)
            lines.writerow([v if isinstance(v, plain) else write(v) for v in row.values()])
    return load_dataset(str(path))


@pytest.mark.parametrize("write", [json.dumps, repr])
@pytest.mark.parametrize("task", ROWS)
def test_they_are_read_as_in_json_lines(
    tmp_path: Path, task: str, write: Callable[[Any], str]
) -> None:
    rows = [ROWS[task](i) for i in range(30)]
    (tmp_path / "films.jsonl").write_text("\n".join(map(json.dumps, rows)))
    expected = load_dataset(str(tmp_path / "films.jsonl"))
    found = read(tmp_path / "films.csv", rows, write)
    assert (found.task, found.digest) == (task, expected.digest)


@pytest.mark.parametrize(
    "cells",
    [
        ["[1]", "film"],
        ["[broken", "broken]"],
        ["[CLS] a film [SEP]"],
        # As numpy writes them: Python would take the two for one.
        ["['good' 'bad']"],
        ["", " "],
        ["[" * 100_000 + "]" * 100_000],
        ["[__import__('os')]"],
        ["{'a', 'b'}"],
    ],
)
def test_any_other_column_is_one_of_texts(cells: list[str]) -> None:
    assert nested(cells) is cells


def test_an_empty_cell_is_an_empty_list() -> None:
    assert nested(["['a']", " ", '["b"]']) == [["a"], [], ["b"]]
