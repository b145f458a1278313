"""A finetuning in a process of its own that is killed in the middle of an epoch."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from coldfusion_shared.finetune import FinetuneSettings, checkpoints, finetune
from tests.toy_data import toy_dataset

SETTINGS = FinetuneSettings(epochs=3, lr=1e-3, batch_size=8, max_length=24, seed=1)
LAST_STEP = 13


def progress(done: int, total: int, loss: float) -> None:
    """Kill this very process, as no handler can hinder."""
    if done == LAST_STEP:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    base, folder = Path(sys.argv[1]), Path(sys.argv[2])
    # A checkpoint at every step, however long it takes.
    checkpoints.SECONDS_BETWEEN, checkpoints.SHARE = 0.0, 1e9
    finetune(
        base, toy_dataset(), SETTINGS, folder / "out", progress, checkpoints=folder / "checkpoints"
    )
