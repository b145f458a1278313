"""The part of a contribution that needs data and torch, behind an interface that needs neither."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from coldfusion_client.journal import Trained

if TYPE_CHECKING:
    from coldfusion_shared.data.dataset import TextDataset
    from coldfusion_shared.finetune.settings import FinetuneSettings

StepProgress = Callable[[int, int, float], None]


@dataclass(frozen=True)
class Data:
    """Which data set to learn from, and which of its columns."""

    source: str
    text_column: str | None = None
    text_pair_column: str | None = None
    label_column: str | None = None


class Trainer(Protocol):
    """Reads data, finetunes and scores."""

    def read(self, data: Data, seed: int) -> TextDataset:
        """Return the data set; raises `BadData`."""

    def score(self, base: Path, dataset: TextDataset, settings: FinetuneSettings) -> float:
        """Return the base's own score on the held-back examples, in percent."""

    def finetune(
        self,
        base: Path,
        dataset: TextDataset,
        settings: FinetuneSettings,
        out: Path,
        progress: StepProgress,
    ) -> Trained:
        """Finetune `base` into the folder `out`; raises `TrainingFailed`."""
