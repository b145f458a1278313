"""What a data check finds, and that it finds nothing where nothing is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coldfusion_shared.data import Split, TextDataset
from coldfusion_shared.data.report import Finding, check_data
from coldfusion_shared.tasks.pretrained import load_tokenizer
from tests.tiny_models import tiny_bert


def split(start: int, size: int, **columns: Any) -> Split:
    rows = range(start, start + size)
    texts = tuple(f"film {row}" for row in rows)
    return Split({"text": texts, "label": tuple(row % 2 for row in rows), **columns})


def dataset(**parts: Split) -> TextDataset:
    usual = {"train": split(0, 100), "validation": split(100, 40), "test": split(200, 40), **parts}
    return TextDataset(
        "films",
        "classification",
        ("bad", "good"),
        usual["train"],
        usual["validation"],
        usual["test"],
    )


def found(data: TextDataset, kind: str, *more: Any) -> list[Finding]:
    return [finding for finding in check_data(data, *more) if finding.kind == kind]


def only(data: TextDataset, kind: str, *more: Any) -> Finding:
    (finding,) = found(data, kind, *more)
    return finding


def test_good_data_have_nothing_but_a_balance() -> None:
    assert check_data(dataset()) == [
        Finding("balance", "Labels of the training examples: bad 50%, good 50%.")
    ]


def test_texts_that_are_scored_and_learnt() -> None:
    train = split(0, 100)
    copied = tuple(f" FILM  {i}" if i < 12 else f"film {200 + i}" for i in range(40))
    finding = only(dataset(train=train, test=split(200, 40, text=copied)), "leak")
    assert finding.text.startswith("12 of the 40 test examples are in the training data, too")
    assert finding.serious
    chosen = only(dataset(validation=split(90, 40)), "leak")
    assert chosen.text.startswith("10 of the 40 validation examples are in the training data")
    shared = only(dataset(validation=split(210, 40)), "leak")
    assert shared.text == "30 of the 40 test examples are validation ones, too."


def test_a_pair_is_a_copy_only_as_a_whole() -> None:
    seconds = {"text_pair": tuple(f"was {i}" for i in range(40))}
    parts = {"train": split(0, 40, **seconds), "test": split(0, 40, **seconds)}
    same = dataset(validation=split(300, 40, **seconds), **parts)
    assert only(same, "leak").text.startswith("40 of the 40 test")
    others = {"text_pair": tuple(f"is {i}" for i in range(40))}
    differing = dataset(validation=split(300, 40, **seconds), train=parts["train"],
                        test=split(0, 40, **others))  # fmt: skip
    assert not found(differing, "leak")


def test_copies_and_copies_at_odds() -> None:
    texts = tuple(f"film {i // 2}" for i in range(100))
    agreeing = split(0, 100, text=texts, label=tuple(i // 2 % 2 for i in range(100)))
    finding = only(dataset(train=agreeing), "copies")
    assert finding.text == "50 of the 100 training examples are copies of others."
    assert not finding.serious
    at_odds = only(dataset(train=split(0, 100, text=texts)), "copies")
    assert at_odds.text.endswith("; 50 texts have copies with different labels.")
    assert at_odds.serious


def test_lopsided_and_rare_labels() -> None:
    labels = tuple(int(i < 3) for i in range(100))
    lopsided, rare, _ = found(dataset(train=split(0, 100, label=labels)), "balance")
    assert lopsided.serious and lopsided.text.startswith("97% of the training examples have the")
    assert rare.text == "1 of 2 labels have fewer than 5 training examples: good."


def test_several_labels_and_tags_are_counted_one_by_one() -> None:
    several = tuple((0, 1) if i % 2 else (1,) for i in range(100))
    data = dataset(train=split(0, 100, label=several))
    assert found(data, "balance")[-1].text.endswith("examples: good 100%, bad 50%.")
    words = Split({"tokens": (("a", "b"),) * 40, "tags": ((0, 1),) * 40}, ("B-X", "O"))
    tagged = TextDataset("d", "token-classification", ("B-X", "O"), words, words, words)
    assert found(tagged, "balance")[-1].text == "Labels of the training words: B-X 50%, O 50%."


def test_numbers() -> None:
    numbers = split(0, 100, label=tuple(float(i) for i in range(100)))
    data = TextDataset("d", "regression", (), numbers, split(100, 40), split(200, 40))
    large, between = found(data, "numbers")
    assert between.text == "The numbers to be predicted are between 0 and 99."
    assert large.serious and "Numbers as large as 99" in large.text


def test_few_examples_to_score() -> None:
    finding = only(dataset(test=split(200, 7)), "size")
    assert finding.text.startswith("There are only 7 test examples")


def test_texts_that_will_be_cut(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tiny_bert(tmp_path))
    texts = tuple("film " * (20 if i < 30 else 3) for i in range(100))
    data = dataset(train=split(0, 100, text=texts))
    finding = only(data, "length", tokenizer, 16)
    assert finding.text.startswith("30% of the training examples are longer than 16 tokens")
    assert finding.serious
    assert not found(data, "length", tokenizer, 22)
    assert only(data, "length", tokenizer, 21).serious
    huge = dataset(train=split(0, 2, text=("film " * 2_000_000, "film")))
    assert only(huge, "length", tokenizer, 16).text.startswith("50%")


@pytest.mark.parametrize(("longest", "cut"), [(10, False), (20, True)])
def test_choices_are_read_one_at_a_time(tmp_path: Path, longest: int, cut: bool) -> None:
    tokenizer = load_tokenizer(tiny_bert(tmp_path))
    choices = (("film", "film " * longest, "film " * 9),) * 40
    part = Split({"text": ("film",) * 40, "choices": choices, "label": (0, 1) * 20})
    data = TextDataset("d", "multiple-choice", (), part, part, part)
    assert bool(found(data, "length", tokenizer, 16)) is cut
