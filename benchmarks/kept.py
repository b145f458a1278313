"""What a benchmark of hours keeps of its results, and what it tells of the time that is left."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.measure import say


class Kept:
    """Results in a file of JSON lines, each under a key that says all that it depends on."""

    def __init__(self, file: Path) -> None:
        """Read what is there already."""
        self.file = file
        self._known: dict[str, dict[str, Any]] = {}
        if file.exists():
            for text in file.read_text(encoding="utf-8").splitlines():
                line = json.loads(text)
                self._known[line.pop("key")] = line

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the result under `key`; null where there is none."""
        return self._known.get(key)

    def values(self) -> list[dict[str, Any]]:
        """Return all results, in the order in which they came."""
        return list(self._known.values())

    def put(self, key: str, result: dict[str, Any]) -> None:
        """Keep a result."""
        self._known[key] = result
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, **result}) + "\n")


def key_of(*parts: Any) -> str:
    """Return the key of what depends on `parts`, which JSON can say."""
    return json.dumps(parts, sort_keys=True)


class Clock:
    """Tells on standard error what was done, and how long the rest will take."""

    def __init__(self, jobs: Mapping[str, int]) -> None:
        """
        Begin.

        Args:
            jobs: how many jobs there are of each kind.
        """
        self.left = Counter(jobs)
        self.done = Counter[str]()
        self.seconds: dict[str, float] = dict.fromkeys(jobs, 0.0)

    def skip(self, kind: str) -> None:
        """Count a job that was done in an earlier run."""
        self.left[kind] = max(0, self.left[kind] - 1)

    @contextmanager
    def job(self, kind: str, what: str) -> Iterator[None]:
        """Time the job of the block, and tell about it."""
        begun = time.monotonic()
        yield
        seconds = time.monotonic() - begun
        self.skip(kind)
        self.done[kind] += 1
        self.seconds[kind] += seconds
        say(f"{kind} {what}: {seconds:.1f} s; {self._left()}")

    def _left(self) -> str:
        """Of a kind that was not there yet, a job takes as long as one of the others."""
        usual = sum(self.seconds.values()) / self.done.total()
        seconds = sum(
            count * (self.seconds[kind] / self.done[kind] if self.done[kind] else usual)
            for kind, count in self.left.items()
        )
        hours, minutes = divmod(round(seconds / 60), 60)
        return f"about {hours}:{minutes:02} h left for {self.left.total()} jobs"
