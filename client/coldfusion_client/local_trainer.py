"""Finetuning on this machine, with transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from coldfusion_client.extras import needs_train, require_dp
from coldfusion_client.journal import PrivacySpent, Trained
from coldfusion_client.training import Data, Say, StepProgress
from coldfusion_shared.errors import InvalidRequest

if TYPE_CHECKING:
    from coldfusion_shared.data.dataset import TextDataset
    from coldfusion_shared.data.report import Finding
    from coldfusion_shared.finetune.estimate import Estimate
    from coldfusion_shared.finetune.settings import FinetuneSettings


# A probe says where a contribution begins. Of more examples it would come out a point or so higher.
PROBED = {"train": 1000, "validation": 300, "test": 1000}
# It may cost this share of the training's own time, if so much tells anything at all.
PROBE_SHARE, LEAST_PROBED = 0.04, 0.2
# An example that is learnt from takes as long as so many that are only looked at.
LEARNING_COSTS = 3


def settings_of(options: Mapping[str, Any]) -> FinetuneSettings:
    """
    Return finetuning settings; what is null in `options` keeps its default.

    Raises:
        InvalidRequest: a value makes no sense; every such one is named.
        MissingExtra: they ask for DP-SGD, and what it needs is not installed.
    """
    from coldfusion_shared.finetune.settings import FinetuneSettings

    given = {name: value for name, value in options.items() if value is not None}
    try:
        settings = FinetuneSettings(**given)
    except ValidationError as error:
        faults = [f"{_flag(str(one['loc'][0]))}: {one['msg']}" for one in error.errors()]
        raise InvalidRequest(
            f"These settings cannot be used: {'; '.join(faults)}.",
            hint="See coldfusion-client contribute --help",
        ) from None
    if settings.dp:
        require_dp()
    return settings


def _flag(setting: str) -> str:
    return f"--{setting.removeprefix('lora_').replace('_', '-')}"


class LocalTrainer:
    """Reads, finetunes and scores with what the extra `train` installs."""

    def read(self, data: Data, seed: int, config: Path | None) -> TextDataset:
        """Return the data set for a base with that config.json; raises `BadData`, `BadModel`."""
        from coldfusion_shared.data.readers import load_dataset
        from coldfusion_shared.tasks import task_named
        from coldfusion_shared.tasks.architectures import architecture_of
        from coldfusion_shared.tasks.heads import require_head

        with needs_train():
            dataset = load_dataset(
                data.source,
                columns=data.columns,
                task=data.task,
                architecture=architecture_of(config) if config else None,
                seed=seed,
            )
            if config:
                require_head(task_named(dataset.task), config)
        return dataset

    def can_score(self, dataset: TextDataset) -> bool:
        """Return whether a probe makes sense: only a classifier can be probed."""
        return dataset.task == "classification"

    def score(self, base: Path, dataset: TextDataset, settings: FinetuneSettings) -> float:
        """Return what a linear probe of the base reaches on held-back examples, in percent."""
        with needs_train():
            from coldfusion_shared.evaluate.probe import probe

            sample = _probed(dataset, settings)
            return probe(base, sample, max_length=settings.max_length).accuracy

    def rescore(self, model: Path, dataset: TextDataset, settings: FinetuneSettings) -> float:
        """Return the score of a finetuned model's folder on the held-back examples, in percent."""
        with needs_train():
            from coldfusion_shared.finetune.train import score_model

            return score_model(model, dataset, settings)

    def finetune(
        self,
        base: Path,
        dataset: TextDataset,
        settings: FinetuneSettings,
        out: Path,
        progress: StepProgress,
        say: Say = lambda sentence: None,
    ) -> Trained:
        """Finetune `base` into `out`, with checkpoints beside it; raises `TrainingFailed`."""
        with needs_train():
            from coldfusion_shared.finetune.train import finetune

            checkpoints = out.with_name("checkpoints")
            result = finetune(base, dataset, settings, out, progress, say, checkpoints)
        return Trained(
            task=result.task,
            metric=result.metric,
            score=result.test,
            metrics=dict(result.metrics),
            steps=result.steps,
            seconds=result.seconds,
            examples=result.examples,
            privacy=PrivacySpent(**asdict(result.privacy)) if result.privacy else None,
        )

    def check(self, base: Path, dataset: TextDataset, settings: FinetuneSettings) -> list[Finding]:
        """Return what a person should know of the data; raises `BadModel`."""
        with needs_train():
            from coldfusion_shared.data.report import check_data
            from coldfusion_shared.tasks.pretrained import load_tokenizer, longest_input_of

            tokenizer = load_tokenizer(base)
            longest = longest_input_of(base, tokenizer, settings.max_length)
            found = check_data(dataset, tokenizer, longest)
        if longest == settings.max_length:
            return found
        return [_by_the_model(one, longest) if one.kind == "length" else one for one in found]

    def estimate(
        self, base: Path, dataset: TextDataset, settings: FinetuneSettings, say: Say
    ) -> Estimate:
        """Return what finetuning, and scoring the base before it, would take; measured."""
        with needs_train():
            from coldfusion_shared.evaluate.probe import probe_seconds
            from coldfusion_shared.finetune.estimate import estimate

            measured = estimate(base, dataset, settings, say)
            if not self.can_score(dataset):
                return measured
            sample = _probed(dataset, settings)
            before = probe_seconds(base, sample, max_length=settings.max_length)
            return replace(measured, seconds=measured.seconds + before)


def _probed(dataset: TextDataset, settings: FinetuneSettings) -> TextDataset:
    """Return the examples of a probe: the fewer, the shorter the training is."""
    learnt = settings.epochs * len(dataset.train)
    if settings.max_steps:
        learnt = min(learnt, settings.max_steps * settings.batch_size)
    room = PROBE_SHARE * LEARNING_COSTS * learnt / sum(PROBED.values())
    share = min(1.0, max(LEAST_PROBED, room))
    return dataset.capped(
        **{split: round(share * size) for split, size in PROBED.items()}, seed=settings.seed
    )


def _by_the_model(finding: Finding, longest: int) -> Finding:
    """Return what is said of texts that no setting would keep whole."""
    how_many = finding.text.partition(". ")[0]
    text = f"This model takes {longest} tokens at most, whatever --max-length says. {how_many}."
    return replace(finding, text=text, serious=True)
