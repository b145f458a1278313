"""Exact match and F1 of an answer, by the rules of SQuAD."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLE = re.compile(r"\b(a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized(answer: str) -> str:
    """Return an answer in lower case, without ASCII punctuation, articles and extra spaces."""
    plain = answer.lower().translate(_WITHOUT_PUNCTUATION)
    return " ".join(_ARTICLE.sub(" ", plain).split())


def exact_match(answer: str, golds: Sequence[str]) -> float:
    """Return 1 if `answer` is one of `golds`, else 0; no golds: the right answer is none, ""."""
    return max(float(normalized(answer) == normalized(gold)) for gold in _or_none(golds))


def f1(answer: str, golds: Sequence[str]) -> float:
    """Return the best F1, 0 to 1, of the words that `answer` shares with one of `golds`."""
    return max(_f1(normalized(answer).split(), normalized(g).split()) for g in _or_none(golds))


def _or_none(golds: Sequence[str]) -> Sequence[str]:
    # An answer that is nothing but an article or a point is no answer.
    return [gold for gold in golds if normalized(gold)] or [""]


def _f1(answer: list[str], gold: list[str]) -> float:
    if not answer or not gold:
        return float(answer == gold)
    shared = (Counter(answer) & Counter(gold)).total()
    return 2.0 * shared / (len(answer) + len(gold))
