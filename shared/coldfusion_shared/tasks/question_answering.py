"""Extractive question answering: the answer is a stretch of the context."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coldfusion_shared.data.dataset import Split, TextDataset
from coldfusion_shared.data.values import is_given, nearly_all, texts_of
from coldfusion_shared.errors import BadData
from coldfusion_shared.tasks import Scoring, tasks
from coldfusion_shared.tasks.architectures import ARCHITECTURES
from coldfusion_shared.tasks.heads import head_of
from coldfusion_shared.tasks.pretrained import load_model
from coldfusion_shared.tasks.roles import Role
from coldfusion_shared.tasks.squad import exact_match, f1
from coldfusion_shared.tasks.tokens import PadRight, require_offsets
from coldfusion_shared.tasks.windows import Span, Window, best_span, windows

if TYPE_CHECKING:
    from coldfusion_shared.data.table import Table
    from coldfusion_shared.tasks.architectures import Architecture

QUESTION = Role("question", ("question", "query"), "the question")
CONTEXT = Role("context", ("context", "passage", "paragraph"), "the context")
ANSWERS = Role("answers", ("answers", "answer", "answer_text"), "the answers")

# Beside answers these say which of them are right.
_LABELS = frozenset(("label", "labels"))
# What models are asked for, in tokens; more only where the split itself has longer answers.
LONGEST_ANSWER = 30
# The token whose logits stand for "there is no answer here".
NO_ANSWER = 0

# Where an answer begins in the context, and what it says.
Answer = tuple[int, str]


class QuestionAnswering:
    """SQuAD's task: a question, a context, and none, one or several answers copied from it."""

    name = "question-answering"
    metric = "F1"
    roles = (QUESTION, CONTEXT, ANSWERS)
    inputs = ("question", "context")
    heads: Mapping[Architecture, str] = dict.fromkeys(
        ARCHITECTURES, "AutoModelForQuestionAnswering"
    )
    architectures = ARCHITECTURES
    generates = False

    def fits(
        self, table: Table, columns: Mapping[str, str], architecture: Architecture | None
    ) -> bool:
        """The answers are texts or lists, not yes and no, and not there to be judged by a label."""
        cells = table.columns[columns["answers"]]
        told = [isinstance(cell, str | list | tuple | dict) for cell in cells if is_given(cell)]
        if told and not nearly_all(told):
            return False
        judged = _LABELS & {name.strip().lower() for name in table.columns}
        contexts = table.columns[columns["context"]]
        return not judged or nearly_all(
            not isinstance(cell, str) or cell in str(context)
            for cell, context in zip(cells, contexts, strict=True)
        )

    def parse(
        self, tables: Mapping[str, Table], columns: Mapping[str, str]
    ) -> tuple[tuple[str, ...], dict[str, Split]]:
        """Return splits whose answers are tuples of (place in the context, text)."""
        return (), {name: _split(table, columns) for name, table in tables.items()}

    def check(self, dataset: TextDataset) -> None:
        """Refuse data without an answer to learn from."""
        if not any(dataset.train["answers"]):
            raise BadData(
                f"{dataset.name}: no training question has an answer.",
                hint="Say which column holds the answers with --column answers=NAME.",
            )

    def build_model(self, base: Path, dataset: TextDataset) -> Any:
        """Return the base with a new head for the answer's first and last token."""
        return load_model(head_of(base, self.name, self.heads), base)

    def encode(self, tokenizer: Any, split: Split, max_length: int) -> Sequence[dict[str, Any]]:
        """Return every window with the tokens of its first answer."""
        return [_labelled(window, split) for window in _windows(tokenizer, split, max_length)]

    def scoring(self, tokenizer: Any, split: Split, max_length: int) -> Scoring:
        """Score the best answer over all windows of an example by SQuAD's exact match and F1."""
        found = _windows(tokenizer, split, max_length)
        found.sort(key=lambda window: len(window.offsets))
        examples = [_labelled(window, split) for window in found]
        longest = max(1 + e["end_positions"] - e["start_positions"] for e in examples)

        def score(predictions: Any, label_ids: Any) -> dict[str, float]:
            answers = _answers(found, split, predictions, max(longest, LONGEST_ANSWER))
            return _metrics(answers, split)

        return Scoring(examples, score)

    def collator(self, tokenizer: Any, model: Any) -> Callable[[list[dict[str, Any]]], Any]:
        """Return what fills up a batch to its longest window."""
        return PadRight(tokenizer)

    def reduce(self, logits: Any, labels: Any) -> Any:
        """Keep the logits of first and last token, not the hidden states that some models add."""
        return tuple(logits[:2])


