"""Bars for long work, on standard error, for people only: by bytes, one a phase, or by rows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    FileSizeColumn,
    MofNCompleteColumn,
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


@contextmanager
def row_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show how many rows are done, of how many; the caller tells both."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    columns = (
        TextColumn("{task.description:>10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


@contextmanager
def counting(what: str) -> Iterator[Callable[[int], None]]:
    """Show how many things, and how many bytes of them, there were so far: the sum is not known."""
    if not sys.stderr.isatty():
        yield lambda size: None
        return
    columns = (
        TextColumn("{task.description:>10}"),
        BarColumn(),
        TextColumn("{task.fields[things]:,} objects,"),
        FileSizeColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task, things = bars.add_task(what, total=None, things=0), 0

        def advance(size: int) -> None:
            nonlocal things
            things += 1
            bars.update(task, advance=size, things=things)

        yield advance


@contextmanager
def byte_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Show one thing after the other: what is done, how many bytes of it are, and of how many."""
    if not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task, now = bars.add_task(""), ""

        def advance(what: str, done: int, total: int) -> None:
            nonlocal now
            if what != now:
                now = what
                bars.reset(task, description=what, total=total)
            bars.update(task, completed=done, total=total or None)

        yield advance
