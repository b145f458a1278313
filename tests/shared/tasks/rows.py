"""Data sets as a person would write them, into files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from coldfusion_shared.data import TextDataset, load_dataset
from coldfusion_shared.finetune import FinetuneResult, FinetuneSettings, finetune
from coldfusion_shared.tasks import task_named
from coldfusion_shared.tasks.architectures import Architecture
from coldfusion_shared.tasks.pretrained import load_tokenizer
from tests.tiny_models import DECODERS, ENCODERS

# What the tiny models are.
KIND_OF: dict[str, Architecture] = {
    **dict.fromkeys(ENCODERS, "encoder"),
    **dict.fromkeys(DECODERS, "decoder"),
    "t5": "encoder-decoder",
}

QUICK = FinetuneSettings(
    epochs=8, lr=3e-3, batch_size=16, max_length=24, seed=1, early_stopping=False
)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def write_parquet(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
    return path


def read_rows(folder: Path, rows: Iterable[Mapping[str, Any]], **options: Any) -> TextDataset:
    return load_dataset(str(write_rows(folder / "mine.jsonl", rows)), **options)


def read_csv(folder: Path, text: str, **options: Any) -> TextDataset:
    (folder / "mine.csv").write_text(text, encoding="utf-8")
    return load_dataset(str(folder / "mine.csv"), **options)


def one_batch(base: Path, dataset: TextDataset, max_length: int = 24, size: int = 4) -> Any:
    """Return the model's output on a few training examples, and the batch."""
    task, tokenizer = task_named(dataset.task), load_tokenizer(base)
    model = task.build_model(base, dataset).eval()
    encoded = task.encode(tokenizer, dataset.train, max_length)
    batch = task.collator(tokenizer, model)([dict(example) for example in encoded[:size]])
    return model(**batch), batch


def tuned(base: Path, dataset: TextDataset, out: Path, **changed: Any) -> FinetuneResult:
    return finetune(base, dataset, QUICK.model_copy(update=changed), out)
