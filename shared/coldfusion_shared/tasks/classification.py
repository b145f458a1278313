"""Classification of a text, or of a pair of texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coldfusion_shared.tasks import tasks
from coldfusion_shared.tasks.pretrained import load_model

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from coldfusion_shared.data.dataset import Split, TextDataset


class Classification:
    """One label of several for each text or pair."""

    name = "classification"
    metric = "accuracy"

    def fits(self, dataset: TextDataset) -> bool:
        """Two labels at least."""
        return len(dataset.labels) > 1

    def build_model(self, base: Path, dataset: TextDataset) -> Any:
        """Return the base with a new classifier, which knows the labels' names."""
        names = dict(enumerate(dataset.labels))
        return load_model(
            "AutoModelForSequenceClassification",
            base,
            id2label=names,
            label2id={name: index for index, name in names.items()},
            # A base that still carries somebody's head gets a fresh one.
            ignore_mismatched_sizes=True,
        )

    def encode(self, tokenizer: Any, split: Split, max_length: int) -> Sequence[dict[str, Any]]:
        """Return token ids and label of each example, without padding."""
        pairs = None if split.pairs is None else list(split.pairs)
        encoded = tokenizer(list(split.texts), pairs, truncation=True, max_length=max_length)
        columns = {**encoded, "labels": split.labels}
        return [{name: values[i] for name, values in columns.items()} for i in range(len(split))]

    def collator(self, tokenizer: Any) -> Callable[[list[dict[str, Any]]], Any]:
        """Return what pads a batch to its longest example."""
        from transformers import DataCollatorWithPadding

        pad: Callable[[list[dict[str, Any]]], Any] = DataCollatorWithPadding(tokenizer)
        return pad

    def score(self, outputs: npt.NDArray[Any], labels: npt.NDArray[np.int64]) -> float:
        """Accuracy in percent; `outputs` are logits (n, labels)."""
        return 100.0 * float((outputs.argmax(axis=-1) == labels).mean())


tasks.register("classification")(Classification())
