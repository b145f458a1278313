"""What is done, here and by other processes, and how long the rest will take."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


class Clock:
    """Counts jobs of several kinds, each with a cost in its kind's own unit."""

    def __init__(self, quiet: bool = False, processes: int = 1) -> None:
        """Begin; `quiet`: say nothing; `processes`: so many share what is left."""
        self.processes = processes
        self.expected: dict[str, dict[str, float]] = defaultdict(dict)
        self.left: dict[str, dict[str, float]] = {}
        self.settled: set[str] = set()
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
        self.settle(kind, key)
        self._tell(f"{kind} {what}: {seconds:.1f} s", done=True)

    def settle(self, kind: str, key: str) -> None:
        """Take a job that is done, by whomever, off what is left; once, however often told."""
        left = self.left.get(kind, {})
        if left and key not in self.settled:
            # What was planned of unknown weights has other keys.
            left.pop(key if key in left else next(iter(left)))
        self.settled.add(key)

    def wait(self, kind: str, what: str) -> None:
        """Tell that another process is at a job that we want."""
        self._tell(f"{kind} {what}: another process makes it", done=True)

    def pause(self) -> None:
        """Show that other processes are at all that could be done now."""
        self._tell("waits for other processes")

    def say(self, text: str) -> None:
        """Tell something else."""
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)

    @contextmanager
    def others(self, names: Iterable[str]) -> Iterator[Callable[[str, str], None]]:
        """Yield what tells a line of another process: each has one on a terminal."""
        if not self.console.is_terminal:
            yield lambda name, text: self.say(f"{name}: {text}")
            return
        with Progress(TextColumn("{task.description}", markup=False), console=self.console) as bar:
            lines = {name: bar.add_task(name) for name in names}
            yield lambda name, text: bar.update(lines[name], description=f"{name}: {text}")

    def rates(self) -> dict[str, float]:
        """Return the seconds that a unit of each kind took."""
        return {kind: self.seconds[kind] / cost for kind, cost in self.done.items() if cost}

    def seconds_left(self) -> tuple[float, bool]:
        """Return how long what is left of measured kinds takes, and whether there are others."""
        rates = self.rates()
        left = {kind: sum(jobs.values()) for kind, jobs in self.left.items() if jobs}
        seconds = sum(rates[kind] * cost for kind, cost in left.items() if kind in rates)
        # One kind's unit is not another's: what was not measured cannot be reckoned.
        return seconds / self.processes, not left.keys() <= rates.keys()

    def _tell(self, what: str, *, done: bool = False) -> None:
        count = sum(map(len, self.left.values()))
        if self.bar is not None:
            self.bar.update(
                self.task, description=what[:60], completed=self.total - count, left=self._left()
            )
        elif done:
            self.say(f"{what}; {self._left()}")

    def _left(self) -> str:
        count, (seconds, more) = sum(map(len, self.left.values())), self.seconds_left()
        if not seconds:
            return f"{count} jobs left"
        minutes = round(seconds / 60)
        word = "more than" if more else "about"
        return f"{count} jobs left, {word} {minutes // 60}:{minutes % 60:02} h"
