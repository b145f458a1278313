"""A tiny base and three tiny data sets in folders, as the experiments read them."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path

from tests.tiny_models import tiny_bert

# Words that decide the labels, by data set.
TASKS = {
    "films": (("bad", "awful"), ("good", "great")),
    "rooms": (("cold", "bad"), ("warm", "good")),
    "winters": (("cold", "awful"), ("warm", "great")),
}
SIZES = {"train": 48, "validation": 12, "test": 24}


def tiny_data(folder: Path, sizes: Mapping[str, int] = SIZES) -> Path:
    """Write the data sets, with so many examples in each part; return `folder`."""
    for name, words in TASKS.items():
        drawn = random.Random(name)
        (folder / name).mkdir(parents=True)
        seen: set[str] = set()
        for split, size in sizes.items():
            lines = [_line(drawn, words, index % 2, seen) for index in range(size)]
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (folder / name / f"{split}.jsonl").write_text(text, encoding="utf-8")
    return folder


def _line(
    drawn: random.Random, words: tuple[tuple[str, ...], ...], label: int, seen: set[str]
) -> dict[str, str | int]:
    while True:
        opinion = drawn.choice(words[label])
        filler = [drawn.choice(("the", "a", "film", "was", "is", "not")) for _ in range(5)]
        text = " ".join([*filler, opinion])
        if text not in seen:
            seen.add(text)
            return {"text": text, "label": label}


def tiny_base(folder: Path) -> Path:
    """Write the base; return `folder`."""
    return tiny_bert(folder, hidden=16, layers=1)
