"""Where the chunks are worked on: this thread, several threads, later a cluster. The same bits."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

# Results wait for their turn; two a thread keep everybody busy and little in memory.
WINDOW_PER_THREAD = 2


class Executor(Protocol):
    """Works on tasks that do not depend on each other."""

    def map(self, work: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Yield the results in the order of the tasks; hold only a few of them at a time."""


class Serial:
    """One task after another, in the caller's thread."""

    def map(self, work: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Yield the results in the order of the tasks."""
        return map(work, tasks)


class Threads:
    """Several threads; numpy lets go of the interpreter's lock while it computes."""

    def __init__(self, count: int) -> None:
        """Work on `count` tasks at a time."""
        self.count = count

    def map(self, work: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Yield the results in the order of the tasks."""
        with ThreadPoolExecutor(self.count, thread_name_prefix="fuse") as pool:
            waiting: deque[Future[Result]] = deque()
            try:
                for task in tasks:
                    waiting.append(pool.submit(work, task))
                    if len(waiting) > WINDOW_PER_THREAD * self.count:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()


def threads(count: int) -> Executor:
    """Return an executor of `count` threads."""
    return Serial() if count == 1 else Threads(count)
