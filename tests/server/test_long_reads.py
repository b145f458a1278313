"""Work that reads for long without a word of progress keeps its lease by its reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from coldfusion_server.services import fusing, leases, publishing
from coldfusion_server.services.closing import close_by_hand
from coldfusion_server.worker import work_once
from coldfusion_shared.weights.checkpoint import FileSource
from coldfusion_shared.weights.lora import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from tests.server.repository import MODEL, Repository, repository
from tests.server.test_encodings import contribute
from tests.shared.checkpoints import Array, file_bytes

NAME = "encoder.big"
SHAPE = (1024, 512)


def base() -> dict[str, Array]:
    """Return a model of equal matrices, each of which is measured in many reads."""
    weight = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    bias = np.zeros(SHAPE[0], np.float32)
    return {f"{NAME}.weight": weight, f"{NAME}.bias": bias, "encoder.copy.weight": weight}


def dora(seed: int) -> dict[str, bytes]:
    """Return an adapter that turns each row a little and leaves it as long as it was."""
    rng = np.random.default_rng(seed)
    module = f"base_model.model.{NAME}"
    lengths = np.linalg.norm(base()[f"{NAME}.weight"], axis=1)
    tensors = {
        f"{module}.lora_A.weight": rng.standard_normal((1, SHAPE[1])).astype(np.float32),
        f"{module}.lora_B.weight": 0.01 * rng.standard_normal((SHAPE[0], 1), np.float32),
        f"{module}.lora_magnitude_vector": lengths,
    }
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "use_dora": True}
    return {
        ADAPTER_WEIGHTS: file_bytes(tensors),
        ADAPTER_CONFIG: json.dumps({**config, "init_lora_weights": True}).encode(),
    }


@pytest.fixture
def large(tmp_path: Path) -> Iterator[Repository]:
    # One thread: where time goes by reads alone, a second one could read for hours meanwhile.
    with repository(tmp_path / "large", fuse_threads=1, lease_seconds=8.0) as opened:
        opened.model(tensors=base(), min_contributions=100)
        yield opened


class Thief:
    """Tries to take over a piece of work whenever something is read, which takes a second."""

    def __init__(self, repo: Repository, patch: pytest.MonkeyPatch) -> None:
        self.repo = repo
        self.tries: list[bool] = []
        self.key = ""
        self.read_into = FileSource.read_into
        patch.setattr(FileSource, "read_into", lambda *given: self.read(*given))

    def read(self, source: FileSource, start: int, buffer: memoryview) -> None:
        self.repo.clock.advance(seconds=1)
        if self.key:
            self.tries.append(leases.acquire(self.repo.ctx, self.key, "another") is not None)
        self.read_into(source, start, buffer)

    def watch(self, key: str) -> list[bool]:
        """Let the worker do a piece of work with that lease; return what the tries came to."""
        self.key, self.tries = key, []
        assert work_once(self.repo.ctx, "worker")
        self.key = ""
        return self.tries


def test_neither_screening_nor_the_fuse_is_taken_over(
    large: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    thief = Thief(large, monkeypatch)
    for seed in range(2):
        one = contribute(large.contributor(), "lora", dora(seed))
        tries = thief.watch(f"contribution:{one}")
        assert len(tries) > 30 and not any(tries)
        assert large.contributor().receipt(one)["state"] == "accepted"
    close_by_hand(large.ctx, MODEL, "open", large.principal("max", "maintainer"))
    tries = thief.watch("round:1")
    assert len(tries) > 60 and not any(tries)
    assert large.get(f"/v1/models/{MODEL}")["current"] == "v1"


def test_a_lease_that_is_lost_ends_the_reading(
    large: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    contribute(large.contributor(), "lora", dora(1))
    assert work_once(large.ctx, "worker")
    close_by_hand(large.ctx, MODEL, "open", large.principal("max", "maintainer"))

    def taken_over(*_: object) -> None:
        large.clock.advance(minutes=5)
        (key,) = (f"round:{round_id}" for round_id in publishing._waiting(large.ctx))
        assert leases.acquire(large.ctx, key, "another") is not None

    monkeypatch.setattr(fusing, "together_in_update", taken_over)
    assert work_once(large.ctx, "worker")
    assert large.get(f"/v1/models/{MODEL}/rounds/1")["state"] == "fusing"
