"""Which of several answers, causes or endings is the right one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from coldfusion_shared.data.checks import too_few
from coldfusion_shared.data.dataset import Split
from coldfusion_shared.data.values import labels_of, nearly_all, text_of, texts_of
from coldfusion_shared.errors import BadData
from coldfusion_shared.tasks import Scoring, tasks
from coldfusion_shared.tasks.heads import head_of
from coldfusion_shared.tasks.labelled import cut, first, padding_collator
from coldfusion_shared.tasks.pretrained import load_model
from coldfusion_shared.tasks.roles import LABEL, Role
from coldfusion_shared.tasks.tokenized import tokenized

if TYPE_CHECKING:
    from coldfusion_shared.data.dataset import TextDataset
    from coldfusion_shared.data.table import Table
    from coldfusion_shared.tasks.architectures import Architecture

MOST_CHOICES = 8
# What COPA's question column means.
QUESTIONS = {"cause": "What was the cause?", "effect": "What happened as a result?"}

Reading = Callable[[str, Sequence[str]], int | None]


def _choice(number: int) -> Role:
    letter = ascii_uppercase[number - 1].lower()
    names = (
        *(f"choice{number}", f"choice_{number}", f"option{number}", f"option_{number}"),
        *(f"ending{number - 1}", f"solution{number}", f"sol{number}", f"answer{letter}"),
        *(f"option_{letter}", f"choice_{letter}", f"answer{number - 1}"),
    )
    return Role(f"choice{number}", names, f"choice {number}", required=False)


NUMBERED = tuple(_choice(number) for number in range(1, MOST_CHOICES + 1))


class MultipleChoice:
    """One right choice of several, after a text and perhaps a question about it."""

    name = "multiple-choice"
    metric = "accuracy"
    roles = (
        Role(
            "text",
            (
                *("premise", "context", "ctx", "passage", "article", "story", "sentence", "text"),
                *("question", "question_stem", "goal", "startphrase"),
            ),
            "the text",
        ),
        Role("question", ("question",), "the question about the text", required=False),
        Role("choices", ("choices", "options", "endings"), "the choices", required=False),
        *NUMBERED,
        Role(
            "label",
            (*LABEL.names, "answerkey", "answer_key", "correct_answer", "correct", "gold"),
            "the right choice",
        ),
    )
    inputs = ("text", "question", "choices")
    # transformers has such heads for encoders only.
    heads: Mapping[Architecture, str] = {"encoder": "AutoModelForMultipleChoice"}
    architectures = tuple(heads)
    generates = False

    def fits(
        self, table: Table, columns: Mapping[str, str], architecture: Architecture | None
    ) -> bool:
        """The choices are in lists, or in columns of their own."""
        if "choices" not in columns:
            return len(_numbered(columns)) > 1
        cells = table.columns[columns["choices"]]
        return nearly_all(isinstance(cell, list | tuple | Mapping) for cell in cells)

    def parse(
        self, tables: Mapping[str, Table], columns: Mapping[str, str]
    ) -> tuple[tuple[str, ...], dict[str, Split]]:
        """Return no names, and texts with tuples of choices and the right ones' indices."""
        choices = {name: _choices(table, columns) for name, table in tables.items()}
        width = Counter(map(len, choices["train"])).most_common(1)[0][0]
        for name, table in tables.items():
            _check_width(table, choices[name], width)
        column = columns["label"]
        labels = {name: labels_of(table, column) for name, table in tables.items()}
        read = _reading(labels["train"], choices["train"])
        return (), {
            name: Split(
                {
                    **_texts(table, columns),
                    "choices": choices[name],
                    "label": _right(table, column, labels[name], choices[name], read),
                }
            )
            for name, table in tables.items()
        }

    def check(self, dataset: TextDataset) -> None:
        """Refuse training examples whose right choice is always the same one."""
        if len(set(dataset.train["label"])) < 2:
            raise too_few(dataset.name)

    def build_model(self, base: Path, dataset: TextDataset) -> Any:
        """Return the base with one score for each choice."""
        head = head_of(base, self.name, self.heads)
        return load_model(head, base, ignore_mismatched_sizes=True)

    def encode(self, tokenizer: Any, split: Split, max_length: int) -> Sequence[dict[str, Any]]:
        """Return, for each example, token ids of the text with each of its choices."""
        width = len(split["choices"][0])
        prompts = [_prompt(*row) for row in split.keys(["text", "question"])]
        texts = [prompt for prompt in cut(prompts, max_length) for _ in range(width)]
        choices = cut([choice for row in split["choices"] for choice in row], max_length)
        encoded = tokenized(tokenizer, texts, choices, truncation=True, max_length=max_length)
        return [
            {
                **{name: values[i * width : (i + 1) * width] for name, values in encoded.items()},
                "labels": label,
            }
            for i, label in enumerate(split["label"])
        ]

    def scoring(self, tokenizer: Any, split: Split, max_length: int) -> Scoring:
        """Accuracy."""
        examples = self.encode(tokenizer, split, max_length)
        longest = sorted(examples, key=lambda example: max(map(len, example["input_ids"])))
        return Scoring(longest, _score)

    def collator(self, tokenizer: Any, model: Any) -> Callable[[list[dict[str, Any]]], Any]:
        """Return what pads all texts of a batch to the longest of them."""
        pad = padding_collator(tokenizer, model)

        def collate(examples: list[dict[str, Any]]) -> Any:
            import torch

            names = [name for name in examples[0] if name != "labels"]
            texts = [
                dict(zip(names, rows, strict=True))
                for one in examples
                for rows in zip(*(one[name] for name in names), strict=True)
            ]
            # (batch, choices, tokens)
            batch = {
                name: value.view(len(examples), -1, value.shape[-1])
                for name, value in pad(texts).items()
            }
            batch["labels"] = torch.tensor([example["labels"] for example in examples])
            return batch

        return collate


