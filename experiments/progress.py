"""What is done and how long the rest will take, by what was measured so far."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


class Clock:
    """Counts jobs of several kinds, each with a cost in its kind's own unit."""

    def __init__(self, quiet: bool = False) -> None:
        """Begin; `quiet`: say nothing."""
        self.expected: dict[str, dict[str, float]] = defaultdict(dict)
        self.left: dict[str, dict[str, float]] = {}
        self.done: dict[str, float] = defaultdict(float)
        self.seconds: dict[str, float] = defaultdict(float)
        self.console = Console(file=sys.stderr, quiet=quiet)
        self.bar: Progress | None = None

    def expect(self, kind: str, key: str, cost: float) -> None:
        """Count a job that will have to be done; one key is one job."""
        self.expected[kind][key] = cost

    @contextmanager
    def running(self) -> Iterator[None]:
        """Show progress during the block: a bar on a terminal, a line a job elsewhere."""
        self.left = {kind: dict(jobs) for kind, jobs in self.expected.items()}
        self.total = sum(map(len, self.left.values()))
        if not self.console.is_terminal:
            yield
            return
        columns = (
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]}"),
            TimeElapsedColumn(),
        )  # fmt: skip
        with Progress(*columns, console=self.console) as self.bar:
            self.task = self.bar.add_task("", total=self.total, left=self._left())
            yield
        self.bar = None

    @contextmanager
    def job(self, kind: str, key: str, cost: float, what: str) -> Iterator[None]:
        """Time the job of the block."""
        begun = time.monotonic()
        self._tell(f"{kind} {what}")
        yield
        seconds = time.monotonic() - begun
        self.done[kind] += cost
        self.seconds[kind] += seconds
        self._strike(kind, key)
        self._tell(f"{kind} {what}: {seconds:.1f} s", done=True)

    def _strike(self, kind: str, key: str) -> None:
        """Take a job off what is left; what was planned of unknown weights has other keys."""
        left = self.left.get(kind, {})
        if left:
            left.pop(key if key in left else next(iter(left)))

    def rates(self) -> dict[str, float]:
        """Return the seconds that a unit of each kind took."""
        return {kind: self.seconds[kind] / cost for kind, cost in self.done.items() if cost}

    def seconds_left(self) -> float | None:
        """Return about how long the rest takes; null: nothing was measured yet."""
        rates = self.rates()
        if not rates:
            return None
        usual = max(rates.values())
        return sum(
            rates.get(kind, usual) * cost
            for kind, jobs in self.left.items()
            for cost in jobs.values()
        )

    def _tell(self, what: str, *, done: bool = False) -> None:
        count = sum(map(len, self.left.values()))
        if self.bar is not None:
            self.bar.update(
                self.task, description=what[:60], completed=self.total - count, left=self._left()
            )
        elif done:
            self.console.print(f"{what}; {self._left()}", highlight=False, soft_wrap=True)

    def _left(self) -> str:
        count, seconds = sum(map(len, self.left.values())), self.seconds_left()
        if seconds is None:
            return f"{count} jobs left"
        minutes = round(seconds / 60)
        return f"{count} jobs left, about {minutes // 60}:{minutes % 60:02} h"
