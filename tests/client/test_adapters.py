"""Models of peft in memory: their adapters are contributed, and what cannot be is said first."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model, inject_adapter_in_model
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Trainer,
    TrainingArguments,
)

from coldfusion_client import Client, ColdFusionCallback, ContributionWarning
from coldfusion_client.memory import save
from coldfusion_shared import errors
from tests.client.repository import MODEL, TOKEN, Repository
from tests.shared.checkpoints import read_file
from tests.tiny_models import tiny_bert

# peft asks a model of transformers by a name that will be removed there.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("base"))


@pytest.fixture
def repository(base: Path) -> Repository:
    return Repository({path.name: path.read_bytes() for path in base.iterdir()}, 1_000_000)


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url, TOKEN) as client:
        yield client


def lora(**changed: Any) -> LoraConfig:
    return LoraConfig(**{"r": 2, "target_modules": ["query"], "task_type": "SEQ_CLS", **changed})


def plain(base: Path) -> Any:
    return AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)


def learnt(model: Any) -> Any:
    """Let the adapter be one that changes something."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.fill_(0.01)
    return model


def wrapped(base: Path) -> Any:
    return learnt(get_peft_model(plain(base), lora()))


def named(base: Path) -> Any:
    model = get_peft_model(plain(base), lora(), adapter_name="other")
    model.add_adapter("films", lora(target_modules=["value"]))
    model.set_adapter("films")
    return learnt(model)


def native(base: Path) -> Any:
    model = plain(base)
    model.add_adapter(lora())
    return learnt(model)


@pytest.mark.parametrize(
    ("make", "module"), [(wrapped, "query"), (named, "value"), (native, "query")]
)
def test_the_adapter_that_learns_is_contributed(
    client: Client, base: Path, repository: Repository, make: Any, module: str
) -> None:
    model = make(base)
    client.check(MODEL, model)
    contribution = client.contribute(MODEL, model, base="v0")
    assert (contribution.state, contribution.encoding) == ("accepted", "lora")
    names = list(read_file(repository.received(contribution.id)))
    assert len(names) == 4 and all(f".{module}.lora_" in name for name in names)
    assert client.contribute(MODEL, model, base="v0").id == contribution.id
    assert not any((client._source.cache.root / "scratch").iterdir())


def several(base: Path) -> Any:
    # Without a head of its own, of which peft takes one adapter's alone.
    model: Any = get_peft_model(plain(base), lora(task_type=None), adapter_name="other")
    model.add_adapter("films", lora(task_type=None))
    model.base_model.set_adapter(["other", "films"])
    return model


def scaling(base: Path) -> Any:
    config = IA3Config(task_type="SEQ_CLS", target_modules=["query"], feedforward_modules=[])
    return get_peft_model(plain(base), config)


def moved(base: Path) -> Any:
    return get_peft_model(plain(base), lora(init_lora_weights="pissa"))


def injected(base: Path) -> Any:
    return inject_adapter_in_model(lora(), plain(base))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (several, "2 adapters are active"),
        (scaling, "of type 'IA3'; only LORA"),
        (moved, "'pissa', which changes the base"),
        (injected, "does not save the adapter"),
    ],
)
def test_what_cannot_be_contributed_is_refused_with_its_reason(
    client: Client, base: Path, repository: Repository, make: Any, sentence: str
) -> None:
    model = make(base)
    for attempt in (client.check, client.contribute):
        with pytest.raises(errors.BadModel, match=sentence) as caught:
            attempt(MODEL, model, "v0") if attempt == client.contribute else attempt(MODEL, model)
        assert caught.value.hint
    assert not repository.seen("POST", "/contributions")


