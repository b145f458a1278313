"""One right choice of several: COPA's columns, lists, letters, numbers and texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coldfusion_shared.data import TextDataset, load_dataset
from coldfusion_shared.errors import BadData
from coldfusion_shared.tasks import task_named
from coldfusion_shared.tasks.multiple_choice import _score
from coldfusion_shared.tasks.pretrained import load_tokenizer
from tests.shared.tasks.rows import one_batch, read_rows, tuned, write_rows
from tests.tiny_models import ENCODERS, tiny_bert, tiny_model

TASK = task_named("multiple-choice")


def copa(count: int = 60) -> list[dict[str, Any]]:
    """What is warm is right."""
    return [
        {
            "premise": f"the film {i}",
            "question": ["cause", "effect"][i // 2 % 2],
            "choice1": "was cold" if i % 2 else "is warm",
            "choice2": "is warm" if i % 2 else "was cold",
            "label": i % 2,
        }
        for i in range(count)
    ]


def quiz(label: str) -> list[dict[str, Any]]:
    """Of three choices, the one at i % 3 is right, written as `label` says."""
    rows = []
    for i in range(60):
        options = [f"a{i}", f"b{i}", f"c{i}"]
        right = i % 3
        written = {
            "text": options[right], "letter": "ABC"[right], "small": "abc"[right],
            "zero": right, "one": right + 1, "digit": str(right + 1),
        }  # fmt: skip
        rows.append({"question": f"which {i}", "options": options, "answer": written[label]})
    return rows


def is_right(dataset: TextDataset) -> bool:
    return all(
        f"which {choices[label][1:]}" == text
        and "abc"[int(text.split()[1]) % 3] == choices[label][0]
        for split in dataset.splits.values()
        for text, choices, label in split.keys(["text", "choices", "label"])
    )


def test_copa_is_recognised(tmp_path: Path) -> None:
    dataset = read_rows(tmp_path, copa())
    assert (dataset.task, dataset.labels) == ("multiple-choice", ())
    assert set(dataset.train["question"]) == {"cause", "effect"}
    assert all(
        choices[label] == "is warm" for choices, label in dataset.train.keys(["choices", "label"])
    )


@pytest.mark.parametrize("label", ["text", "letter", "small", "zero", "one", "digit"])
def test_the_right_choice_may_be_written_in_many_ways(tmp_path: Path, label: str) -> None:
    dataset = read_rows(tmp_path, quiz(label))
    assert dataset.task == "multiple-choice"
    assert is_right(dataset)


def test_choices_may_be_an_object_or_columns_of_any_name(tmp_path: Path) -> None:
    plain = read_rows(tmp_path, quiz("letter"))
    objects = [
        {**row, "options": {"text": row["options"], "label": ["A", "B", "C"]}}
        for row in quiz("letter")
    ]
    assert read_rows(tmp_path, objects).digest == plain.digest
    named = [
        {"question": row["question"], "answer": row["answer"],
         **dict(zip(["x", "y", "z"], row["options"], strict=True))}
        for row in quiz("letter")
    ]  # fmt: skip
    columns = {"choice1": "x", "choice2": "y", "choice3": "z"}
    assert read_rows(tmp_path, named, columns=columns).digest == plain.digest


def test_each_choice_is_read_with_the_text_and_the_question(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tiny_bert(tmp_path / "base"))
    dataset = read_rows(tmp_path, copa())
    row = next(dataset.train.keys(["text", "question", "choices", "label"]))
    text, question, choices, label = row
    example = TASK.encode(tokenizer, dataset.train, 60)[0]
    asked = {"cause": "What was the cause?", "effect": "What happened as a result?"}[question]
    assert example["input_ids"] == [
        tokenizer(f"{text} {asked}", choice)["input_ids"] for choice in choices
    ]
    assert example["labels"] == label


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_model_scores_the_choices(tmp_path: Path, kind: str) -> None:
    dataset = read_rows(tmp_path, quiz("zero"))
    output, batch = one_batch(tiny_model(tmp_path / "base", kind), dataset)
    assert batch["input_ids"].shape[:2] == output.logits.shape == (4, 3)
    assert batch["labels"].tolist() == list(dataset.train["label"][:4])
    assert output.loss.isfinite()


def test_accuracy() -> None:
    scores = np.array([[1.0, 2, 3], [3, 2, 1], [0, 1, 0], [5, 0, 0]])
    assert _score(scores, np.array([2, 0, 1, 1])) == {"accuracy": 75.0}
    assert _score((scores, "more"), np.array([0, 1, 2, 1])) == {"accuracy": 0.0}


def test_it_learns(tmp_path: Path) -> None:
    dataset = read_rows(tmp_path, copa(100))
    result = tuned(tiny_bert(tmp_path / "base"), dataset, tmp_path / "out")
    assert (result.task, result.metric) == ("multiple-choice", "accuracy")
    assert result.test > 90


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "width": ({"options": ["a", "b"]}, "line 1: 2 choices, where most training examples have 3"),
    "no list": ({"options": "a, b, c"}, "line 1: column 'options' holds 'a, b, c', which is not"),
    "empty": ({"options": ["a", " ", "c"]}, "line 1: one of the choices in column 'options' is em"),
    "a number": ({"options": ["a", 2, "c"]}, "line 1: column 'options' holds 2, which is not a te"),
    "another letter": ({"answer": "D"}, "line 1: 'D' in column 'answer' is none of the 3 choices"),
    "a number now": ({"answer": "1"}, "line 1: '1' in column 'answer' is none of the 3 choices"),
    "no answer": ({"answer": None}, "1 of 1 examples have no label in column 'answer'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_rows(tmp_path: Path, case: str) -> None:
    changed, message = BAD[case]
    write_rows(tmp_path / "d" / "train.jsonl", quiz("letter"))
    write_rows(tmp_path / "d" / "test.jsonl", [{**quiz("letter")[0], **changed}])
    with pytest.raises(BadData, match=message):
        load_dataset(str(tmp_path / "d"))


def test_without_choices(tmp_path: Path) -> None:
    rows = [{"text": f"t{i}", "label": i % 2} for i in range(40)]
    with pytest.raises(BadData, match="has no column of choices, nor two") as caught:
        read_rows(tmp_path, rows, task="multiple-choice")
    assert caught.value.hint and "--column choices=NAME" in caught.value.hint


def test_one_choice_that_is_always_right_teaches_nothing(tmp_path: Path) -> None:
    with pytest.raises(BadData):
        read_rows(tmp_path, [{**row, "label": 0} for row in copa()])
