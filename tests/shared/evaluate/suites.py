"""Suites of small data sets, as files."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.tiny_models import WORDS

SPLITS = {"train": 60, "validation": 20, "test": 30}


def write_split(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def films(folder: Path, *, seed: int = 0, pairs: bool = False, **sizes: int) -> Path:
    """Write films that are good, bad or neither; a tenth of the labels is wrong."""
    rng = random.Random(seed)
    words = (("bad", "awful"), ("good", "great"), ("warm", "cold"))
    for split, size in {**SPLITS, **sizes}.items():
        rows = []
        for index in range(size):
            label = index % 3
            text = f"{_filler(rng)} film {rng.choice(words[label])} {_filler(rng)}"
            given = label if rng.random() > 0.1 else rng.randrange(3)
            row: dict[str, Any] = {"text": text, "label": given}
            rows.append({**row, "text_pair": _filler(rng)} if pairs else row)
        write_split(folder / f"{split}.jsonl", rows)
    card = {"name": folder.name, "labels": ["bad", "good", "other"]}
    (folder / "dataset.json").write_text(json.dumps(card))
    return folder


def ratings(folder: Path, *, seed: int = 0, **sizes: int) -> Path:
    """Write texts with how warm they are, from 0 to 5 and never quite whole."""
    rng = random.Random(seed)
    for split, size in {**SPLITS, **sizes}.items():
        rows = []
        for _ in range(size):
            warm = rng.randrange(6)
            text = " ".join(["warm"] * warm + ["cold"] * (5 - warm) + [_filler(rng)])
            rows.append({"text": text, "score": warm + rng.choice([0.25, -0.25])})
        write_split(folder / f"{split}.jsonl", rows)
    return folder


def write_suite(folder: Path, datasets: str, more: str = "", name: str = "toys") -> Path:
    """Write a suite file whose `datasets` are lines of YAML."""
    path = folder / "suite.yaml"
    path.write_text(f"name: {name}\nmax_length: 24\n{more}datasets:\n{datasets}")
    return path


def _filler(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS[:5], k=rng.randint(1, 6)))
