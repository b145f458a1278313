"""Factors in memory: few of them at a time, for all adapters of the process together."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from coldfusion_shared.fusion.updates import Scratch
from coldfusion_shared.weights.checkpoint import CHUNK_ELEMENTS, Checkpoint, chunks
from coldfusion_shared.weights.lora import LoraUpdate, strips
from coldfusion_shared.weights.lora.strips import kept
from tests.shared.weights.lora.adapters import (
    adapter,
    close,
    decoded,
    normal,
    opened,
    pair,
    product,
    settings,
)

OUTER, INNER, RANK = 900, 700, 150
NAME = "layer.weight"


@pytest.fixture
def base(tmp_path: Path) -> Checkpoint:
    return opened(tmp_path, {NAME: normal(np.random.default_rng(0), (OUTER, INNER))})


def update(folder: Path, base: Checkpoint, seed: int) -> LoraUpdate:
    tensors = pair("layer", INNER, OUTER, rank=RANK, seed=seed)
    return adapter(folder, settings(r=RANK), tensors, base)


@pytest.mark.parametrize("values", [1, RANK * 13, 2**16, 2**30])
def test_the_width_of_a_strip_changes_nothing(
    tmp_path: Path, base: Checkpoint, monkeypatch: pytest.MonkeyPatch, values: int
) -> None:
    monkeypatch.setattr(strips, "STRIP_VALUES", values)
    rank = 3
    rng = np.random.default_rng(5)
    tensors = pair("layer", INNER, OUTER, rank=rank)
    found = decoded(adapter(tmp_path, settings(r=rank), tensors, base), base, NAME)
    assert close(found, product(tensors, "layer"))
    # The other way round, as embeddings keep theirs.
    turned = {
        "layer.lora_embedding_A": normal(rng, (rank, OUTER)),
        "layer.lora_embedding_B": normal(rng, (INNER, rank)),
    }
    a, b = (value.astype(np.float64) for value in turned.values())
    found = decoded(adapter(tmp_path, settings(r=rank), turned, base), base, NAME)
    assert close(found, 8 / rank * (b @ a).T)


def test_many_adapters_share_one_limit(
    tmp_path: Path, base: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 4 * 2**20
    monkeypatch.setattr(strips, "CACHE_BYTES", limit)
    updates = [update(tmp_path, base, seed) for seed in range(12)]
    span, scratch = base.tensors[NAME].span, Scratch()
    out = np.empty(CHUNK_ELEMENTS, np.float32)
    tracemalloc.start()
    try:
        for start, stop in chunks(span.elements):
            for one in updates:
                one.read(span, start, stop, out[: stop - start], scratch)
                assert kept.bytes <= limit
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # All factors have 11 MB as they are stored.
    assert peak < limit + 3 * 2**20


def test_an_adapter_that_is_gone_keeps_nothing(tmp_path: Path, base: Checkpoint) -> None:
    gc.collect()
    before = kept.bytes
    one = update(tmp_path, base, 0)
    decoded(one, base, NAME)
    assert kept.bytes > before
    del one
    gc.collect()
    assert kept.bytes == before
