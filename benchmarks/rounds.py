"""
The life of a round: how long it takes beside the fuse in it, and how many a minute there can be.

A Repository of real processes (API, scheduler, worker, SQLite, local store). From the last
acceptance to the publication, by the Repository's own times: closing, fuse, digests, storing, gate
and publication. Beside it the bare fuse of the same files, a whole process that writes one synced
file and takes no digest. Then rounds of a tiny model, one contribution each, one after the other:
declared, uploaded, screened, closed, fused and published.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.measure import run
from benchmarks.models import write_models
from benchmarks.programs import Inputs, ours
from benchmarks.repository import Repository, running
from coldfusion_client import Client
from coldfusion_shared.weights.header import build_header

MODEL = "bench/model"
THREADS = 2
FACTOR, ROUNDS_A_MINUTE = 1.5, 60.0
# A tiny model's tensors.
TINY = [("encoder.weight", "F32", (64, 64)), ("encoder.bias", "F32", (64,))]


@dataclass(frozen=True)
class Settings:
    """
    What is measured.

    Attributes:
        folder: for models and Repositories.
        contributions: to the large round.
        layers: size of its model; 12 is RoBERTa-base.
        repeats: large rounds, of which the best counts.
        rounds: of the tiny model.
    """

    folder: Path
    contributions: int
    layers: int
    repeats: int
    rounds: int


def table(settings: Settings) -> str:
    """Measure and return the tables."""
    base, models = write_models(settings.folder / "models", settings.contributions, settings.layers)
    inputs = Inputs(base, models, settings.folder)
    bare, whole = [], []
    for _ in range(settings.repeats):
        program = ours(inputs, "mean", THREADS)
        assert program.command is not None, "it is our own"
        bare.append(run(program.command).wall)
        whole.append(_publication(settings.folder / "large", base, models))
    minute = _a_minute(settings.folder / "tiny", settings.rounds)
    factor = min(whole) / min(bare)
    rows = [
        "| | measured | goal |  |",
        "|---|---:|---:|---|",
        f"| the bare fuse, s | {min(bare):.2f} |  |  |",
        f"| last acceptance to publication, s | {min(whole):.2f} |  |  |",
        f"| of the bare fuse's time | {factor:.2f} | at most {FACTOR} | "
        f"{_verdict(factor <= FACTOR)} |",
        f"| rounds a minute, tiny model, SQLite | {minute:.0f} | at least {ROUNDS_A_MINUTE:.0f} | "
        f"{_verdict(minute >= ROUNDS_A_MINUTE)} |",
    ]
    return (
        f"{settings.contributions} models of {settings.layers} layers, the best of "
        f"{settings.repeats}; {settings.rounds} rounds of the tiny one.\n\n" + "\n".join(rows)
    )


def _verdict(holds: bool) -> str:
    return "holds" if holds else "**misses**"


def _publication(folder: Path, base: Path, models: Sequence[Path]) -> float:
    """Return the seconds from the last acceptance of a round to its publication."""
    shutil.rmtree(folder, ignore_errors=True)
    with running(folder) as repository, _client(repository, folder) as client:
        repository.create_model(MODEL, base, len(models))
        accepted = [client.contribute(MODEL, model, "v0", wait=True).decided_at for model in models]
        ended = repository.wait_published(MODEL, 1).finished_at
    shutil.rmtree(folder)
    assert ended is not None and accepted[-1] is not None, "both were decided"
    return (ended - accepted[-1]).total_seconds()


def _a_minute(folder: Path, rounds: int) -> float:
    """Return how many rounds of a tiny model a minute has."""
    shutil.rmtree(folder, ignore_errors=True)
    base = write_tiny(folder / "base", 0)
    with running(folder / "repository") as repository, _client(repository, folder) as client:
        repository.create_model(MODEL, base, 1)
        started = time.perf_counter()
        for number in range(1, rounds + 1):
            tiny = write_tiny(folder / "finetuned", number)
            client.contribute(MODEL, tiny, f"v{number - 1}", wait=False)
            repository.wait_published(MODEL, number)
        seconds = time.perf_counter() - started
    shutil.rmtree(folder)
    return 60 * rounds / seconds


def _client(repository: Repository, folder: Path) -> Client:
    return Client(repository.url, repository.token, cache=folder / "cache")


def write_tiny(folder: Path, seed: int) -> Path:
    """Write a model of a few thousand values; all are near the one of seed 0."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "roberta"}))
    count = sum(int(np.prod(shape)) for _, _, shape in TINY)
    values = np.random.default_rng(0).standard_normal(count, np.float32)
    if seed:
        values += 1e-3 * np.random.default_rng(seed).standard_normal(count, np.float32)
    (folder / "model.safetensors").write_bytes(build_header(TINY) + values.tobytes())
    return folder
