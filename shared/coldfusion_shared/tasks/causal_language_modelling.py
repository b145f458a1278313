"""Causal language modelling: raw text, of which a decoder learns every next token."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coldfusion_shared.data.dataset import Split, TextDataset
from coldfusion_shared.errors import BadData
from coldfusion_shared.tasks import Scoring, tasks
from coldfusion_shared.tasks.heads import head_of
from coldfusion_shared.tasks.labelled import first
from coldfusion_shared.tasks.pretrained import load_model
from coldfusion_shared.tasks.raw_text import RawText, is_raw
from coldfusion_shared.tasks.tokenized import tokenized
from coldfusion_shared.tasks.tokens import PadRight, next_token_sums, token_metrics

if TYPE_CHECKING:
    from coldfusion_shared.data.table import Table
    from coldfusion_shared.tasks.architectures import Architecture


class CausalLanguageModelling(RawText):
    """The texts one after the other, cut into blocks."""

    name = "causal-language-modelling"
    # An encoder sees the token that it is to tell.
    heads: Mapping[Architecture, str] = {"decoder": "AutoModelForCausalLM"}
    architectures = tuple(heads)

    def fits(
        self, table: Table, columns: Mapping[str, str], architecture: Architecture | None
    ) -> bool:
        """The base is a decoder, and there is nothing but text."""
        return architecture == "decoder" and is_raw(table, columns)

    def build_model(self, base: Path, dataset: TextDataset) -> Any:
        """Return the base with the head that it writes with."""
        return load_model(head_of(base, self.name, self.heads), base)

    def encode(self, tokenizer: Any, split: Split, max_length: int) -> Sequence[dict[str, Any]]:
        """
        Return blocks of `max_length` tokens; only the last may be shorter.

        A block begins with the last token of the one before it, so that every token but the very
        first is predicted once. Between two texts is the token for the end of a text.
        """
        stream = _stream(tokenizer, split)
        if len(stream) < 2:
            raise BadData(
                "A part of the data has less than two tokens.", hint="Add texts to the data set."
            )
        blocks = [stream[i : i + max_length] for i in range(0, len(stream) - 1, max_length - 1)]
        return [
            {"input_ids": block, "attention_mask": [1] * len(block), "labels": block}
            for block in blocks
        ]

    def scoring(self, tokenizer: Any, split: Split, max_length: int) -> Scoring:
        """Score next-token accuracy and perplexity over all tokens of the split."""
        examples = self.encode(tokenizer, split, max_length)
        return Scoring(examples, lambda predictions, _: token_metrics(predictions))

    def collator(self, tokenizer: Any, model: Any) -> Callable[[list[dict[str, Any]]], Any]:
        """Return what fills up a batch to its longest block."""
        return PadRight(tokenizer)

    def reduce(self, logits: Any, labels: Any) -> Any:
        """Keep three sums an example in place of its logits."""
        return next_token_sums(first(logits), labels)


def _stream(tokenizer: Any, split: Split) -> list[int]:
    end = tokenizer.eos_token_id
    stream: list[int] = []
    # Without `verbose`: texts longer than the model's input are what the blocks are for.
    texts = tokenized(tokenizer, list(split["text"]), truncation=False, verbose=False)
    for ids in texts["input_ids"]:
        stream += ids
        if end is not None and stream[-1:] != [end]:
            stream.append(end)
    return stream


tasks.register("causal-language-modelling")(CausalLanguageModelling())
