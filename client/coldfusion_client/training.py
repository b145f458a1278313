"""The part of a contribution that needs data and torch, behind an interface that needs neither."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from coldfusion_client.journal import Trained

if TYPE_CHECKING:
    from coldfusion_shared.data.dataset import TextDataset
    from coldfusion_shared.data.report import Finding
    from coldfusion_shared.finetune.settings import FinetuneSettings

# In the folder of a model that learnt an adapter.
ADAPTER_FOLDER = "adapter"

StepProgress = Callable[[int, int, float], None]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Data:
    """
    Which data set to learn from, and how to read it.

    Attributes:
        source: a file, a folder, or a name of the datasets library.
        columns: the columns of some roles, by role; the others are found by their usual names.
        task: the kind of task; null: the first one that fits.
    """

    source: str
    columns: Mapping[str, str] = field(default_factory=dict)
    task: str | None = None


class Trainer(Protocol):
    """Reads data, finetunes and scores."""

    def read(self, data: Data, seed: int, config: Path | None) -> TextDataset:
        """Return the data set for a base with that config.json; raises `BadData`, `BadModel`."""

    def check(self, base: Path, dataset: TextDataset, settings: FinetuneSettings) -> list[Finding]:
        """Return what a person should know of the data; raises `BadModel`."""

    def can_score(self, dataset: TextDataset) -> bool:
        """Return whether a base alone, without a head of its own, has a score on such data."""

    def score(self, base: Path, dataset: TextDataset, settings: FinetuneSettings) -> float:
        """Return the base's own score on held-back examples, in percent."""

    def rescore(self, model: Path, dataset: TextDataset, settings: FinetuneSettings) -> float:
        """Return the score of a finetuned model's folder on the held-back examples, in percent."""

    def finetune(
        self,
        base: Path,
        dataset: TextDataset,
        settings: FinetuneSettings,
        out: Path,
        progress: StepProgress,
        say: Say = lambda sentence: None,
    ) -> Trained:
        """
        Finetune `base` into the folder `out`; raises `TrainingFailed`.

        Called again after a kill, it goes on where it was.
        """
