"""Which task is taken for which columns, and what is said where none fits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from coldfusion_shared.data.choice import choose_task
from coldfusion_shared.data.table import Table
from coldfusion_shared.errors import BadData, BadModel, UnknownName
from coldfusion_shared.tasks import ORDER, in_order, task_named
from coldfusion_shared.tasks.architectures import Architecture, architecture_of

ROW: dict[str, Any] = {
    "text": "a film",
    "text_pair": "was good",
    "label": 1,
    "labels": ["a", "b"],
    "tokens": ["a", "film"],
    "tags": ["O", "B"],
    "question": "which film",
    "context": "a film",
    "answers": {"text": ["film"], "answer_start": [2]},
    "choices": ["a", "b"],
    "score": 2.5,
    "source": "a film",
    "target": "ein Film",
    "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
    "prompt": "a film",
    "completion": "was good",
}


def table(names: str, **changed: Any) -> Table:
    columns = {name: [changed.get(name, ROW.get(name))] * 3 for name in names.split()}
    return Table("mine.jsonl", columns, range(1, 4))


def chosen(names: str, architecture: Architecture | None = None, **changed: Any) -> str:
    return choose_task(table(names, **changed), {}, architecture=architecture)[0].name


@pytest.mark.parametrize(
    ("names", "task"),
    [
        ("text label", "classification"),
        ("text text_pair label", "classification"),
        ("text labels", "multi-label"),
        ("text score", "regression"),
        ("tokens tags", "token-classification"),
        ("question choices label", "multiple-choice"),
        ("question context answers", "question-answering"),
        ("question context answers choices label", "multiple-choice"),
    ],
)
def test_columns_decide(names: str, task: str) -> None:
    assert chosen(names) == task
    # Columns in another order, and some more that say nothing, change nothing.
    assert chosen("id " + " ".join(reversed(names.split()))) == task


@pytest.mark.parametrize(
    ("architecture", "task"),
    [("encoder", "masked-language-modelling"), ("decoder", "causal-language-modelling")],
)
def test_the_model_decides_what_becomes_of_raw_text(architecture: Architecture, task: str) -> None:
    assert chosen("text", architecture) == task
    assert chosen("text label", architecture) == "classification"


@pytest.mark.parametrize(
    ("names", "architecture", "task"),
    [
        ("source target", "encoder-decoder", "seq2seq"),
        ("messages", "decoder", "instruction"),
        ("prompt completion", "decoder", "instruction"),
        ("instruction context response", "decoder", "instruction"),
    ],
)
def test_what_writes_text_learns_to_answer(
    names: str, architecture: Architecture, task: str
) -> None:
    assert chosen(names, architecture) == task
    with pytest.raises(BadData, match=f"looks like data for {task}.* this one's is encoder"):
        chosen(names, "encoder")


def test_questions_with_answers_are_instructions_if_there_is_nothing_else() -> None:
    assert chosen("question answer id", "decoder", answer="film") == "instruction"
    assert chosen("question answer id", "encoder", answer="film") == "classification"


@pytest.mark.parametrize(
    ("names", "task"),
    [
        ("question context answer", "question-answering"),
        ("question choices answer", "multiple-choice"),
        ("question answer label", "classification"),
    ],
)
def test_questions_about_something_are_no_instructions(names: str, task: str) -> None:
    for architecture in task_named(task).architectures:
        assert chosen(names, architecture, answer="film") == task


@pytest.mark.parametrize(
    ("names", "architecture", "task"),
    [
        ("premise choice1 choice2 label", "decoder", "multiple-choice"),
        ("question choices label", "encoder-decoder", "multiple-choice"),
        ("text tokens tags", "encoder-decoder", "token-classification"),
    ],
)
def test_data_that_are_plain_are_not_taken_for_others(
    names: str, architecture: Architecture, task: str
) -> None:
    message = f"looks like data for {task}, which .*; this one's is {architecture}"
    with pytest.raises(BadData, match=message) as caught:
        chosen(names, architecture, premise="a", choice1="b", choice2="c")
    told = (caught.value.hint or "").split(": ")[1].rstrip(".").split(", ")
    assert told == [one.name for one in in_order() if architecture in one.architectures]


def test_a_label_that_is_not_found_does_not_make_raw_text() -> None:
    with pytest.raises(BadData, match="usual name for the label; its columns are: 'text', 'verd"):
        choose_task(table("text verdict", verdict="x"), {}, architecture="encoder")


def test_named_columns_and_tasks_win() -> None:
    both = table("text label verdict", verdict=0)
    assert choose_task(both, {"label": "verdict"})[1]["label"] == "verdict"
    assert choose_task(both, {}, name="regression")[0].name == "regression"


def test_a_column_plays_one_role() -> None:
    _, columns = choose_task(table("question answer", answer=1), {"label": "answer"})
    assert columns == {"text": "question", "label": "answer"}


def test_a_role_that_only_one_task_has_decides() -> None:
    task, columns = choose_task(
        table("text label words", words=["a"], label=["O"]), {"tokens": "words", "tags": "label"}
    )
    assert (task.name, columns) == ("token-classification", {"tokens": "words", "tags": "label"})


def test_a_role_that_nobody_has() -> None:
    with pytest.raises(BadData, match="--column colour=text: 'colour' is no column of any") as err:
        choose_task(table("text label"), {"colour": "text"})
    assert err.value.hint and "text_pair" in err.value.hint
    with pytest.raises(BadData, match="'choices' is no column of the task classification"):
        choose_task(table("text label"), {"choices": "text"}, name="classification")


def test_columns_that_are_named_tell_which_task_was_meant() -> None:
    with pytest.raises(BadData, match="usual name for the words; its columns are: 'text', 'score"):
        choose_task(table("text score"), {"tags": "score"})
    with pytest.raises(BadData, match="No kind of task fits"):
        choose_task(table("text score"), {"tags": "score", "choices": "text"})


def test_a_named_task_says_what_it_lacks() -> None:
    with pytest.raises(BadData, match="usual name for the words; its columns are: 'text'") as err:
        choose_task(table("text label"), {}, name="token-classification")
    assert err.value.hint and "--column tokens=NAME" in err.value.hint
    with pytest.raises(UnknownName, match="'juggling'"):
        choose_task(table("text label"), {}, name="juggling")


def test_every_task_is_in_the_order_and_says_what_it_is() -> None:
    assert [task.name for task in in_order()] == list(ORDER)
    for task in in_order():
        assert task_named(task.name) is task
        roles = [role.name for role in task.roles]
        assert len(set(roles)) == len(roles)
        assert all(role.what for role in task.roles)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model_type": "bert"}, "encoder"),
        ({"model_type": "deberta-v2", "architectures": ["DebertaV2ForMaskedLM"]}, "encoder"),
        ({"model_type": "llama"}, "decoder"),
        ({"model_type": "new", "architectures": ["NewForCausalLM"]}, "decoder"),
        ({"model_type": "t5", "is_encoder_decoder": True}, "encoder-decoder"),
        ({"model_type": "new", "is_encoder_decoder": True}, "encoder-decoder"),
        ({}, "encoder"),
    ],
)
def test_architectures(tmp_path: Path, config: dict[str, Any], expected: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert architecture_of(tmp_path / "config.json") == expected


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_config_that_cannot_be_read(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(BadModel, match="no readable config.json"):
        architecture_of(tmp_path / "config.json")
