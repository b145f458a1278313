"""One bad cell of many changes no kind of task: it is named, by its line and what it holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coldfusion_shared.data.values import nearly_all
from coldfusion_shared.errors import BadData
from coldfusion_shared.tasks.architectures import Architecture
from tests.shared.tasks.rows import read_csv, read_rows

Row = dict[str, Any]
GOOD: dict[str, Callable[[int], Row]] = {
    "regression": lambda i: {"text": f"film {i}", "score": i / 7},
    "seq2seq": lambda i: {"document": f"film {i}", "summary": f"about {i}"},
    "token-classification": lambda i: {"tokens": ["film", f"a{i}"], "ner_tags": ["O", "B-X"]},
    "question-answering": lambda i: {"question": f"{i}?", "context": "a film", "answers": "film"},
    "multi-label": lambda i: {"text": f"film {i}", "labels": [["good"], ["bad", "good"]][i % 2]},
    "multiple-choice": lambda i: {"premise": f"film {i}", "options": ["a", "b"], "label": i % 2},
    "classification": lambda i: {"text": f"film {i}", "label": ["good", "bad"][i % 2]},
}
BAD: list[tuple[str, Row, str]] = [
    ("regression", {"score": None}, "1 of 60 examples have no label .* the first in line 7"),
    ("regression", {"score": float("nan")}, "have no label .* the first in line 7"),
    ("regression", {"score": "n/a"}, "line 7: column 'score' holds 'n/a', which is not a number"),
    ("regression", {"score": float("inf")}, "line 7: column 'score' holds inf"),
    ("regression", {"score": 1e30}, "line 7: .* holds 1e.30, which is not a number that can be"),
    ("regression", {"score": "3,5"}, "line 7: column 'score' holds '3,5', which is not a number"),
    ("seq2seq", {"summary": None}, "1 of 60 examples have no text .* the first in line 7"),
    ("seq2seq", {"summary": 42}, "line 7: column 'summary' holds 42, which is not a text"),
    ("token-classification", {"ner_tags": None}, "line 7: column 'ner_tags' holds None"),
    ("token-classification", {"tokens": 3}, "line 7: column 'tokens' holds 3"),
    ("question-answering", {"answers": 5}, "line 7: column 'answers' holds 5, which is no answer"),
    ("question-answering", {"answers": "actor"}, "line 7: the answer 'actor' is not in the"),
    ("multi-label", {"labels": {"is": 1}}, "line 7: column 'labels' holds {'is': 1}"),
    ("multi-label", {"labels": 0.5}, r"line 7: column 'labels' holds 0\.5"),
    ("multiple-choice", {"options": 3}, "line 7: column 'options' holds 3, which is not a list"),
    ("multiple-choice", {"options": ["a"]}, "line 7: 1 choices, where most .* have 2"),
    ("multiple-choice", {"label": "which"}, "line 7: 'which' in column 'label' is none of the 2"),
    ("classification", {"label": ["good"]}, "line 7: column 'label' holds .'good'., which is not"),
]


def base_of(task: str) -> Architecture:
    return "encoder-decoder" if task == "seq2seq" else "encoder"


@pytest.mark.parametrize(("task", "bad", "message"), BAD)
def test_the_bad_row_is_named(tmp_path: Path, task: str, bad: Row, message: str) -> None:
    rows = [GOOD[task](i) for i in range(60)]
    assert read_rows(tmp_path, rows, architecture=base_of(task)).task == task
    rows[6] |= bad
    with pytest.raises(BadData, match=message):
        read_rows(tmp_path, rows, architecture=base_of(task))


@pytest.mark.parametrize("row", [0, 1, 59])
def test_wherever_it_is(tmp_path: Path, row: int) -> None:
    rows = [GOOD["multiple-choice"](i) for i in range(60)]
    rows[row]["options"] = ["a", "b", "c"]
    with pytest.raises(BadData, match=f"line {row + 1}: 3 choices, where most .* have 2"):
        read_rows(tmp_path, rows)


def test_words_and_tags_of_unequal_number(tmp_path: Path) -> None:
    lines = ["tokens,tags", *(f"a film {i},O O B-X" for i in range(60))]
    assert read_csv(tmp_path, "\n".join(lines)).task == "token-classification"
    lines[7] = "a film,O"
    with pytest.raises(BadData, match="line 8: 2 words have 1 tags"):
        read_csv(tmp_path, "\n".join(lines))


def test_words_with_labels_are_not_tagged(tmp_path: Path) -> None:
    lines = ["text,word,label", *(f"a film {i},film,{i % 2}" for i in range(60))]
    lines[7] = "a film was good,a film,1"
    assert read_csv(tmp_path, "\n".join(lines)).task == "classification"


def test_a_label_that_holds_a_separator_makes_no_lists(tmp_path: Path) -> None:
    lines = ["text,label", *(f"a film {i},{['good', 'bad'][i % 2]}" for i in range(200))]
    lines[7:11] = [f"film {i},good; bad" for i in range(4)]
    dataset = read_csv(tmp_path, "\n".join(lines))
    assert (dataset.task, dataset.labels) == ("classification", ("bad", "good", "good; bad"))


def test_decimal_commas(tmp_path: Path) -> None:
    lines = ["text;score", *(f"a film {i};{1 + i / 8}".replace(".", ",") for i in range(60))]
    with pytest.raises(BadData, match="line 2: column 'score' holds '1,0'") as caught:
        read_csv(tmp_path, "\n".join(lines))
    assert "with a point, like 3.5" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("right", "wrong", "expected"),
    [
        (0, 0, False), (1, 0, True), (1, 1, False), (2, 1, True), (37, 3, False),
        (39, 1, True), (95, 5, True), (94, 6, False), (0, 1, False),
    ],
)  # fmt: skip
def test_nearly_all(right: int, wrong: int, expected: bool) -> None:
    assert nearly_all([True] * right + [False] * wrong) is expected


def test_a_label_without_a_list_is_one(tmp_path: Path) -> None:
    rows = [GOOD["multi-label"](i) for i in range(60)]
    rows[6]["labels"] = "bad"
    dataset = read_rows(tmp_path, rows)
    assert (dataset.task, dataset.labels) == ("multi-label", ("bad", "good"))
