"""Classification of a text, or of a pair of texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coldfusion_shared.tasks import tasks

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
        from transformers import AutoModelForSequenceClassification

        names = dict(enumerate(dataset.labels))
        return AutoModelForSequenceClassification.from_pretrained(
            base, num_labels=len(names), id2label=names, label2id={v: k for k, v in names.items()}
        )

    def encode(self, tokenizer: Any, split: Split, max_length: int) -> Sequence[dict[str, Any]]:
        """Return token ids and label of each example, without padding."""
        pairs = None if split.pairs is None else list(split.pairs)
        encoded = tokenizer(list(split.texts), pairs, truncation=True, max_length=max_length)
        columns = {**encoded, "labels": split.labels}
        return [{name: values[i] for name, values in columns.items()} for i in range(len(split))]

    def score(self, outputs: npt.NDArray[Any], labels: npt.NDArray[np.int64]) -> float:
        """Accuracy in percent; `outputs` are logits (n, labels)."""
        return 100.0 * float((outputs.argmax(axis=-1) == labels).mean())


tasks.register("classification")(Classification())
