"""Bars for long work, by bytes: one a phase, on standard error, for people only."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from coldfusion_shared.fusion.plan import Progress as Report


@contextmanager
def phase_bars(phases: Sequence[str], total: int) -> Iterator[Report]:
    """
    Show how far each of `phases` is.

    Args:
        phases: their names, in order.
        total: bytes that each of them reads.
    """
    if not sys.stderr.isatty():
        yield lambda phase, size: None
        return
    columns = (
        TextColumn("{task.description:>10}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {
            phase: bars.add_task(phase, total=total or None, start=False) for phase in phases
        }
        begun: set[str] = set()

        def advance(phase: str, size: int) -> None:
            if phase not in begun:
                begun.add(phase)
                bars.start_task(tasks[phase])
            bars.update(tasks[phase], advance=size)

        yield advance
