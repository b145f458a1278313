"""A base whose type of model has no head for a task is refused by its config.json alone."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from coldfusion_shared.errors import BadModel
from coldfusion_shared.tasks import in_order, task_named
from coldfusion_shared.tasks.heads import require_head
from tests.shared.tasks.rows import KIND_OF
from tests.tiny_models import ARCHITECTURES


def config(folder: Path, **content: Any) -> Path:
    # Named as the client's cache names it.
    file = folder / "0a1b2c"
    file.write_text(json.dumps(content))
    return file


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_what_can_be_learnt_is_let_through(tmp_path: Path, kind: str) -> None:
    file = config(tmp_path, model_type=kind, architectures=[ARCHITECTURES[kind]])
    for task in in_order():
        if KIND_OF[kind] in task.architectures:
            require_head(task, file)


@pytest.mark.parametrize(
    ("written_by", "task", "others"),
    [
        (
            "PhiForCausalLM",
            "question-answering",
            ["instruction", "token-classification", "multi-label", "regression", "classification",
             "causal-language-modelling"],
        ),
        ("MambaForCausalLM", "classification", ["instruction", "causal-language-modelling"]),
        ("MarianMTModel", "classification", ["instruction", "seq2seq"]),
    ],
)  # fmt: skip
def test_a_type_without_such_a_head_is_refused(
    tmp_path: Path, written_by: str, task: str, others: list[str]
) -> None:
    kind = written_by.partition("For")[0].removesuffix("MTModel").lower()
    file = config(tmp_path, model_type=kind, architectures=[written_by])
    with pytest.raises(BadModel, match=f"no head for {task} on models of the type {kind}") as told:
        require_head(task_named(task), file)
    assert str(told.value.hint).endswith(f"--task: {', '.join(others)}.")
    for other in others:
        require_head(task_named(other), file)


@pytest.mark.parametrize("content", [{"model_type": "tomorrow"}, {"model_type": ["bert"]}, {}])
def test_an_unknown_type_is_refused(tmp_path: Path, content: dict[str, Any]) -> None:
    with pytest.raises(BadModel, match="knows no models of the type") as told:
        require_head(task_named("classification"), config(tmp_path, **content))
    assert "pip install -U transformers" in str(told.value.hint)


def test_a_task_of_somebody_elses_is_taken_at_its_word(tmp_path: Path) -> None:
    task: Any = SimpleNamespace(name="own", architectures=("encoder",))
    require_head(task, config(tmp_path, model_type="bert"))
