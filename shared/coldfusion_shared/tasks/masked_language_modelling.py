"""Masked language modelling: raw text, of which an encoder learns to fill in what is hidden."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coldfusion_shared.data.dataset import Split, TextDataset
from coldfusion_shared.errors import BadData, BadModel
from coldfusion_shared.tasks import Scoring, tasks
from coldfusion_shared.tasks.heads import head_of
from coldfusion_shared.tasks.labelled import by_length, first
from coldfusion_shared.tasks.pretrained import load_model
from coldfusion_shared.tasks.raw_text import RawText, is_raw
from coldfusion_shared.tasks.tokenized import tokenized
from coldfusion_shared.tasks.tokens import IGNORED, PadRight, token_metrics, token_sums

if TYPE_CHECKING:
    from coldfusion_shared.data.table import Table
    from coldfusion_shared.tasks.architectures import Architecture

# BERT's.
HIDDEN_SHARE = 0.15


class MaskedLanguageModelling(RawText):
    """15% of the tokens are hidden: others every time in training, always the same in scoring."""

    name = "masked-language-modelling"
    heads: Mapping[Architecture, str] = {"encoder": "AutoModelForMaskedLM"}
    architectures = tuple(heads)

    def fits(
        self, table: Table, columns: Mapping[str, str], architecture: Architecture | None
    ) -> bool:
        """The base is an encoder, and there is nothing but text."""
        return architecture == "encoder" and is_raw(table, columns)

    def build_model(self, base: Path, dataset: TextDataset) -> Any:
        """Return the base with the head that fills in, a new one if it has none."""
        return load_model(head_of(base, self.name, self.heads), base)

    def encode(self, tokenizer: Any, split: Split, max_length: int) -> Sequence[dict[str, Any]]:
        """Return each text's stretches of `max_length` tokens; the collator hides some."""
        if tokenizer.mask_token_id is None:
            raise BadModel(
                "The base's tokenizer has no mask token, so it cannot learn to fill in.",
                hint="Choose another task with --task, such as causal-language-modelling.",
            )
        encoded = tokenized(
            tokenizer,
            list(split["text"]),
            truncation=True,
            max_length=max_length,
            return_overflowing_tokens=True,
        )
        # Some tokenizers add more than this about what overflows.
        names = [name for name in tokenizer.model_input_names if name in encoded]
        examples = [
            {name: encoded[name][i] for name in names} for i in range(len(encoded["input_ids"]))
        ]
        special = set(tokenizer.all_special_ids)
        kept = [example for example in examples if _words(example, special)]
        if not kept:
            raise BadData(
                "No text of a part of the data has a word that the base's tokenizer knows.",
                hint="Use a base whose tokenizer knows the language of the texts.",
            )
        return kept

    def scoring(self, tokenizer: Any, split: Split, max_length: int) -> Scoring:
        """Score accuracy and perplexity of hidden tokens, which a text alone decides on."""
        special = set(tokenizer.all_special_ids)
        examples = [
            _hidden(example, _words(example, special), tokenizer.mask_token_id)
            for example in by_length(self.encode(tokenizer, split, max_length))
        ]
        return Scoring(examples, lambda predictions, _: token_metrics(predictions))

    def collator(self, tokenizer: Any, model: Any) -> Callable[[list[dict[str, Any]]], Any]:
        """Return what fills up a batch, and hides tokens where that is not done yet."""
        return _Hiding(tokenizer)

    def reduce(self, logits: Any, labels: Any) -> Any:
        """Keep three sums an example in place of its logits."""
        return token_sums(first(logits), labels)


class _Hiding:
    def __init__(self, tokenizer: Any) -> None:
        from transformers import DataCollatorForLanguageModeling

        self.pad = PadRight(tokenizer)
        self.hide: Any = DataCollatorForLanguageModeling(tokenizer, mlm_probability=HIDDEN_SHARE)

    def __call__(self, examples: list[dict[str, Any]]) -> Any:
        if "labels" in examples[0]:
            return self.pad(examples)
        batch = self.hide(examples)
        # A few short texts may come out with nothing hidden, and the loss of nothing is no number.
        while not (batch["labels"] != IGNORED).any():
            batch = self.hide(examples)
        return batch


def _words(example: dict[str, Any], special: set[int]) -> list[int]:
    return [place for place, token in enumerate(example["input_ids"]) if token not in special]


def _hidden(example: dict[str, Any], words: list[int], mask: int) -> dict[str, Any]:
    ids = example["input_ids"]
    drawn = random.Random(" ".join(map(str, ids)))
    chosen = set(drawn.sample(words, max(1, round(HIDDEN_SHARE * len(words)))))
    return {
        **example,
        "input_ids": [mask if i in chosen else token for i, token in enumerate(ids)],
        "labels": [token if i in chosen else IGNORED for i, token in enumerate(ids)],
    }


tasks.register("masked-language-modelling")(MaskedLanguageModelling())
