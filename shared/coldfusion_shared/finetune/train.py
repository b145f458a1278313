"""Finetune a base on a data set, with transformers' Trainer."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from errno import ENOSPC
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coldfusion_shared.errors import BadModel, ColdFusionError, StorageFull, TrainingFailed
from coldfusion_shared.quiet import quiet_transformers
from coldfusion_shared.tasks import Task, choose_task

if TYPE_CHECKING:
    from coldfusion_shared.data.dataset import TextDataset
    from coldfusion_shared.finetune.settings import FinetuneSettings

Progress = Callable[[int, int, float], None]

# The paper's: an epoch that gains less than this on the validation part is the last one.
MIN_GAIN_PERCENT = 0.1
LOG_STEPS = 5


@dataclass(frozen=True)
class FinetuneResult:
    """
    What a finetuning has come to.

    Attributes:
        task: the kind of task.
        metric: what the scores are, in percent.
        validation: score on the validation part.
        test: score on the test part, which nothing was chosen by.
        steps: optimizer steps.
        seconds: wall time of the training alone.
        examples: examples of the training part.
    """

    task: str
    metric: str
    validation: float
    test: float
    steps: int
    seconds: float
    examples: int


def finetune(
    base: Path,
    dataset: TextDataset,
    settings: FinetuneSettings,
    output: Path,
    progress: Progress = lambda done, total, loss: None,
) -> FinetuneResult:
    """
    Finetune the model in the folder `base` and write it, with its head, into the folder `output`.

    Args:
        base: a transformers folder.
        dataset: what to learn from.
        settings: how.
        output: appears whole or not at all; an earlier one is replaced.
        progress: called after each step with steps done, steps in all, and the latest loss; what
            it raises ends the training.

    Raises:
        BadModel: the base or its tokenizer cannot be loaded.
        TrainingFailed: the loss is no number any more, or the memory does not suffice.
        StorageFull: no room for the finetuned model.
    """
    from transformers import set_seed

    task = choose_task(dataset)
    output.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        with named_errors():
            set_seed(settings.seed)
            tokenizer, model = load(base, task, dataset)
            trainer = _trainer(task, model, tokenizer, dataset, settings, staging, progress)
            started = time.monotonic()
            steps = trainer.train().global_step
            seconds = time.monotonic() - started
            scores = [
                _score(trainer, task, tokenizer, split, settings)
                for split in (dataset.validation, dataset.test)
            ]
            _save(trainer.model, tokenizer, staging / "model", output)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return FinetuneResult(
        task.name, task.metric, scores[0], scores[1], steps, seconds, len(dataset.train)
    )


def load(base: Path, task: Task, dataset: TextDataset) -> tuple[Any, Any]:
    """Return tokenizer and model of the folder `base`; raises `BadModel`."""
    from transformers import AutoTokenizer

    # It would warn that the head is new, which is what finetuning is about.
    quiet_transformers()
    try:
        return AutoTokenizer.from_pretrained(base), task.build_model(base, dataset)
    except (OSError, ValueError, KeyError) as error:
        raise BadModel(
            f"transformers cannot load the model in {base}: {error}",
            hint="The base needs a tokenizer and an architecture that this task has a head for.",
        ) from None


def _trainer(
    task: Task,
    model: Any,
    tokenizer: Any,
    dataset: TextDataset,
    settings: FinetuneSettings,
    staging: Path,
    progress: Progress,
) -> Any:
    from transformers import (
        DataCollatorWithPadding,
        EarlyStoppingCallback,
        PrinterCallback,
        Trainer,
    )

    from coldfusion_shared.finetune.callbacks import ProgressCallback

    def metrics(outcome: Any) -> dict[str, float]:
        return {"score": task.score(outcome.predictions, outcome.label_ids)}

    trainer = Trainer(
        model=model,
        args=_arguments(settings, staging),
        train_dataset=task.encode(tokenizer, dataset.train, settings.max_length),
        eval_dataset=task.encode(tokenizer, dataset.validation, settings.max_length),
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda outcome: {
            "score": task.score(outcome.predictions, outcome.label_ids)
        },
        callbacks=[ProgressCallback(progress)],
    )
    trainer.remove_callback(PrinterCallback)
    if settings.early_stopping:
        trainer.add_callback(
            EarlyStoppingCallback(
                early_stopping_patience=1, early_stopping_threshold=MIN_GAIN_PERCENT
            )
        )
    return trainer


def _arguments(settings: FinetuneSettings, staging: Path) -> Any:
    import torch
    from transformers import TrainingArguments

    each_epoch = "epoch" if settings.early_stopping else "no"
    return TrainingArguments(
        output_dir=str(staging / "checkpoints"),
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps or -1,
        learning_rate=settings.lr,
        lr_scheduler_type="linear",
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=4 * settings.batch_size,
        seed=settings.seed,
        eval_strategy=each_epoch,
        save_strategy=each_epoch,
        save_total_limit=1,
        save_only_model=True,
        load_best_model_at_end=settings.early_stopping,
        metric_for_best_model="score",
        greater_is_better=True,
        logging_strategy="steps",
        logging_steps=LOG_STEPS,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to="none",
        dataloader_pin_memory=torch.cuda.is_available(),
    )


def _score(
    trainer: Any, task: Task, tokenizer: Any, split: Any, settings: FinetuneSettings
) -> float:
    outcome: Any = trainer.predict(task.encode(tokenizer, split, settings.max_length))
    return task.score(outcome.predictions, outcome.label_ids)


def _save(model: Any, tokenizer: Any, staging: Path, output: Path) -> None:
    model.save_pretrained(staging)
    tokenizer.save_pretrained(staging)
    if output.exists():
        shutil.rmtree(output)
    staging.rename(output)


@contextmanager
def named_errors() -> Iterator[None]:
    """Turn what goes wrong inside torch and transformers into our errors."""
    try:
        yield
    except ColdFusionError:
        raise
    except MemoryError:
        raise _out_of_memory() from None
    except RuntimeError as error:
        if "out of memory" in str(error) or "can't allocate memory" in str(error):
            raise _out_of_memory() from None
        if "No space left" in str(error):
            raise _disk_full() from None
        raise TrainingFailed(f"Finetuning failed: {error}") from error
    except OSError as error:
        if error.errno == ENOSPC:
            raise _disk_full() from None
        raise


def _out_of_memory() -> TrainingFailed:
    return TrainingFailed(
        "Finetuning needs more memory than there is.",
        hint="Use a smaller --batch-size or --max-length.",
    )


def _disk_full() -> StorageFull:
    return StorageFull(
        "The disk is full; the finetuned model could not be written.",
        hint="Free some space, or choose another folder with --output, and run it again.",
    )
