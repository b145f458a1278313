"""
Several processes that contribute together, as torchrun and `accelerate launch` start them.

The first one does everything as if it were alone; the others wait until it trains, train with it
on the same data, and end without a word.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from coldfusion_client.bases import base_file, base_folder, find_base
from coldfusion_client.source import Source
from coldfusion_client.training import Trainer
from coldfusion_shared.finetune import processes

if TYPE_CHECKING:
    from coldfusion_client.contribute import Order


def call_in(base: str, staging: Path) -> None:
    """Tell the other processes to train from the base `base`, as the first one does now."""
    processes.from_first((base, str(staging)))


def dismiss() -> None:
    """Tell the other processes that there is nothing to train."""
    processes.from_first(None)


def follow(order: Order, source: Source, trainer: Trainer) -> None:
    """Train with the first process when it does; its folder is on this machine, too, or shared."""
    called = None
    # The first process has ended, and says why.
    with suppress(RuntimeError):
        called = processes.from_first(None)
    if called is None:
        return
    version, staging = called
    base = find_base(source, order.model, version)
    dataset = trainer.read(order.data, order.settings.seed, base_file(source, base, "config.json"))
    folder = base_folder(source, base)
    trainer.finetune(folder, dataset, order.settings, Path(staging), lambda *_: None)
