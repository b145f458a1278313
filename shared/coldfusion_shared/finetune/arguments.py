"""Our settings as transformers' TrainingArguments."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from transformers import Seq2SeqTrainingArguments, TrainingArguments

from coldfusion_shared.finetune.batches import Batches, scoring_batch
from coldfusion_shared.finetune.precision import Chosen, device_kind
from coldfusion_shared.finetune.settings import FinetuneSettings
from coldfusion_shared.finetune.threads import cores_each

# Of all steps, those in which the learning rate rises from 0.
WARMUP = 0.1
# A step's gradient is shortened to this: the Trainer's own default.
LONGEST_GRADIENT = 1.0


def arguments(
    settings: FinetuneSettings,
    batches: Batches,
    precision: Chosen,
    folder: str,
    *,
    generates: bool = False,
) -> Any:
    """
    Return the Trainer's arguments.

    Args:
        settings: what the contributor chose.
        batches: how a step's examples are computed.
        precision: what to compute with.
        folder: for checkpoints.
        generates: whether scoring lets the model write.
    """
    device = device_kind()
    kind = Seq2SeqTrainingArguments if generates else TrainingArguments
    made = kind(
        output_dir=folder,
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps or -1,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",
        # The new head's first gradients are wild; at a full rate some seeds never recover.
        warmup_steps=WARMUP,
        per_device_train_batch_size=batches.size,
        gradient_accumulation_steps=batches.accumulation,
        per_device_eval_batch_size=scoring_batch(settings.max_length),
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=device == "cpu",
        seed=settings.seed,
        eval_strategy="epoch" if settings.early_stopping else "no",
        # What a task puts into an example is what its model takes.
        remove_unused_columns=False,
        # When to save is for `callbacks.Clock` to say.
        save_strategy="no",
        # Each step's loss as it is: an average would hide where it stopped being finite.
        logging_steps=1,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to="none",
        # Pinning is for copies to a GPU, and warns where there is none.
        dataloader_pin_memory=device == "cuda",
        # Texts are tokenized already: a batch takes a millisecond, which only a GPU waits for.
        dataloader_num_workers=min(2, cores_each() - 1) if device == "cuda" else 0,
        # Of DP-SGD each example is clipped already; the sum with its noise is as it has to be.
        max_grad_norm=0.0 if settings.dp else LONGEST_GRADIENT,
        **_recomputing(settings),
        **(_writing(settings) if generates else {}),
    )
    if device == "cuda":
        # Where nobody has started a process for each GPU, the Trainer would copy the model to all
        # of them at every step, which is slow, and learn from more examples a step.
        made._n_gpu = 1
    return made


def unused_gpus(processes: int) -> int:
    """Return how many GPUs of this machine nobody uses."""
    return max(0, torch.cuda.device_count() - 1) if processes == 1 else 0


def _writing(settings: FinetuneSettings) -> dict[str, Any]:
    return {
        "predict_with_generate": True,
        "generation_max_length": settings.max_length,
        "generation_num_beams": 1,
    }


def _recomputing(settings: FinetuneSettings) -> dict[str, Any]:
    if not settings.gradient_checkpointing:
        return {}
    known = {field.name for field in fields(TrainingArguments)}
    # Its newer name; the older one warns.
    name = "activation" if "activation_checkpointing" in known else "gradient"
    return {
        f"{name}_checkpointing": True,
        f"{name}_checkpointing_kwargs": {"use_reentrant": False},
    }
