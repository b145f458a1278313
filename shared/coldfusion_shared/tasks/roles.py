"""What the columns of a data set are to a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Role:
    """
    One column that a task reads.

    Attributes:
        name: what tasks and ``--column`` call it.
        names: usual names of such a column, in lower case, in the order they are looked for.
        what: how messages call it, such as "the text".
        required: whether the task cannot do without.
        beside: usual names that depend on the column found for the task's first role.
    """

    name: str
    names: tuple[str, ...]
    what: str
    required: bool = True
    beside: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


TEXT = Role(
    "text",
    (
        *("text", "question", "sentence", "sentence1", "premise", "question1", "text1", "review"),
        *("text_a", "sentence_a", "query", "content", "document", "comment", "tweet", "message"),
        *("body", "utterance", "passage", "paragraph", "title"),
    ),
    "the text",
)
# What questions are about; where there is nothing else, an answer to be judged.
_ABOUT = ("sentence", "passage", "paragraph", "context", "document", "answer")
TEXT_PAIR = Role(
    "text_pair",
    (),
    "the second text",
    required=False,
    beside={
        "text": ("text_pair", "text2", "span1_text"),
        "text1": ("text2",),
        "sentence": ("sentence2",),
        "sentence1": ("sentence2",),
        "premise": ("hypothesis",),
        "question1": ("question2",),
        "text_a": ("text_b",),
        "sentence_a": ("sentence_b",),
        "question": _ABOUT,
        "query": _ABOUT,
    },
)
TEXT_END = Role(
    "text_end",
    (),
    "the end of the text",
    required=False,
    # An answer to be judged goes with its question, so that a long passage is what is cut.
    beside={"text": ("span2_text",), "question": ("answer",), "query": ("answer",)},
)
LABEL = Role(
    "label",
    (
        *("label", "labels", "class", "category", "target", "intent", "sentiment", "emotion"),
        *("topic", "rating", "stars", "gold_label", "score", "similarity", "genres", "tags"),
        "answer",
    ),
    "the label",
)
