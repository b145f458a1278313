"""Long contexts as overlapping windows, and the best span over the windows of an example."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coldfusion_shared.errors import TrainingFailed
from coldfusion_shared.tasks.tokenized import tokenized

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# Of `max_length`: what a question may take, and what neighbouring windows have in common.
QUESTION_SHARE = 2
OVERLAP_SHARE = 4
MIN_LENGTH = 16


@dataclass(frozen=True)
class Window:
    """
    A question with a stretch of its context.

    Attributes:
        example: index of the example in its split.
        inputs: as the model takes them, without padding.
        offsets: for each token where it is in the context, or None outside of it.
    """

    example: int
    inputs: dict[str, list[int]]
    offsets: tuple[tuple[int, int] | None, ...]

    def tokens(self, start: int, stop: int) -> tuple[int, int] | None:
        """Return first and last token of the characters `start` to `stop`, if all are here."""
        here = [(t, *span) for t, span in enumerate(self.offsets) if span and span[0] < span[1]]
        if not here or start < here[0][1] or stop > here[-1][2]:
            return None
        inside = [t for t, begin, end in here if begin < stop and end > start]
        return (inside[0], inside[-1]) if inside else None


@dataclass(frozen=True)
class Span:
    """A stretch of the context in characters, and the sum of its two logits."""

    score: float
    start: int
    stop: int


def windows(
    tokenizer: Any, questions: Sequence[str], contexts: Sequence[str], max_length: int
) -> list[Window]:
    """
    Cut every context into windows of at most `max_length` tokens, the question before each.

    Raises:
        TrainingFailed: `max_length` leaves no room for a context.
    """
    if max_length < MIN_LENGTH:
        raise TrainingFailed(
            f"{max_length} tokens are too few for a question and its context.",
            hint=f"Use --max-length {MIN_LENGTH} at least; 384 is usual.",
        )
    room = max_length // QUESTION_SHARE - tokenizer.num_special_tokens_to_add(pair=True)
    encoded = tokenized(
        tokenizer,
        _shortened(tokenizer, questions, room),
        list(contexts),
        truncation="only_second",
        max_length=max_length,
        stride=max_length // OVERLAP_SHARE,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    offsets = encoded.pop("offset_mapping")
    examples = encoded.pop("overflow_to_sample_mapping")
    return [
        Window(
            example,
            {name: values[i] for name, values in encoded.items()},
            tuple(
                tuple(span) if part == 1 else None
                for span, part in zip(offsets[i], encoded.sequence_ids(i), strict=True)
            ),
        )
        for i, example in enumerate(examples)
    ]


def best_span(
    window: Window, starts: npt.NDArray[np.float32], ends: npt.NDArray[np.float32], longest: int
) -> Span | None:
    """
    Return the span of at most `longest` tokens of the context with the largest sum of logits.

    Args:
        window: where to look.
        starts: for each token, and perhaps padding, the logit of an answer that begins there.
        ends: the same of one that ends there.
        longest: tokens of an answer.
    """
    places = [token for token, span in enumerate(window.offsets) if span]
    if not places:
        return None
    first, stop = places[0], places[-1] + 1
    starts, ends = starts[first:stop], ends[first:stop]
    best: Span | None = None
    # All spans of one width at once: exact, where the usual n-best lists may miss the best pair.
    for width in range(min(longest, len(starts))):
        sums = starts[: len(starts) - width] + ends[width:]
        place = int(sums.argmax())
        if best is None or sums[place] > best.score:
            begin, end = window.offsets[first + place], window.offsets[first + place + width]
            if begin and end:
                best = Span(float(sums[place]), begin[0], end[1])
    return best


def _shortened(tokenizer: Any, questions: Sequence[str], room: int) -> list[str]:
    # Some data sets' questions begin with spaces, and a long one leaves its context no room.
    texts = [question.strip() for question in questions]
    encoded = tokenized(
        tokenizer, texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )["offset_mapping"]
    return [
        text if len(spans) <= room else text[: spans[room - 1][1]]
        for text, spans in zip(texts, encoded, strict=True)
    ]
