from __future__ import annotations

import json
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import pytest

from coldfusion_client.cli.text import size
from coldfusion_client.contribute import Order
from coldfusion_client.dry_run import dry_run
from coldfusion_client.source import Source
from coldfusion_client.training import Data
from coldfusion_shared import errors
from coldfusion_shared.data.report import Finding
from coldfusion_shared.finetune import FinetuneSettings
from coldfusion_shared.finetune.estimate import Estimate
from tests.client.helpers import NAMES, Notes
from tests.client.repository import MODEL, Repository
from tests.client.trainer import FakeTrainer
from tests.toy_data import toy_dataset

# The tensors of the body, in float32.
UPLOAD = 4 * sum(prod(shape) for shape in NAMES.values())
ESTIMATE = Estimate(
    metric="accuracy", precision="fp32", steps=16, step_examples=16, step_seconds=0.5,
    seconds=9000.0, memory=2_500_000_000, memory_of="process",
)  # fmt: skip


class Planner(FakeTrainer):
    """Finds one thing in any data, and measures nothing."""

    def read(self, data: Data, seed: int, config: Path | None) -> Any:
        super().read(data, seed, config)
        return toy_dataset()

    def check(self, base: Path, dataset: Any, settings: Any) -> list[Finding]:
        assert (base / "model.safetensors").is_file()
        return [Finding("leak", "3 of the test examples are in the training data.", serious=True)]

    def estimate(self, base: Path, dataset: Any, settings: Any, say: Any) -> Estimate:
        assert (base / "model.safetensors").is_file()
        return ESTIMATE


@pytest.fixture
def order() -> Order:
    return Order(model=MODEL, data=Data("mine.csv"), settings=FinetuneSettings())


def test_it_says_what_would_happen_and_contributes_nothing(
    order: Order, source: Source, repository: Repository, notes: Notes
) -> None:
    planner = Planner()
    text = dry_run(order, source, planner).as_text(size)
    assert text.splitlines() == [
        "! 3 of the test examples are in the training data.",
        f"Base: {MODEL} v0",
        "Task: classification, 2 labels, scored by accuracy",
        "Columns: text, label",
        "Examples: 64 train, 24 validation, 30 test",
        "Steps: 16 at most, of 16 examples, in fp32",
        "Time: 2 hours at most, scoring included (0.50 s a step, measured); transfers come on top",
        "Memory: 2.5 GB of the process, measured",
        f"Upload: {size(UPLOAD)} of weights; the data and the head stay here",
        "Nothing was contributed. Without --dry-run it is.",
    ]
    assert (planner.trained, repository.contributions) == (0, {})
    assert not Path("coldfusion-runs").exists()


def test_programs_get_the_same_as_json(order: Order, source: Source) -> None:
    told = json.loads(json.dumps(dry_run(order, source, Planner()).as_json()))
    assert told["dry_run"] is True
    assert told["splits"] == {"train": 64, "validation": 24, "test": 30}
    assert told["findings"][0]["serious"] is True
    assert (told["seconds"], told["memory"], told["steps"]) == (9000.0, 2_500_000_000, 16)
    assert told["settings"]["batch_size"] == 16


def test_who_may_not_contribute_learns_it_first(
    order: Order, source: Source, repository: Repository
) -> None:
    repository.role = "reader"
    with pytest.raises(errors.Forbidden):
        dry_run(order, source, Planner())
    assert not repository.seen("GET", "/files/")


def test_it_is_for_one_process(
    order: Order, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(errors.InvalidRequest, match="one process"):
        dry_run(order, source, Planner())


@pytest.mark.parametrize(
    ("settings", "encoding", "bytes_"),
    [
        ({"freeze": "encoder"}, "full", 16),
        # As the finetuned model would call it.
        ({"freeze": "bert.encoder"}, "full", 16),
        ({"freeze": "encoder.bias,pooler"}, "delta", 32),
        ({"lora": True, "lora_rank": 1}, "auto", 12 * 4),
        ({"lora": True, "lora_rank": 1, "dora": True}, "auto", (12 + 6) * 4),
        # Of rank 2 the adapter of the pooler would have more numbers than the pooler.
        ({"lora": True, "lora_rank": 2}, "auto", 2 * 8 * 4),
        ({"lora": True, "lora_rank": 2, "lora_targets": "encoder"}, "auto", 2 * 8 * 4),
        ({"lora": True, "lora_rank": 2, "lora_targets": "bert.encoder"}, "lora", 2 * 8 * 4),
        ({"lora": True, "lora_rank": 1, "freeze": "encoder"}, "auto", 4 * 4),
        ({"lora": True, "lora_rank": 2, "lora_targets": "encoder"}, "delta", 16 * 4 // 2),
        ({"lora": True, "lora_rank": 2, "lora_targets": "encoder"}, "full", UPLOAD),
    ],
)
def test_the_upload_is_of_what_would_learn(
    order: Order, source: Source, settings: dict[str, Any], encoding: str, bytes_: int
) -> None:
    chosen = FinetuneSettings(**settings)
    plan = dry_run(replace(order, settings=chosen, encoding=encoding), source, Planner())
    assert plan.upload == bytes_
