from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForMaskedLM, TrainingArguments

from coldfusion_shared.finetune.trainer import OurTrainer
from coldfusion_shared.quiet import quiet_transformers
from coldfusion_shared.tasks.tokens import IGNORED
from tests.tiny_models import tiny_bert


@pytest.fixture
def model(tmp_path: Path) -> Any:
    quiet_transformers()
    loaded: Any = AutoModelForMaskedLM.from_pretrained(tiny_bert(tmp_path / "base"))
    # In training, as the Trainer has it, but with nothing dropped.
    loaded.train()
    for module in loaded.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return loaded


def batch(*labels: int) -> dict[str, torch.Tensor]:
    ids = torch.arange(5, 5 + len(labels))[None]
    return {"input_ids": ids, "labels": torch.tensor([labels])}


def test_each_batch_counts_in_a_step_by_what_is_predicted_in_it(model: Any, tmp_path: Path) -> None:
    build: Any = OurTrainer
    trainer = build(
        model=model, args=TrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    )
    batches = [batch(7, 8, 9, IGNORED), batch(*[IGNORED] * 4), batch(7, *[IGNORED] * 3)]
    fetched, _ = trainer.get_batch_samples(iter(batches), 3, torch.device("cpu"))
    losses = [trainer.compute_loss(model, one) for one in fetched]
    plain = [model(**one).loss for one in (batches[0], batches[2])]
    assert losses[0].item() == pytest.approx(3 * 3 / 4 * plain[0].item())
    assert losses[2].item() == pytest.approx(3 * 1 / 4 * plain[1].item())
    # Where nothing is to be predicted, the mean of nothing would be no number.
    losses[1].backward()
    assert losses[1].item() == 0
    assert all(weight.grad is None or not weight.grad.any() for weight in model.parameters())
