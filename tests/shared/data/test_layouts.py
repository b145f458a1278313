"""Columns as published data sets have them: what belongs to an example is read, and told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coldfusion_shared.data import TextDataset
from coldfusion_shared.tasks.architectures import Architecture
from tests.shared.tasks.rows import read_rows

Layout = Callable[[int], dict[str, Any]]


def read(folder: Path, layout: Layout, base: Architecture = "encoder") -> TextDataset:
    return read_rows(folder, [layout(i) for i in range(60)], architecture=base)


PAIRS: dict[str, tuple[Layout, str, str]] = {
    "boolq": (
        lambda i: {"question": f"q{i}", "passage": f"p{i}", "idx": i, "label": i % 2}, "q#", "p#",
    ),
    "boolq of the hub": (
        lambda i: {"question": f"q{i}", "answer": i % 2 == 0, "passage": f"p{i}"}, "q#", "p#",
    ),
    "a question about a context": (
        lambda i: {"question": f"q{i}", "context": f"c{i}", "label": i % 2}, "q#", "c#",
    ),
    "a query about a passage": (
        lambda i: {"query": f"q{i}", "passage": f"p{i}", "label": i % 2}, "q#", "p#",
    ),
    "multirc": (
        lambda i: {"paragraph": f"p{i}", "question": "q", "answer": f"a{i}", "label": i % 2},
        "q a#", "p#",
    ),
    "wsc": (
        lambda i: {
            "text": f"t{i}", "span1_text": "Ada", "span2_text": "she", "span1_index": 0,
            "span2_index": 3, "label": i % 2,
        },
        "t# she", "Ada",
    ),
    "wikiqa": (
        lambda i: {"question": f"q{i}", "document_title": "t", "answer": "a", "label": i % 2},
        "q#", "a",
    ),
    "sick": (
        lambda i: {"sentence_A": f"a{i}", "sentence_B": f"b{i}", "label": i % 3}, "a#", "b#",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PAIRS)
def test_both_texts_are_read(tmp_path: Path, case: str) -> None:
    layout, text, pair = PAIRS[case]
    dataset = read(tmp_path, layout)
    assert dataset.task == "classification"
    found = {row for part in dataset.splits.values() for row in part.keys(["text", "text_pair"])}
    assert found == {(text.replace("#", str(i)), pair.replace("#", str(i))) for i in range(60)}


def test_an_answer_that_is_in_its_context_is_to_be_found(tmp_path: Path) -> None:
    def layout(i: int) -> dict[str, Any]:
        return {"question": f"q{i}", "context": f"film {i}", "answer": "film", "label": i % 2}

    assert read(tmp_path, layout).task == "question-answering"


def test_instructions_may_be_about_a_context(tmp_path: Path) -> None:
    def dolly(i: int) -> dict[str, Any]:
        return {"instruction": f"do {i}", "context": "it", "response": "done", "category": "qa"}

    dataset = read(tmp_path, dolly, "decoder")
    assert dataset.task == "instruction"
    assert {messages[0][1] for messages in dataset.train["messages"]} <= {
        f"do {i}\n\nit" for i in range(60)
    }
    assert dataset.notes[0] == (
        "Columns: 'instruction' is the prompt, 'context' is what the prompt is about, 'response' "
        "is the completion; not used: 'category'."
    )


@pytest.mark.parametrize("first", [0, 1])
def test_choices_that_are_called_answers(tmp_path: Path, first: int) -> None:
    def cosmos(i: int) -> dict[str, Any]:
        answers = {f"answer{first + k}": f"a{k}" for k in range(4)}
        return {"context": f"c{i}", "question": f"q{i}", **answers, "label": first + i % 4}

    dataset = read(tmp_path, cosmos)
    assert dataset.task == "multiple-choice"
    assert set(dataset.train["choices"]) == {("a0", "a1", "a2", "a3")}
    assert set(dataset.train["label"]) == {0, 1, 2, 3}
    assert set(dataset.train.columns) == {"text", "question", "choices", "label"}


def test_what_is_read_and_what_is_not_is_told(tmp_path: Path) -> None:
    def layout(i: int) -> dict[str, Any]:
        more = {f"more{k}": 0 for k in range(11)}
        return {"title": "t", "text": f"film {i}", "label": i % 2, **more}

    note, *_ = read(tmp_path, layout).notes
    told = ", ".join(f"'more{k}'" for k in range(7))
    assert note == (
        f"Columns: 'text' is the text, 'label' is the label; not used: 'title', {told}, 4 others."
    )
