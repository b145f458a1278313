"""A tag for each word: named entities, parts of speech and the like."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coldfusion_shared.data.checks import check_labels, check_seen_all
from coldfusion_shared.data.dataset import Split
from coldfusion_shared.data.values import name_of, nearly_all, sorted_names
from coldfusion_shared.errors import BadData
from coldfusion_shared.tasks import Scoring, tasks
from coldfusion_shared.tasks.heads import head_of
from coldfusion_shared.tasks.labelled import by_length, cut, first, named
from coldfusion_shared.tasks.pretrained import load_model
from coldfusion_shared.tasks.roles import Role
from coldfusion_shared.tasks.tokenized import tokenized
from coldfusion_shared.tasks.tokens import IGNORED, PadRight, require_offsets

if TYPE_CHECKING:
    from coldfusion_shared.data.dataset import TextDataset
    from coldfusion_shared.data.table import Table
    from coldfusion_shared.tasks.architectures import Architecture

# How tags that mark entities begin: begin, inside, end, single; O is outside of all. Some schemes
# say middle, last, unit and whole.
_ENTITY_PREFIXES = {letter: letter for letter in "BIES"} | {"M": "I", "L": "E", "U": "S", "W": "S"}


class TokenClassification:
    """One tag for each word of a text; what a word's first sub-token gets counts."""

    name = "token-classification"
    metric = "F1"
    roles = (
        Role("tokens", ("tokens", "words", "token", "word"), "the words"),
        Role(
            "tags",
            (
                *("tags", "ner_tags", "ner", "labels", "label", "tag", "entities", "slots"),
                *("pos_tags", "pos", "upos", "chunk_tags"),
            ),
            "the words' tags",
        ),
    )
    inputs = ("tokens",)
    # Of an encoder-decoder transformers would take the encoder alone.
    heads: Mapping[Architecture, str] = {
        "encoder": "AutoModelForTokenClassification",
        "decoder": "AutoModelForTokenClassification",
    }
    architectures = tuple(heads)
    generates = False

    def fits(
        self, table: Table, columns: Mapping[str, str], architecture: Architecture | None
    ) -> bool:
        """Nearly all are lists, or texts of equally many words."""
        rows = [_cells(table, columns, row) for row in range(len(table.lines))]
        if nearly_all(all(isinstance(cell, list | tuple) for cell in row) for row in rows):
            return True
        are_texts = [all(isinstance(cell, str) for cell in row) for row in rows]
        texts = [row for row, are in zip(rows, are_texts, strict=True) if are]
        counts = [(len(words.split()), len(tags.split())) for words, tags in texts]
        # A word with a label says nothing: it may be any text.
        telling = [words == tags for words, tags in counts if max(words, tags) > 1]
        return nearly_all(are_texts) and nearly_all(telling)

    def parse(
        self, tables: Mapping[str, Table], columns: Mapping[str, str]
    ) -> tuple[tuple[str, ...], dict[str, Split]]:
        """Return the tags' names, and tuples of words with tuples of tag indices."""
        tags = {name: _tags(table, columns["tags"]) for name, table in tables.items()}
        words = {
            name: _words(table, columns["tokens"], tags[name]) for name, table in tables.items()
        }
        train = tables["train"]
        given = tuple(tag for row in tags["train"] for tag in row)
        check_labels(train.where, given)
        for name, table in tables.items():
            check_seen_all(table, tags[name], set(given))
        names = train.classes.get(columns["tags"]) or sorted_names(given)
        index = {name: position for position, name in enumerate(names)}
        return names, {
            name: Split(
                {
                    "tokens": words[name],
                    "tags": tuple(tuple(index[tag] for tag in row) for row in tags[name]),
                },
                names,
            )
            for name in tables
        }

    def check(self, dataset: TextDataset) -> None:
        """Nothing more is needed: a rare tag may be missing from a split."""

    def build_model(self, base: Path, dataset: TextDataset) -> Any:
        """Return the base with a new classifier of tokens, which knows the tags' names."""
        head = head_of(base, self.name, self.heads)
        return load_model(head, base, ignore_mismatched_sizes=True, **named(dataset.labels))

    def encode(self, tokenizer: Any, split: Split, max_length: int) -> Sequence[dict[str, Any]]:
        """Return token ids, and tags at the first sub-token of each word."""
        require_offsets(tokenizer)
        # Words joined by spaces, and not given one by one: tokenizers of bytes treat a word at the
        # beginning of a text differently, and some refuse.
        texts = cut([" ".join(words) for words in split["tokens"]], max_length)
        encoded = tokenized(
            tokenizer, texts, truncation=True, max_length=max_length, return_offsets_mapping=True
        )
        offsets = encoded.pop("offset_mapping")
        labels = [
            _spread(words, tags, spans)
            for words, tags, spans in zip(split["tokens"], split["tags"], offsets, strict=True)
        ]
        columns = {**encoded, "labels": labels}
        return [{name: values[i] for name, values in columns.items()} for i in range(len(split))]

    def scoring(self, tokenizer: Any, split: Split, max_length: int) -> Scoring:
        """F1 of whole entities where tags mark those, else of words; accuracy of words."""
        examples = by_length(self.encode(tokenizer, split, max_length))
        return Scoring(examples, lambda tags, labels: _score(split.names, tags, labels))

    def reduce(self, logits: Any, labels: Any) -> Any:
        """Return the likeliest tags, (batch, tokens), of logits (batch, tokens, tags)."""
        return first(logits).argmax(dim=-1)

    def collator(self, tokenizer: Any, model: Any) -> Callable[[list[dict[str, Any]]], Any]:
        """Return what pads a batch, and its tags, to the longest example."""
        return PadRight(tokenizer)