def _split(table: Table, columns: Mapping[str, str]) -> Split:
    contexts = texts_of(table, columns["context"], "context")
    return Split(
        {
            "question": texts_of(table, columns["question"], "question"),
            "context": contexts,
            "answers": tuple(
                tuple(dict.fromkeys(_placed(table, row, columns["answers"], context)))
                for row, context in enumerate(contexts)
            ),
        }
    )


def _placed(table: Table, row: int, column: str, context: str) -> Iterator[Answer]:
    """Yield the answers of a row, after checking that they are in the context."""
    for start, text in _told(table, row, column, table.columns[column][row]):
        place = context.find(text) if start is None else start
        if place < 0 or context[place : place + len(text)] != text:
            where = "in the context" if start is None else f"at answer_start {start} of the context"
            raise BadData(
                f"{table.at(row)}: the answer {text!r:.60} is not {where}.",
                hint="An answer is copied from its context letter by letter; answer_start counts "
                "characters from 0.",
            )
        stripped = text.strip()
        if stripped:
            yield place + text.index(stripped), stripped


def _told(table: Table, row: int, column: str, cell: Any) -> Iterator[tuple[int | None, str]]:
    """Yield (answer_start, text) of a cell: a text, SQuAD's {text, answer_start}, or a list."""
    if cell is None or cell == "":
        return
    if isinstance(cell, str):
        yield None, cell
    elif isinstance(cell, list | tuple):
        for one in cell:
            yield from _told(table, row, column, one)
    elif isinstance(cell, dict) and _is_squad(cell):
        texts, starts = _listed(cell["text"]), _listed(cell.get("answer_start"))
        yield from zip(starts or [None] * len(texts), texts, strict=True)
    else:
        raise BadData(
            f"{table.at(row)}: column {column!r} holds {cell!r:.40}, which is no answer.",
            hint='Write a text of the context, or {"text": ["..."], "answer_start": [0]}.',
        )


def _is_squad(cell: dict[Any, Any]) -> bool:
    texts, starts = _listed(cell.get("text")), _listed(cell.get("answer_start"))
    right = all(isinstance(t, str) for t in texts) and all(type(s) is int for s in starts)
    return "text" in cell and right and len(starts) in (0, len(texts))


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _windows(tokenizer: Any, split: Split, max_length: int) -> list[Window]:
    require_offsets(tokenizer)
    return windows(tokenizer, split["question"], split["context"], max_length)


def _labelled(window: Window, split: Split) -> dict[str, Any]:
    tokens = None
    if answers := split["answers"][window.example]:
        start, text = answers[0]
        tokens = window.tokens(start, start + len(text))
    first, last = tokens or (NO_ANSWER, NO_ANSWER)
    return {**window.inputs, "start_positions": first, "end_positions": last}


def _answers(found: list[Window], split: Split, predictions: Any, longest: int) -> list[str]:
    """Return each example's best answer over its windows, "" where none is likelier."""
    best: dict[int, Span] = {}
    none: dict[int, float] = {}
    for window, starts, ends in zip(found, predictions[0], predictions[1], strict=True):
        span, example = best_span(window, starts, ends, longest), window.example
        if span and (example not in best or span.score > best[example].score):
            best[example] = span
        nothing = float(starts[NO_ANSWER] + ends[NO_ANSWER])
        none[example] = min(nothing, none.get(example, nothing))
    # Where every question has an answer, none is no choice.
    may_be_none = not all(split["answers"])
    return [
        ""
        if example not in best or (may_be_none and none[example] > best[example].score)
        else context[best[example].start : best[example].stop]
        for example, context in enumerate(split["context"])
    ]


def _metrics(answers: list[str], split: Split) -> dict[str, float]:
    golds = [[text for _, text in told] for told in split["answers"]]
    share = 100.0 / len(answers)
    return {
        "F1": share * sum(map(f1, answers, golds)),
        "exact match": share * sum(map(exact_match, answers, golds)),
    }


tasks.register("question-answering")(QuestionAnswering())
