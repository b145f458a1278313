"""Examples one by one, so that what is learnt from each depends on no other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from coldfusion_shared.errors import BadData

if TYPE_CHECKING:
    from coldfusion_shared.data.dataset import Split
    from coldfusion_shared.tasks import Task

# What the model learns from one example; of a long text there may be several.
Pieces = Sequence[dict[str, Any]]


def encode_rows(task: Task, tokenizer: Any, split: Split, max_length: int) -> list[Pieces]:
    """
    Return what the model learns from each example of a split, (examples, pieces).

    Some tasks join texts, or cut one into several pieces; encoded alone, all that is made of an
    example is known to be of it.

    Raises:
        BadData: there is nothing to learn from in any of them.
    """
    rows: list[Pieces] = []
    failure: BadData | None = None
    for index in range(len(split)):
        try:
            rows.append(task.encode(tokenizer, split.take([index]), max_length))
        except BadData as error:
            # An example without a word: to leave it out would tell that it is there.
            rows.append([])
            failure = error
    if failure is not None and not any(rows):
        raise failure
    return rows
