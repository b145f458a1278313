"""A finetuning that several processes do together, each started by torchrun."""

from __future__ import annotations

import sys
from pathlib import Path

from coldfusion_shared.finetune import finetune
from coldfusion_shared.finetune.processes import rank, together
from tests.shared.finetune.killed import SETTINGS
from tests.toy_data import toy_dataset


def _tell(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    base, folder = Path(sys.argv[1]), Path(sys.argv[2])
    with together():
        result = finetune(
            base,
            toy_dataset(),
            SETTINGS,
            folder / f"out-{rank()}",
            lambda done, total, loss: _tell(f"step {done}"),
            _tell,
            folder / "checkpoints",
        )
    _tell(f"rank {rank()}: {result.steps} {result.test:.2f}")
    names = [file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")]
    _tell(f"left by rank {rank()}: {[name for name in names if 'gloo' in name]}")
