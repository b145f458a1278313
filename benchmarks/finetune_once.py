"""One finetuning on one data set, by us or by a plain Trainer script; prints a line of JSON."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any


def ours(base: Path, data: Path, settings: dict[str, Any]) -> dict[str, float]:
    """Finetune as `contribute` does, but without early stopping: the script has none."""
    from coldfusion_shared.data import load_dataset
    from coldfusion_shared.finetune import FinetuneSettings, finetune

    dataset = load_dataset(str(data), task="classification")
    chosen = FinetuneSettings(**settings, early_stopping=False)
    with TemporaryDirectory() as folder:
        result = finetune(
            base, dataset, chosen, Path(folder, "out"), checkpoints=Path(folder, "checkpoints")
        )
    return {"score": result.test, "steps": result.steps, "seconds": result.seconds}


def plain(base: Path, data: Path, settings: dict[str, Any]) -> dict[str, float]:
    """Finetune as a tutorial would: transformers' Trainer with its own defaults."""
    import transformers
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    api: Any = transformers  # its constructors have no types
    log: Any = logging
    log.set_verbosity_error()
    log.disable_progress_bar()
    api.set_seed(settings["seed"])
    tokenizer: Any = AutoTokenizer.from_pretrained(base)
    labels = json.loads((data / "dataset.json").read_text())["labels"]
    model: Any = AutoModelForSequenceClassification.from_pretrained(base, num_labels=len(labels))

    def encoded(split: str) -> list[dict[str, Any]]:
        rows = [json.loads(line) for line in (data / f"{split}.jsonl").open(encoding="utf-8")]
        texts = [row["text"] for row in rows]
        pairs = [row["text_pair"] for row in rows] if "text_pair" in rows[0] else None
        batch = tokenizer(texts, pairs, truncation=True, max_length=settings["max_length"])
        columns = {**batch, "labels": [row["label"] for row in rows]}
        return [{name: of[i] for name, of in columns.items()} for i in range(len(rows))]

    with TemporaryDirectory() as folder:
        arguments = api.TrainingArguments(
            output_dir=folder,
            num_train_epochs=settings["epochs"],
            max_steps=settings["max_steps"] or -1,
            learning_rate=settings["lr"],
            per_device_train_batch_size=settings["batch_size"],
            per_device_eval_batch_size=64,
            warmup_steps=0.1,
            seed=settings["seed"],
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        begun = time.monotonic()
        trainer = api.Trainer(
            model=model,
            args=arguments,
            train_dataset=encoded("train"),
            data_collator=api.DataCollatorWithPadding(tokenizer),
        )
        trainer.remove_callback(api.PrinterCallback)
        trainer.train()
        seconds = time.monotonic() - begun
        outcome = trainer.predict(encoded("test"))
    right = outcome.predictions.argmax(axis=-1) == outcome.label_ids
    return {
        "score": 100 * float(right.mean()),
        "steps": trainer.state.global_step,
        "seconds": seconds,
    }


PROGRAMS = {"ours": ours, "plain": plain}


def main() -> None:
    """Run the program `argv[1]` with the base, data and settings that follow."""
    program, base, data, settings = sys.argv[1:]
    measured = PROGRAMS[program](Path(base), Path(data), json.loads(settings))
    sys.stdout.write(json.dumps(measured) + "\n")


if __name__ == "__main__":
    main()
