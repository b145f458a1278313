"""A number for a text or a pair, scored by correlations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from coldfusion_shared.errors import BadData
from coldfusion_shared.tasks import task_named
from coldfusion_shared.tasks.regression import _score
from tests.shared.tasks.rows import one_batch, read_csv, read_rows, tuned
from tests.tiny_models import ENCODERS, tiny_bert, tiny_model

WORDS = ["awful", "bad", "warm", "good", "great"]


def rows(count: int = 60) -> list[dict[str, Any]]:
    return [
        {"sentence1": f"a film {i}", "sentence2": f"was {WORDS[i % 5]}", "score": 0.5 + i % 5}
        for i in range(count)
    ]


def test_numbers_that_are_not_whole_are_predicted(tmp_path: Path) -> None:
    dataset = read_rows(tmp_path, rows())
    assert (dataset.task, dataset.labels) == ("regression", ())
    for pair, number in dataset.test.keys(["text_pair", "label"]):
        assert number == WORDS.index(pair.split()[-1]) + 0.5


def test_numbers_may_be_written_as_text(tmp_path: Path) -> None:
    lines = [f"film {i},{i % 5}.5" for i in range(40)]
    assert read_csv(tmp_path, "\n".join(["text,label", *lines])).task == "regression"


def test_whole_numbers_are_classes_unless_the_task_is_named(tmp_path: Path) -> None:
    text = "\n".join(["text,label", *(f"film {i},{i % 5}" for i in range(40))])
    assert read_csv(tmp_path, text).task == "classification"
    dataset = read_csv(tmp_path, text, task="regression")
    assert set(dataset.train["label"]) <= {0.0, 1.0, 2.0, 3.0, 4.0}
    assert all(isinstance(label, float) for label in dataset.train["label"])


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_model_has_one_output(tmp_path: Path, kind: str) -> None:
    dataset = read_rows(tmp_path, rows())
    output, batch = one_batch(tiny_model(tmp_path / "base", kind), dataset)
    assert output.logits.shape == (4, 1)
    squares = (output.logits[:, 0] - batch["labels"]) ** 2
    assert output.loss.item() == pytest.approx(squares.mean().item(), rel=1e-5)


def test_correlations_in_percent() -> None:
    outputs, truth = np.array([[1.0], [2], [9], [4]], np.float32), np.array([1, 3, 4, 5.0])
    score = _score(outputs, truth)
    assert score["Pearson"] == pytest.approx(100 * np.corrcoef(outputs[:, 0], truth)[0, 1])
    assert score["Spearman"] == pytest.approx(100 * stats.spearmanr(outputs[:, 0], truth)[0])
    assert score["Spearman"] == pytest.approx(80)
    assert _score((outputs, "more"), truth) == score
    assert _score(-outputs, truth)["Pearson"] == pytest.approx(-score["Pearson"])


@pytest.mark.parametrize(
    ("outputs", "truth"),
    [([[2.0]] * 3, [1, 2, 3]), ([[1.0], [2], [3]], [4, 4, 4]), ([[1.0]], [1]),
     ([[0.3], [0.3 + 1e-8], [0.3]], [1, 2, 3])],
)  # fmt: skip
def test_what_never_changes_correlates_with_nothing(outputs: Any, truth: Any) -> None:
    assert _score(np.array(outputs, np.float32), np.array(truth, np.float32)) == {
        "Pearson": 0.0, "Spearman": 0.0,
    }  # fmt: skip


def test_it_learns(tmp_path: Path) -> None:
    dataset = read_rows(tmp_path, rows(120))
    result = tuned(tiny_bert(tmp_path / "base"), dataset, tmp_path / "out", epochs=20)
    assert result.metric == task_named("regression").metric == "Pearson"
    assert result.test > 90


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("3,5", "line 61: column 'score' holds '3,5', which is not a number"),
        (True, "holds True, which is not a number"),
        ([1.5], r"holds \[1.5\], which is not a number"),
        ("inf", "holds 'inf', which is not a number"),
        ("1" * 5000, "which is not a number"),
        (None, "1 of 61 examples have no label in column 'score', the first in line 61"),
        (float("nan"), "1 of 61 examples have no label"),
        ("", "1 of 61 examples have no label"),
    ],
)
def test_what_is_no_number(tmp_path: Path, value: Any, message: str) -> None:
    bad = {"sentence1": "a", "sentence2": "b", "score": value}
    with pytest.raises(BadData, match=message):
        read_rows(tmp_path, [*rows(), bad], task="regression")


def test_one_number_teaches_nothing(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="the same number, 2.5"):
        read_rows(tmp_path, [{**row, "score": 2.5} for row in rows()])
