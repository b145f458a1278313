"""Sequence to sequence: translations, summaries, and whatever else a text is turned into."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coldfusion_shared.data.dataset import Split, TextDataset
from coldfusion_shared.data.values import is_given, nearly_all, texts_of
from coldfusion_shared.errors import MissingExtra
from coldfusion_shared.tasks import Scoring, tasks
from coldfusion_shared.tasks.heads import head_of
from coldfusion_shared.tasks.labelled import by_length, cut, first
from coldfusion_shared.tasks.pretrained import load_model
from coldfusion_shared.tasks.roles import Role
from coldfusion_shared.tasks.tokenized import tokenized
from coldfusion_shared.tasks.tokens import IGNORED

if TYPE_CHECKING:
    from coldfusion_shared.data.table import Table
    from coldfusion_shared.tasks.architectures import Architecture

SOURCE = Role(
    "source",
    (
        *("source", "src", "input", "input_text", "article", "document", "dialogue", "text"),
        "sentence",
    ),
    "the source",
)
TARGET = Role(
    "target",
    (
        *("target", "tgt", "output", "target_text", "output_text", "summary", "highlights"),
        *("translation", "paraphrase"),
    ),
    "the target",
)

# Words of any script; characters of those that write without spaces. rouge-score's own tokenizer
# knows English letters only, and its words are these.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+")


class Seq2Seq:
    """A text that becomes another one, by an encoder-decoder."""

    name = "seq2seq"
    metric = "ROUGE-L"
    roles = (SOURCE, TARGET)
    inputs = ("source",)
    heads: Mapping[Architecture, str] = {"encoder-decoder": "AutoModelForSeq2SeqLM"}
    architectures = tuple(heads)
    generates = True

    def fits(
        self, table: Table, columns: Mapping[str, str], architecture: Architecture | None
    ) -> bool:
        """The base can write, and the targets are texts rather than numbers of classes."""
        targets = [target for target in table.columns[columns["target"]] if is_given(target)]
        return architecture == "encoder-decoder" and nearly_all(
            isinstance(target, str) and not target.strip().isdecimal() for target in targets
        )

    def parse(
        self, tables: Mapping[str, Table], columns: Mapping[str, str]
    ) -> tuple[tuple[str, ...], dict[str, Split]]:
        """Return splits of texts, none of which is empty."""
        return (), {
            name: Split({r: texts_of(table, columns[r], r) for r in ("source", "target")})
            for name, table in tables.items()
        }

    def check(self, dataset: TextDataset) -> None:
        """Whatever could be parsed will do."""

    def build_model(self, base: Path, dataset: TextDataset) -> Any:
        """Return the base with the head that it writes with."""
        return load_model(head_of(base, self.name, self.heads), base)

    def encode(self, tokenizer: Any, split: Split, max_length: int) -> Sequence[dict[str, Any]]:
        """Return token ids of sources and targets, each cut at `max_length`."""
        sources = tokenized(
            tokenizer, cut(split["source"], max_length), truncation=True, max_length=max_length
        )
        targets = tokenized(
            tokenizer,
            text_target=cut(split["target"], max_length),
            truncation=True,
            max_length=max_length,
        )
        columns = {**sources, "labels": targets["input_ids"]}
        return [{name: values[i] for name, values in columns.items()} for i in range(len(split))]

    def scoring(self, tokenizer: Any, split: Split, max_length: int) -> Scoring:
        """Score what the model writes beside the whole targets, by ROUGE-L and exact match."""
        encoded = [
            {**example, "row": row}
            for row, example in enumerate(self.encode(tokenizer, split, max_length))
        ]
        ordered = by_length(encoded)
        targets = [split["target"][example.pop("row")] for example in ordered]

        def score(predictions: Any, label_ids: Any) -> dict[str, float]:
            import numpy as np

            written = np.asarray(first(predictions))
            written = np.where(written == IGNORED, tokenizer.pad_token_id, written)
            return _metrics(tokenizer.batch_decode(written, skip_special_tokens=True), targets)

        return Scoring(ordered, score)

    def collator(self, tokenizer: Any, model: Any) -> Callable[[list[dict[str, Any]]], Any]:
        """Return what fills up sources and targets of a batch."""
        from transformers import DataCollatorForSeq2Seq

        pad: Callable[[list[dict[str, Any]]], Any] = DataCollatorForSeq2Seq(tokenizer, model=model)
        return pad


class Words:
    """What rouge-score compares: words in lower case."""

    def tokenize(self, text: str) -> list[str]:
        """Return the words of a text."""
        return _WORD.findall(text.lower())


def _metrics(written: Sequence[str], targets: Sequence[str]) -> dict[str, float]:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise MissingExtra.of("train", "rouge_score") from error
    scorer = RougeScorer(["rougeL"], tokenizer=Words())
    share = 100.0 / len(targets)
    pairs = list(zip(targets, written, strict=True))
    return {
        "ROUGE-L": share * sum(scorer.score(*pair)["rougeL"].fmeasure for pair in pairs),
        "exact match": share * sum(target.strip() == text.strip() for target, text in pairs),
    }


tasks.register("seq2seq")(Seq2Seq())