def _numbered(columns: Mapping[str, str]) -> list[str]:
    return [columns[role.name] for role in NUMBERED if role.name in columns]


def _texts(table: Table, columns: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    roles = [role for role in ("text", "question") if role in columns]
    return {role: texts_of(table, columns[role], role) for role in roles}


def _prompt(text: str, question: str | None) -> str:
    return text if question is None else f"{text} {QUESTIONS.get(question, question)}"


def _choices(table: Table, columns: Mapping[str, str]) -> tuple[tuple[str, ...], ...]:
    if "choices" in columns:
        column = columns["choices"]
        cells = enumerate(table.columns[column])
        return tuple(_listed(table, row, column, cell) for row, cell in cells)
    numbered = _numbered(columns)
    if len(numbered) < 2:
        raise BadData(
            f"{table.where} has no column of choices, nor two that hold one each.",
            hint="Say which with --column choices=NAME, or with --column choice1=NAME --column "
            "choice2=NAME and so on.",
        )
    return tuple(zip(*(texts_of(table, name, "choice1") for name in numbered), strict=True))


def _listed(table: Table, row: int, column: str, cell: object) -> tuple[str, ...]:
    # Some data sets write {"text": [...], "label": ["A", ...]}.
    values = cell.get("text") if isinstance(cell, Mapping) else cell
    if not isinstance(values, list | tuple):
        raise BadData(
            f"{table.at(row)}: column {column!r} holds {cell!r:.40}, which is not a list of "
            "choices.",
            hint="Say which column holds them with --column choices=NAME.",
        )
    choices = tuple(text_of(table, row, column, "choices", value) for value in values)
    if all(choice.strip() for choice in choices):
        return choices
    raise BadData(
        f"{table.at(row)}: one of the choices in column {column!r} is empty.",
        hint="Fill it in or delete that example.",
    )


def _check_width(table: Table, choices: Sequence[Sequence[str]], width: int) -> None:
    for row, several in enumerate(choices):
        if len(several) != width or width < 2:
            raise BadData(
                f"{table.at(row)}: {len(several)} choices, where most training examples have "
                f"{width}.",
                hint="Give every example equally many, two at least; delete the others.",
            )


def _reading(labels: Sequence[str], choices: Sequence[Sequence[str]]) -> Reading:
    """Return how labels are to be read: the choices' texts, letters, or numbers from 0 or 1."""
    width = len(choices[0])
    if nearly_all(label in several for label, several in zip(labels, choices, strict=True)):
        return lambda label, several: list(several).index(label) if label in several else None
    if nearly_all(label.isalpha() for label in labels):
        places = {letter: place for place, letter in enumerate(ascii_uppercase[:width])}
        return lambda label, several: places.get(label.upper())
    # From 1 if there is no 0 and the last one is as high as there are choices.
    base = 1 if "0" not in labels and str(width) in labels else 0
    numbers = {str(place + base): place for place in range(width)}
    return lambda label, several: numbers.get(label)


def _right(
    table: Table,
    column: str,
    labels: Sequence[str],
    choices: Sequence[Sequence[str]],
    read: Reading,
) -> tuple[int, ...]:
    right = []
    for row, (label, several) in enumerate(zip(labels, choices, strict=True)):
        place = read(label, several)
        if place is None:
            raise BadData(
                f"{table.at(row)}: {label!r:.40} in column {column!r} is none of the "
                f"{len(several)} choices.",
                hint="Give the right choice by its number, its letter or its text, in all "
                "examples alike.",
            )
        right.append(place)
    return tuple(right)


def _score(predictions: Any, labels: Any) -> dict[str, float]:
    """Return accuracy in percent of scores (n, choices)."""
    return {"accuracy": 100.0 * float((first(predictions).argmax(axis=-1) == labels).mean())}


tasks.register("multiple-choice")(MultipleChoice())
