"""Batches whose randomness, such as which tokens are masked, depends on nothing before them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from zlib import crc32

import torch

Collator = Callable[[list[dict[str, Any]]], Any]


class Reproducible:
    """
    A collator that draws the same for the same examples in the same epoch.

    Loaders fetch ahead, so a training that is resumed fetches at other moments than the one that
    was killed, and finds torch's random numbers elsewhere.
    """

    def __init__(self, collator: Collator, seed: int) -> None:
        """Wrap `collator`, which may draw from torch's random numbers."""
        self.collator, self.seed, self.epoch = collator, seed, 0

    def __call__(self, examples: list[dict[str, Any]]) -> Any:
        """Return a batch of tensors."""
        first = json.dumps([self.seed, self.epoch, examples[0]["input_ids"]])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(crc32(first.encode()))
            return self.collator(examples)
