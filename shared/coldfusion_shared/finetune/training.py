"""Training with transformers' Trainer. Imports torch, so it is imported lazily itself."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainingArguments, set_seed

from coldfusion_shared.data.dataset import Split, TextDataset
from coldfusion_shared.finetune.callbacks import BestWeights, ProgressCallback
from coldfusion_shared.finetune.failures import diverged
from coldfusion_shared.finetune.settings import FinetuneSettings
from coldfusion_shared.finetune.train import Progress
from coldfusion_shared.tasks import Task
from coldfusion_shared.tasks.pretrained import load_tokenizer, longest_input

# Without gradients there is room for more examples at once.
# Of all steps, those in which the learning rate rises from 0.
WARMUP = 0.1
SCORING_BATCH = 64


class Training:
    """A base with a fresh head, and the data that it learns from."""

    def __init__(
        self, base: Path, dataset: TextDataset, settings: FinetuneSettings, task: Task
    ) -> None:
        """Load the base; raises `BadModel`."""
        # Before the head is drawn.
        set_seed(settings.seed)
        self.task = task
        self.dataset = dataset
        self.settings = settings
        self.tokenizer = load_tokenizer(base)
        self.model = task.build_model(base, dataset)
        self.max_length = longest_input(self.tokenizer, self.model, settings.max_length)

    def run(self, progress: Progress) -> int:
        """Train, and return the steps it took; raises `TrainingFailed` when it diverges."""
        best = BestWeights() if self.settings.early_stopping else None
        with TemporaryDirectory() as scratch:
            trainer = self._trainer(
                scratch,
                train_dataset=self.task.encode(self.tokenizer, self.dataset.train, self.max_length),
                eval_dataset=self._by_length(self.dataset.validation),
            )
            trainer.add_callback(ProgressCallback(progress))
            if best:
                trainer.add_callback(best)
            trainer.train()
        if best and best.weights:
            self.model.load_state_dict(best.weights)
        steps = int(trainer.state.global_step)
        # The last step's loss was taken before its update.
        if not all(weight.isfinite().all() for weight in self.model.parameters()):
            raise diverged(steps, self.settings.lr)
        return steps

    def score(self, split: Split) -> float:
        """Return the model's score on a split, in percent."""
        with TemporaryDirectory() as scratch:
            metrics = self._trainer(scratch, eval_dataset=self._by_length(split)).evaluate()
        return float(metrics["eval_score"])

    def save(self, folder: Path) -> None:
        """Write the model with its head, its config and its tokenizer."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def _by_length(self, split: Split) -> Any:
        # Examples of one length share a batch, so that hardly anything is computed for padding.
        encoded = self.task.encode(self.tokenizer, split, self.max_length)
        return sorted(encoded, key=lambda example: len(example["input_ids"]))

    def _trainer(self, scratch: str, **data: Any) -> Any:
        build: Any = Trainer  # its constructor has no types
        trainer = build(
            model=self.model,
            args=_arguments(self.settings, scratch),
            **data,
            data_collator=self.task.collator(self.tokenizer),
            compute_metrics=lambda outcome: {
                "score": self.task.score(outcome.predictions, outcome.label_ids)
            },
        )
        trainer.remove_callback(PrinterCallback)
        return trainer


def _arguments(settings: FinetuneSettings, scratch: str) -> TrainingArguments:
    return TrainingArguments(
        output_dir=scratch,
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps or -1,
        learning_rate=settings.lr,
        lr_scheduler_type="linear",
        # The new head's first gradients are wild; at a full rate some seeds never recover.
        warmup_steps=WARMUP,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=SCORING_BATCH,
        seed=settings.seed,
        eval_strategy="epoch" if settings.early_stopping else "no",
        save_strategy="no",
        # Each step's loss as it is: an average would hide where it stopped being finite.
        logging_steps=1,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to="none",
        # Pinning is for copies to a GPU, and warns where there is none.
        dataloader_pin_memory=torch.cuda.is_available(),
    )