def test_forms_are_checked_before_a_training(
    client: Client, base: Path, repository: Repository
) -> None:
    model = wrapped(base)
    with pytest.raises(errors.InvalidRequest, match="travels as it is, and not as delta"):
        client.check(MODEL, model, encoding="delta")
    with pytest.raises(errors.InvalidRequest, match="no LoRA adapter to send"):
        client.check(MODEL, plain(base), encoding="lora")
    client.check(MODEL, encoding="delta-sign")
    repository.policy = {"encodings": ["full"]}
    with pytest.raises(errors.EncodingRefused, match="takes no LoRA adapters"):
        client.check(MODEL, model)
    with pytest.raises(errors.EncodingRefused, match="'delta-sign'"):
        client.check(MODEL, encoding="delta-sign")
    with pytest.raises(errors.ModelNotFound):
        client.check("demo/none")
    repository.role = "reader"
    with pytest.raises(errors.Forbidden):
        client.check(MODEL)


def test_several_adapters_are_saved_though_one_alone_is_sent(base: Path, tmp_path: Path) -> None:
    assert save(named(base), tmp_path) == tmp_path / "films"
    for name in ("films", "other"):
        assert (tmp_path / name / "adapter_model.safetensors").is_file()


def train(base: Path, out: Path, model: Any, callback: ColdFusionCallback) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    texts = {"the film was good": 1, "the film was bad": 0}
    examples: Any = [{**tokenizer(text), "labels": label} for text, label in texts.items()] * 4
    arguments = TrainingArguments(
        str(out), max_steps=2, learning_rate=0.01, report_to="none", save_strategy="no",
        use_cpu=True, disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    Trainer(
        model, arguments, train_dataset=examples, processing_class=tokenizer, callbacks=[callback]
    ).train()


def test_the_callback_contributes_an_adapter_and_keeps_its_head(
    client: Client, base: Path, repository: Repository, tmp_path: Path
) -> None:
    folder = client.pull(MODEL, out=tmp_path / "pulled")
    # Of a training before, without an adapter.
    kept = tmp_path / "run" / "coldfusion" / "model.safetensors"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"mine")
    callback = ColdFusionCallback(MODEL, client=client)
    model = get_peft_model(plain(folder), lora())
    train(base, tmp_path / "run", model, callback)
    assert callback.contribution is not None
    assert (callback.contribution.state, callback.contribution.encoding) == ("accepted", "lora")
    saved = tmp_path / "run" / "coldfusion" / "adapter"
    assert json.loads((saved / "adapter_config.json").read_text())["r"] == 2
    assert kept.read_bytes() == b"mine"
    heads = [name for name in read_file((saved / "adapter_model.safetensors").read_bytes())
             if "classifier" in name]  # fmt: skip
    assert heads and not any(
        "classifier" in name for name in read_file(repository.received(callback.contribution.id))
    )
    loaded = PeftModel.from_pretrained(plain(folder), str(saved))
    for name, value in loaded.state_dict().items():
        # The head's first values, which the trained ones stand in for.
        assert "original_module" in name or torch.equal(value, model.state_dict()[name])
    # What is saved says its base.
    assert client.contribute(MODEL, saved).id == callback.contribution.id


@pytest.mark.parametrize(
    ("make", "options", "before", "after"),
    [
        (scaling, {}, "of type 'IA3'", "The model is saved in "),
        (several, {}, "2 adapters are active", "The model is saved in "),
        (wrapped, {"encoding": "delta"}, "not as delta", "--base v0 --server "),
        (injected, {}, "does not save the adapter", "still in memory"),
    ],
)
def test_the_callback_says_what_cannot_be_before_the_training(
    client: Client,
    base: Path,
    tmp_path: Path,
    make: Any,
    options: dict[str, Any],
    before: str,
    after: str,
) -> None:
    callback = ColdFusionCallback(MODEL, "v0", client=client, **options)
    with pytest.warns(ContributionWarning) as caught:
        train(base, tmp_path / "run", make(base), callback)
    first, second = (
        str(one.message) for one in caught if isinstance(one.message, ContributionWarning)
    )
    assert before in first and "It will be trained and saved all the same." in first
    assert before in second and after in second
    assert "--encoding" not in second
    assert callback.contribution is None
    saved = list((tmp_path / "run").rglob("adapter_model.safetensors"))
    assert bool(saved) == (make is not injected)
