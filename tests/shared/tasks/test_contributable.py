"""What a finetuning saves has the base's body, for every architecture and task."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

from coldfusion_shared.data import Split, TextDataset
from coldfusion_shared.data.choice import choose_task
from coldfusion_shared.data.table import Table
from coldfusion_shared.errors import BadData, BadModel
from coldfusion_shared.tasks import in_order, task_named
from coldfusion_shared.tasks.pretrained import load_model, load_tokenizer
from coldfusion_shared.weights.body import is_head
from coldfusion_shared.weights.checkpoint import Checkpoint
from coldfusion_shared.weights.write import write_body
from tests.shared.tasks.rows import KIND_OF
from tests.tiny_models import ARCHITECTURES, tiny_model

QUESTIONS = "question-answering"
ALL = [(task.name, kind) for task in in_order() for kind in ARCHITECTURES]
TASKS = [(task, kind) for task, kind in ALL if KIND_OF[kind] in task_named(task).architectures]
REFUSED = [pair for pair in ALL if pair not in TASKS]
BARE = [
    *((QUESTIONS, kind) for kind in ("llama", "t5")),
    *(("causal-language-modelling", kind) for kind in ("qwen2", "gpt2")),
    ("seq2seq", "t5"),
]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {kind: tiny_model(folder / kind, kind) for kind in ARCHITECTURES}


def dataset_of(task: str) -> TextDataset:
    split = Split({"text": ("a film",), "label": (0,)})
    return TextDataset("films", task, ("bad", "good"), split, split, split)


def changed_and_written(base: Path, task: str, folder: Path) -> dict[str, torch.Tensor]:
    """Build the task's model, move every weight, save it, and write its body."""
    model = task_named(task).build_model(base, dataset_of(task))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight += torch.rand(weight.shape, generator=generator)
    model.save_pretrained(folder / "finetuned")
    with (
        Checkpoint.from_folder(folder / "finetuned") as finetuned,
        Checkpoint.from_folder(base) as onto,
    ):
        write_body(finetuned, onto, folder / "body.safetensors")
    again = getattr(transformers, type(model).__name__).from_pretrained(folder / "finetuned")
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], weight, rtol=0, atol=0)
    return load_file(folder / "body.safetensors")


def moved(base: Path, body: dict[str, torch.Tensor]) -> set[str]:
    before = load_file(base / "model.safetensors")
    assert set(body) == {name for name in before if not is_head(name)}
    for name, tensor in body.items():
        assert tensor.shape == before[name].shape
    return {name for name, tensor in body.items() if (tensor - before[name]).abs().max() > 0.5}


@pytest.mark.parametrize(("task", "kind"), TASKS)
def test_the_body_has_the_bases_names(
    bases: dict[str, Path], tmp_path: Path, task: str, kind: str
) -> None:
    body = changed_and_written(bases[kind], task, tmp_path)
    still = set(body) - moved(bases[kind], body)
    # Some heads have no use for a pooler; what they leave out comes from the base.
    assert all("pooler" in name for name in still)


@pytest.mark.parametrize(("task", "kind"), REFUSED)
def test_a_base_that_would_lose_a_part_or_has_no_such_head_is_refused(
    bases: dict[str, Path], task: str, kind: str
) -> None:
    with pytest.raises(BadModel, match=f"{task} is for bases .*; this one's is {KIND_OF[kind]}"):
        task_named(task).build_model(bases[kind], dataset_of(task))
    with pytest.raises(BadData, match=f"{task} is for bases .*; this one's is {KIND_OF[kind]}"):
        choose_task(Table("films", {}, ()), {}, name=task, architecture=KIND_OF[kind])


@pytest.mark.parametrize(("task", "kind"), BARE)
def test_a_base_without_any_head(
    bases: dict[str, Path], tmp_path: Path, task: str, kind: str
) -> None:
    base = tmp_path / "bare"
    load_model("AutoModel", bases[kind]).save_pretrained(base)
    load_tokenizer(bases[kind]).save_pretrained(base)
    body = changed_and_written(base, task, tmp_path)
    assert moved(base, body) == set(body)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_the_body_is_the_bases_under_a_head_that_calls_it_otherwise(
    bases: dict[str, Path], kind: str
) -> None:
    model = task_named(QUESTIONS).build_model(bases[kind], dataset_of(QUESTIONS))
    body = load_model("AutoModel", bases[kind]).state_dict()
    for name, weight in getattr(model, model.base_model_prefix).state_dict().items():
        torch.testing.assert_close(weight, body[name], rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_missing_padding_token_is_the_one_for_the_end(bases: dict[str, Path], kind: str) -> None:
    tokenizer = load_tokenizer(bases[kind])
    model = load_model("AutoModelForCausalLM", bases[kind])
    assert tokenizer.pad_token == tokenizer.eos_token
    assert len(tokenizer) == model.get_input_embeddings().num_embeddings
