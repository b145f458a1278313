"""A data set small enough to learn in a second."""

from __future__ import annotations

import random

from coldfusion_shared.data import Split, TextDataset

LABELS = ("awful", "great")
WORDS = (("bad", "awful", "cold"), ("good", "great", "warm"))


def toy_dataset(*, pairs: bool = False, train: int = 64, seed: int = 0) -> TextDataset:
    """Return films that are good or bad, said in one text or in the second of a pair."""
    drawn = random.Random(seed)
    learnt, chosen_by, scored = (_split(drawn, size, pairs) for size in (train, 24, 30))
    return TextDataset("films", "classification", LABELS, learnt, chosen_by, scored)


def _split(drawn: random.Random, size: int, pairs: bool) -> Split:
    labels = tuple(index % 2 for index in range(size))
    opinions = tuple(f"the film was {drawn.choice(WORDS[label])}" for label in labels)
    firsts = tuple(" ".join(["a film"] * drawn.randint(1, 5)) for _ in labels)
    if pairs:
        return Split({"text": firsts, "text_pair": opinions, "label": labels})
    texts = tuple(map(" ".join, zip(firsts, opinions, strict=True)))
    return Split({"text": texts, "label": labels})
