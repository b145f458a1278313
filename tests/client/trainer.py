"""A trainer without torch: it moves every weight a little."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from coldfusion_client.journal import Trained
from coldfusion_client.training import Data, Say, StepProgress
from coldfusion_shared.data.report import Finding
from tests.client.helpers import weights


class FakeTrainer:
    """Counts what it is asked for; `during` is called in the middle of each finetuning."""

    def __init__(self, shift: float = 0.5) -> None:
        self.shift = shift
        self.scored = self.trained = 0
        self.base_score: float | None = 50.0
        self.findings: list[Finding] = []
        self.during: Callable[[], None] = lambda: None
        self.broken: Exception | None = None
        self.unscorable: Exception | None = None

    def read(self, data: Data, seed: int, config: Path | None) -> Any:
        assert config is not None and config.read_bytes() == b'{"model_type": "bert"}'
        self.data = data
        if self.broken:
            raise self.broken
        return SimpleNamespace(
            name=Path(data.source).stem, task="classification",
            digest=f"digest of {data.source}", train=range(300),
            notes=("10% of it is held back.",),
        )  # fmt: skip

    def check(self, base: Path, dataset: Any, settings: Any) -> list[Finding]:
        assert (base / "model.safetensors").is_file()
        return self.findings

    def can_score(self, dataset: Any) -> bool:
        return self.base_score is not None

    def score(self, base: Path, dataset: Any, settings: Any) -> float:
        assert self.base_score is not None
        if self.unscorable:
            raise self.unscorable
        self.scored += 1
        return self.base_score

    def rescore(self, model: Path, dataset: Any, settings: Any) -> float:
        return 80.0

    def finetune(
        self,
        base: Path,
        dataset: Any,
        settings: Any,
        out: Path,
        progress: StepProgress,
        say: Say = lambda sentence: None,
    ) -> Trained:
        self.trained += 1
        out.mkdir()
        progress(1, 2, 0.7)
        (out / "half").write_text("written first")
        self.during()
        (out / "half").unlink()
        content = weights(self.shift, prefix="bert.", head=True)
        (out / "model.safetensors").write_bytes(content)
        (out / "config.json").write_text(json.dumps({"model_type": "bert"}))
        progress(2, 2, 0.1)
        return Trained(
            task="classification",
            metric="accuracy",
            score=80.0,
            steps=2,
            seconds=1.0,
            examples=300,
            metrics={"accuracy": 80.0, "macro F1": 78.5},
        )