def _cells(table: Table, columns: Mapping[str, str], row: int) -> tuple[Any, Any]:
    return table.columns[columns["tokens"]][row], table.columns[columns["tags"]][row]


def _tags(table: Table, column: str) -> list[tuple[str, ...]]:
    rows = []
    for row, cell in enumerate(table.columns[column]):
        values = _listed(table, row, column, "tags", cell)
        tags = tuple(name_of(table, row, column, value) for value in values)
        if not all(tags):
            raise BadData(
                f"{table.at(row)}: word {tags.index('') + 1} has no tag in column {column!r}.",
                hint="Tag it with O if it is no part of anything.",
            )
        rows.append(tags)
    return rows


def _words(
    table: Table, column: str, tags: Sequence[tuple[str, ...]]
) -> tuple[tuple[str, ...], ...]:
    rows = []
    for row, cell in enumerate(table.columns[column]):
        words = tuple(_listed(table, row, column, "tokens", cell))
        strange = next((word for word in words if not isinstance(word, str)), None)
        if strange is not None or None in words:
            raise BadData(
                f"{table.at(row)}: column {column!r} holds {strange!r:.40} among its words, which "
                "is not a text.",
                hint="Write each word as a text.",
            )
        if len(words) != len(tags[row]):
            raise BadData(
                f"{table.at(row)}: {len(words)} words have {len(tags[row])} tags.",
                hint="Give every word one tag, O if it is no part of anything.",
            )
        rows.append(words)
    return tuple(rows)


def _listed(table: Table, row: int, column: str, role: str, cell: object) -> Sequence[Any]:
    values = cell.split() if isinstance(cell, str) else cell
    if not isinstance(values, list | tuple):
        raise BadData(
            f"{table.at(row)}: column {column!r} holds {cell!r:.40}, which is not a list.",
            hint=f"Say which column holds the {role} with --column {role}=NAME.",
        )
    if not values:
        raise BadData(
            f"{table.at(row)}: column {column!r} holds no {role}.", hint="Delete that example."
        )
    return values


def _spread(
    words: Sequence[str], tags: Sequence[int], spans: Sequence[tuple[int, int]]
) -> list[int]:
    """Return a tag for each token: a word's at its first one, `IGNORED` at all others."""
    # Where each word begins in the text that the words were joined to.
    starts = [0, *accumulate(len(word) + 1 for word in words[:-1])]
    labels, before = [], -1
    for start, end in spans:
        # A token may begin with the space before its word, but ends in the word.
        word = bisect_right(starts, end - 1) - 1 if end > start else before
        labels.append(tags[word] if word > before else IGNORED)
        before = max(before, word)
    return labels


def _marks_entities(names: Sequence[str]) -> bool:
    marks = [name for name in names if name != "O"]
    return "O" in names and all(name[0] in _ENTITY_PREFIXES and name[1:2] == "-" for name in marks)


def _as_scored(name: str) -> str:
    """Return a tag by the one scheme that seqeval reads; what is inside alone begins, too."""
    return name if name == "O" else _ENTITY_PREFIXES[name[0]] + name[1:]


def _score(names: Sequence[str], guesses: Any, labels: Any) -> dict[str, float]:
    """
    Return scores in percent of tags (n, tokens) where `labels` (n, tokens) count.

    Of words that all have exactly one tag, F1 over all tags is their accuracy.
    """
    counts = labels != IGNORED
    total = int(counts.sum())
    accuracy = 100.0 * float((guesses == labels)[counts].sum()) / max(total, 1)
    if not _marks_entities(names):
        return {"F1": accuracy, "accuracy": accuracy}
    from seqeval.metrics import f1_score

    scored = [_as_scored(name) for name in names]
    truth, found = (
        [[scored[tag] for tag in row[kept]] for row, kept in zip(part, counts, strict=True)]
        for part in (labels, guesses)
    )
    return {"F1": 100.0 * float(f1_score(truth, found, zero_division=0)), "accuracy": accuracy}


tasks.register("token-classification")(TokenClassification())
