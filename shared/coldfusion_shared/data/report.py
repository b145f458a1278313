"""What a person should know of a data set before training on it: balance, copies, lengths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from coldfusion_shared.data.dataset import Split, TextDataset
from coldfusion_shared.data.splits import hashable
from coldfusion_shared.tasks import Task, task_named
from coldfusion_shared.tasks.labelled import cut
from coldfusion_shared.tasks.tokenized import tokenized

# With one label above this share, a model that always says it looks good.
LOPSIDED = 0.9
# Fewer training examples of a label teach little.
FEW_OF_A_LABEL = 5
# With fewer scored examples, one of them is worth more than three points.
FEW_TO_SCORE = 30
# Larger numbers make a first loss that the usual learning rate cannot work off.
LARGE_NUMBER = 20.0
# As many are measured as say enough: a percent or two of uncertainty.
MEASURED = 2000
# Tasks that read all of a long text, window by window or block by block.
UNCUT = frozenset(("question-answering", "causal-language-modelling", "masked-language-modelling"))


@dataclass(frozen=True)
class Finding:
    """
    One thing that was found.

    Attributes:
        kind: "balance", "numbers", "size", "copies", "leak" or "length".
        text: one or two sentences for the person.
        serious: whether the score, or the training, cannot be trusted because of it.
    """

    kind: str
    text: str
    serious: bool = False


def check_data(
    dataset: TextDataset, tokenizer: Any = None, max_length: int | None = None
) -> list[Finding]:
    """
    Look a data set over, without a model.

    Args:
        dataset: as it was read.
        tokenizer: of the base; null: lengths are not looked at.
        max_length: tokens after which an example is cut; null: likewise.

    Returns:
        What was found, the serious things first.
    """
    task = task_named(dataset.task)
    found = [*_balance(dataset), *_size(dataset), *_copies(task, dataset)]
    if tokenizer is not None and max_length is not None and task.name not in UNCUT:
        found += _lengths(task, dataset, tokenizer, max_length)
    return sorted(found, key=lambda finding: not finding.serious)


def _balance(dataset: TextDataset) -> Iterator[Finding]:
    labels = dataset.train.get("label") or dataset.train.get("tags")
    if labels is None:
        return
    if not dataset.labels:
        yield from _numbers(labels)
        return
    counts = _counts(labels)
    total = len(dataset.train) if "label" in dataset.train.columns else sum(counts.values())
    unit = "examples" if "label" in dataset.train.columns else "words"
    by_name = {name: counts[index] for index, name in enumerate(dataset.labels)}
    shares = sorted(by_name.items(), key=lambda item: -item[1])
    name, most = shares[0]
    # Outside of every entity is where most words are.
    if most > LOPSIDED * total and name != "O":
        yield Finding(
            "balance",
            f"{100 * most / total:.0f}% of the training {unit} have the label {name!r}: whoever "
            "always says so scores as much.",
            serious=True,
        )
    rare = [name for name, count in shares if count < FEW_OF_A_LABEL]
    if rare:
        yield Finding(
            "balance",
            f"{len(rare)} of {len(shares)} labels have fewer than {FEW_OF_A_LABEL} training "
            f"{unit}: {_listed(rare)}.",
        )
    told = ", ".join(f"{name} {100 * count / total:.0f}%" for name, count in shares[:5])
    more = f" and {len(shares) - 5} others" if len(shares) > 5 else ""
    yield Finding("balance", f"Labels of the training {unit}: {told}{more}.")


def _counts(labels: Sequence[Any]) -> Counter[int]:
    if isinstance(labels[0], tuple):
        return Counter(label for several in labels for label in several)
    return Counter(labels)


def _numbers(labels: Sequence[Any]) -> Iterator[Finding]:
    # Without names, whole numbers are choices.
    if not all(isinstance(label, float) for label in labels):
        return
    low, high = min(labels), max(labels)
    yield Finding("numbers", f"The numbers to be predicted are between {low:g} and {high:g}.")
    if max(abs(low), abs(high)) > LARGE_NUMBER:
        yield Finding(
            "numbers",
            f"Numbers as large as {max(low, high, key=abs):g} are learnt slowly; divide all of "
            "them so that they are between 0 and 5 or so. The score does not change by that.",
            serious=True,
        )


def _size(dataset: TextDataset) -> Iterator[Finding]:
    for name in ("validation", "test"):
        size = len(dataset.splits[name])
        if size < FEW_TO_SCORE:
            yield Finding(
                "size", f"There are only {size} {name} examples: their score is a rough one."
            )


def _copies(task: Task, dataset: TextDataset) -> Iterator[Finding]:
    keys = {
        name: [_key(row) for row in split.keys(task.inputs)]
        for name, split in dataset.splits.items()
    }
    learnt = set(keys["train"])
    for name in ("test", "validation"):
        leaked = sum(key in learnt for key in keys[name])
        if leaked:
            yield Finding(
                "leak",
                f"{leaked} of the {len(keys[name])} {name} examples are in the training data, too: "
                f"the {name} score will be too high.",
                serious=True,
            )
    chosen_by = set(keys["validation"])
    shared = sum(key in chosen_by for key in keys["test"])
    if shared:
        yield Finding(
            "leak", f"{shared} of the {len(keys['test'])} test examples are validation ones, too."
        )
    copies = len(keys["train"]) - len(learnt)
    if copies:
        at_odds = _at_odds(keys["train"], dataset.train)
        yield Finding(
            "copies",
            f"{copies} of the {len(keys['train'])} training examples are copies of others"
            + (f"; {at_odds} texts have copies with different labels." if at_odds else "."),
            serious=at_odds * 10 > len(learnt),
        )


def _key(row: tuple[Any, ...]) -> Any:
    """Return what is the same for texts that differ in case and spaces only."""
    return hashable([_plain(value) for value in row])


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return " ".join(value.lower().split())
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _at_odds(keys: Sequence[Any], train: Split) -> int:
    answers: dict[Any, set[Any]] = {}
    for key, label in zip(keys, train.get("label") or (), strict=False):
        answers.setdefault(key, set()).add(label)
    return sum(len(several) > 1 for several in answers.values())


def _lengths(
    task: Task, dataset: TextDataset, tokenizer: Any, max_length: int
) -> Iterator[Finding]:
    rows = dataset.train.keys(task.inputs)
    step = max(1, len(dataset.train) // MEASURED)
    texts = [" ".join(map(_text, task.inputs, row)) for row in islice(rows, 0, None, step)]
    # One token more than fits is all that has to be known.
    encoded = tokenized(
        tokenizer, cut(texts, max_length + 1), truncation=True, max_length=max_length + 1
    )
    long = sum(len(ids) > max_length for ids in encoded["input_ids"])
    if long:
        share = long / len(texts)
        yield Finding(
            "length",
            f"{_percent(share)} of the training examples are longer than {max_length} tokens and "
            "will be cut. A larger --max-length takes more memory and time.",
            serious=share > 0.25,
        )


def _text(role: str, value: Any) -> str:
    """Return a text of about the tokens that a model gets of a value."""
    if role == "choices":
        longest: str = max(value, key=len)  # the model sees one at a time
        return longest
    if isinstance(value, list | tuple):
        return " ".join(_text("", one) for one in value)
    return str(value or "")


def _percent(share: float) -> str:
    return "Less than 1%" if share < 0.01 else f"{100 * share:.0f}%"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (" and others" if len(names) > 3 else "")
