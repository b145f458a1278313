"""Finetuning on this machine, with transformers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from coldfusion_client.journal import Trained
from coldfusion_client.training import Data, StepProgress
from coldfusion_shared.errors import InvalidRequest, MissingExtra

if TYPE_CHECKING:
    from coldfusion_shared.data.dataset import TextDataset
    from coldfusion_shared.finetune.settings import FinetuneSettings


def settings_of(options: Mapping[str, Any]) -> FinetuneSettings:
    """
    Return finetuning settings; what is null in `options` keeps its default.

    Raises:
        InvalidRequest: a value makes no sense; every such one is named.
    """
    from coldfusion_shared.finetune.settings import FinetuneSettings

    given = {name: value for name, value in options.items() if value is not None}
    try:
        return FinetuneSettings(**given)
    except ValidationError as error:
        faults = [
            f"--{str(one['loc'][0]).replace('_', '-')}: {one['msg']}" for one in error.errors()
        ]
        raise InvalidRequest(
            f"These settings cannot be used: {'; '.join(faults)}.",
            hint="See coldfusion-client contribute --help",
        ) from None


class LocalTrainer:
    """Reads, finetunes and scores with what the extra `train` installs."""

    def read(self, data: Data, seed: int) -> TextDataset:
        """Return the data set; raises `BadData`."""
        from coldfusion_shared.data.readers import load_dataset

        with _needs_extra():
            return load_dataset(
                data.source,
                text_column=data.text_column,
                text_pair_column=data.text_pair_column,
                label_column=data.label_column,
                seed=seed,
            )

    def score(self, base: Path, dataset: TextDataset, settings: FinetuneSettings) -> float:
        """Return what a linear probe of the base reaches on the held-back examples, in percent."""
        with _needs_extra():
            from coldfusion_shared.evaluate.probe import probe

            return probe(base, dataset, max_length=settings.max_length, seed=settings.seed).accuracy

    def finetune(
        self,
        base: Path,
        dataset: TextDataset,
        settings: FinetuneSettings,
        out: Path,
        progress: StepProgress,
    ) -> Trained:
        """Finetune `base` into the folder `out`; raises `TrainingFailed`."""
        with _needs_extra():
            from coldfusion_shared.finetune.train import finetune

            result = finetune(base, dataset, settings, out, progress)
        return Trained(
            task=result.task,
            metric=result.metric,
            score=result.test,
            steps=result.steps,
            seconds=result.seconds,
            examples=result.examples,
        )


@contextmanager
def _needs_extra() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtra.of("train", error.name or "torch") from None
