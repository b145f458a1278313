"""Where a training stands, on disk, so that one that was killed goes on from there."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coldfusion_shared.data.dataset import TextDataset
    from coldfusion_shared.finetune.settings import FinetuneSettings

SECONDS_BETWEEN = 600.0
# Of all the time, what writing checkpoints at the ends of epochs may take.
SHARE = 0.05
# A slow disk; the first checkpoint tells the real speed.
BYTES_A_SECOND = 100e6
KEPT = 2
MARKER = "coldfusion.json"
# What some tokenizers read beside their own files.
MORE_TOKENIZER_FILES = ("special_tokens_map.json", "added_tokens.json")
PREFIX = "checkpoint-"


@dataclass(frozen=True)
class Mark:
    """
    What makes a checkpoint complete: written last.

    Attributes:
        training: as `name_training` has it.
        step: optimizer steps that are done.
        finished: whether the training had come to its end.
        score: the best one so far on the validation part; null: none was taken.
        idle_epochs: epochs in a row that gained nothing.
    """

    training: str
    step: int
    finished: bool = False
    score: float | None = None
    idle_epochs: int = 0


class Checkpoints:
    """The checkpoints of one training, in a folder of their own; two at most."""

    def __init__(self, folder: Path, training: str) -> None:
        """Look at `folder`; what other trainings have left there is removed by `latest`."""
        self.folder, self.training = folder, training
        self.began = self.last = time.monotonic()
        self.cost: float | None = None
        self.failed = False

    def latest(self) -> tuple[Path, Mark] | None:
        """Return the newest complete checkpoint; what is no checkpoint of this training goes."""
        found = []
        for path in self._paths():
            mark = _read(path)
            if mark is None or mark.training != self.training:
                shutil.rmtree(path, ignore_errors=True)
            else:
                found.append((path, mark))
        return max(found, key=lambda one: one[1].step, default=None)

    def due(self, size: int, *, epoch_ends: bool) -> bool:
        """Return whether it is time for the next one; `size`: the bytes that it will have."""
        since = time.monotonic() - self.last
        cost = size / BYTES_A_SECOND if self.cost is None else self.cost
        return since >= max(cost / SHARE, 0.0 if epoch_ends else SECONDS_BETWEEN)

    def begin(self) -> None:
        """Make room for the next one."""
        self.began = time.monotonic()
        for path in self._paths()[: -(KEPT - 1)]:
            shutil.rmtree(path, ignore_errors=True)

    def complete(self, path: Path, mark: Mark) -> None:
        """Declare the checkpoint at `path` complete; raises `OSError`."""
        partial = path / f".{MARKER}"
        partial.write_text(json.dumps(asdict(mark)))
        partial.replace(path / MARKER)
        self.last = time.monotonic()
        self.cost = self.last - self.began

    def give_up(self, path: Path) -> None:
        """Remove what was written of the checkpoint at `path`; the next one is tried later."""
        shutil.rmtree(path, ignore_errors=True)
        self.last = time.monotonic()
        self.cost = self.last - self.began

    def clear(self) -> None:
        """Remove them all: the training has left its result."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _paths(self) -> list[Path]:
        """Return the folders, the oldest first."""
        paths = [path for path in self.folder.glob(f"{PREFIX}*") if path.is_dir()]
        return sorted(paths, key=lambda path: int(path.name.removeprefix(PREFIX)))


def name_training(
    base: Path, dataset: TextDataset, settings: FinetuneSettings, metric: str | None = None
) -> str:
    """
    Return what tells a training from every other, 64 hexadecimal digits.

    Args:
        base: a transformers folder; weights, config and tokenizer count.
        dataset: what is learnt, for which task.
        settings: how.
        metric: by which the best epoch is chosen; null: the task's own.
    """
    # Here and not above: they need the modules that need this one.
    from coldfusion_shared.tasks import task_named
    from coldfusion_shared.tasks.pretrained import TOKENIZER_FILES

    named = [dataset.task, metric or task_named(dataset.task).metric, dataset.digest]
    sha = hashlib.sha256(json.dumps([*named, settings.model_dump_json()]).encode())
    patterns = ("config.json", "*.safetensors", *TOKENIZER_FILES, *MORE_TOKENIZER_FILES)
    for path in sorted({path for pattern in patterns for path in base.glob(pattern)}):
        if path.is_file():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            sha.update(f"{digest} {path.name}\n".encode())
    return sha.hexdigest()


def _read(path: Path) -> Mark | None:
    try:
        return Mark(**json.loads((path / MARKER).read_text()))
    except (OSError, ValueError, TypeError):
        return None
