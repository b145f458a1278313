"""What the tasks with one prediction for a text, or a pair of texts, have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coldfusion_shared.data.values import texts_of
from coldfusion_shared.tasks.architectures import ARCHITECTURES
from coldfusion_shared.tasks.pretrained import load_model
from coldfusion_shared.tasks.roles import LABEL, TEXT, TEXT_END, TEXT_PAIR
from coldfusion_shared.tasks.tokenized import tokenized
from coldfusion_shared.tasks.tokens import PadRight

if TYPE_CHECKING:
    from coldfusion_shared.data.dataset import Split
    from coldfusion_shared.data.table import Table

# Hardly a text has more characters for each of its tokens; what is beyond would be cut anyhow,
# after minutes of work for a text of some megabytes.
CHARACTERS_A_TOKEN = 100
HEAD = "AutoModelForSequenceClassification"


class LabelledTexts:
    """What is the same for all tasks that predict one thing for each text or pair."""

    roles = (TEXT, TEXT_PAIR, TEXT_END, LABEL)
    inputs = ("text", "text_pair")
    heads = dict.fromkeys(ARCHITECTURES, HEAD)
    architectures = ARCHITECTURES
    generates = False

    def encode(self, tokenizer: Any, split: Split, max_length: int) -> Sequence[dict[str, Any]]:
        """Return token ids of each example, and what is to be predicted for it."""
        return encode_texts(tokenizer, split, max_length, split["label"])

    def collator(self, tokenizer: Any, model: Any) -> Callable[[list[dict[str, Any]]], Any]:
        """Return what pads a batch to its longest example."""
        return padding_collator(tokenizer, model)


def inputs_of(table: Table, columns: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Return the texts, with what belongs to their ends, and the second texts if there are any."""
    roles = [role for role in ("text", "text_pair", "text_end") if role in columns]
    found = {role: texts_of(table, columns[role], role) for role in roles}
    if ends := found.pop("text_end", None):
        found["text"] = tuple(map(" ".join, zip(found["text"], ends, strict=True)))
    return found


def cut(texts: Sequence[str], max_length: int) -> list[str]:
    """Return texts without what is far beyond `max_length` tokens."""
    return [text[: CHARACTERS_A_TOKEN * max_length] for text in texts]


def encode_texts(
    tokenizer: Any, split: Split, max_length: int, labels: Sequence[Any]
) -> list[dict[str, Any]]:
    """Return token ids and `labels` of each text or pair, without padding."""
    pairs = split.get("text_pair")
    encoded = tokenized(
        tokenizer,
        cut(split["text"], max_length),
        None if pairs is None else cut(pairs, max_length),
        truncation=True,
        max_length=max_length,
    )
    columns = {**encoded, "labels": labels}
    return [{name: values[i] for name, values in columns.items()} for i in range(len(split))]


def by_length(examples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sort, so that examples of one length share a batch and hardly anything is padding."""
    return sorted(examples, key=lambda example: len(example["input_ids"]))


def build_classifier(base: Path, **options: Any) -> Any:
    """Return the base with a new head for whole texts, in float32; raises `BadModel`."""
    # A base that still carries somebody's head gets a fresh one.
    return load_model(HEAD, base, ignore_mismatched_sizes=True, **options)


def named(labels: Sequence[str]) -> dict[str, dict[Any, Any]]:
    """Return what a model's config calls its labels."""
    names = dict(enumerate(labels))
    return {"id2label": names, "label2id": {name: index for index, name in names.items()}}


def padding_collator(tokenizer: Any, model: Any) -> Callable[[list[dict[str, Any]]], Any]:
    """Return what pads a batch to its longest example, so that padding changes no result."""
    # A decoder reads the last token that is no padding; its own config may name another one.
    model.config.pad_token_id = tokenizer.pad_token_id
    return PadRight(tokenizer)


def first(predictions: Any) -> Any:
    """Return the logits; some models' outputs hold more, and come as a tuple."""
    return predictions[0] if isinstance(predictions, tuple) else predictions
