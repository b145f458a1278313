"""Progress with rate and time left: a bar on a terminal, lines at intervals elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from coldfusion_client.cli.text import size
from coldfusion_client.reporting import Bar, Unit

LINE_SECONDS = 10.0
# Letters in a line from which on rate, time left and note have room beside the bar.
WIDE = 72


class _StepRate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(_steps(task.speed) if task.speed else "")


def _steps(rate: float) -> str:
    """Say a number of steps a second, or of seconds a step."""
    return f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each"


class _TerminalBar:
    def __init__(self, progress: Progress, label: str, total: int) -> None:
        self.progress = progress
        self.task = progress.add_task(label, total=total, note="")

    def advance(self, amount: float, note: str = "") -> None:
        self.progress.update(self.task, advance=amount, note=note)


@contextmanager
def terminal_bar(console: Console, label: str, total: int, unit: Unit) -> Iterator[Bar]:
    """Draw a bar on `console` until the context ends."""
    counts: list[ProgressColumn] = [DownloadColumn(), TransferSpeedColumn()]
    if unit == "steps":
        counts = [MofNCompleteColumn(), _StepRate()]
    note = TextColumn("{task.fields[note]}", markup=False)
    columns = [TextColumn("{task.description}", markup=False), BarColumn()]
    # In less room a line would wrap, and a line that wraps is drawn anew below itself.
    more = [*counts, TimeRemainingColumn(), note] if console.width >= WIDE else counts[:1]
    with Progress(*columns, *more, console=console) as progress:
        yield _TerminalBar(progress, label, total)


class _LineBar:
    def __init__(self, write: Callable[[str], None], label: str, total: int, unit: Unit) -> None:
        self.write, self.label, self.total, self.unit = write, label, total, unit
        self.done = 0.0
        self.note = ""
        self.began = self.told = time.monotonic()
        self._lock = Lock()

    def advance(self, amount: float, note: str = "") -> None:
        with self._lock:
            self.done += amount
            self.note = note
            if time.monotonic() - self.told >= LINE_SECONDS:
                self.tell()

    def tell(self) -> None:
        self.told = time.monotonic()
        rate = self.done / max(self.told - self.began, 1e-3)
        parts = [f"{self._count(self.done)} of {self._count(self.total)}"]
        if self.done > 0:
            parts.append(_steps(rate) if self.unit == "steps" else f"{size(rate)}/s")
        if 0 < self.done < self.total:
            parts.append(f"{(self.total - self.done) / rate:.0f} s left")
        self.write(f"{self.label}: {', '.join([*parts, *filter(None, [self.note])])}")

    def _count(self, amount: float) -> str:
        if self.unit == "bytes":
            return size(amount)
        return f"{amount:.0f}" if amount >= 10 or amount == int(amount) else f"{amount:.1f}"


@contextmanager
def line_bar(write: Callable[[str], None], label: str, total: int, unit: Unit) -> Iterator[Bar]:
    """Write a line now and then and one in the end."""
    bar = _LineBar(write, label, total, unit)
    try:
        yield bar
    finally:
        bar.tell()
