"""Processes that make a run's jobs together; the run itself then finds all of it made."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock, Thread

from coldfusion_shared.finetune.threads import available_cores
from experiments.progress import Clock

COMMAND = (sys.executable, "-m", "experiments", "join")
THREADS = "OMP_NUM_THREADS"
# Unless one is told: each has its own libraries and model in memory, and jobs that need nothing of
# each other become few.
MOST_USUAL = 8
# So long a process that was asked to end may take for it.
END_SECONDS = 30
# Of what a process said last: an error, and what to do about it.
LAST_LINES = 2


def usual(threads: int) -> int:
    """
    Return how many processes do the most, each with so many threads.

    On a CPU as many as it has cores for, within reason; a GPU computes for one at a time anyway.
    """
    from coldfusion_shared.finetune.precision import device_kind

    if device_kind() != "cpu":
        return 1
    return max(1, min(MOST_USUAL, available_cores() // threads))


def threads_for_all(processes: int) -> int:
    """Return how many threads of each process leave no core idle that one more could use."""
    return max(1, available_cores() // processes)


def chosen_threads() -> int:
    """Return what OMP_NUM_THREADS says, as OpenMP reads it; 1 where it says nothing."""
    first = os.environ.get(THREADS, "").split(",")[0].strip()
    return max(1, int(first)) if first.isdecimal() else 1


def compute_with(threads: int) -> None:
    """
    Compute with so many threads, here and in processes to come.

    How a sum is split among threads decides its last bits, and so what becomes of a line, and of
    weights that have to be made again.
    """
    import torch

    os.environ[THREADS] = str(threads)
    torch.set_num_threads(threads)


def work_together(run: Path, count: int, clock: Clock) -> None:
    """
    Let several processes make a run's jobs; who fails is told of. They end when we are stopped.

    Args:
        run: its folder.
        count: how many processes.
        clock: tells what they say.
    """
    command = [*COMMAND, str(run), "--of", str(count)]
    names = [f"process {number}" for number in range(1, count + 1)]
    with clock.others(names) as tell:
        children = [_Child(name, command, tell) for name in names]
        try:
            for child in children:
                child.start()
            for child in children:
                child.join()
                if child.status:
                    tell(child.called, f"failed; the others do its part: {child.why}")
        finally:
            for child in children:
                child.stop()
            for child in children:
                child.end()


class _Child(Thread):
    """
    A process, and who starts it and hears what it says.

    So it never has to wait for that; and as only the main thread is interrupted, there is none that
    we do not know of.
    """

    def __init__(self, name: str, command: Sequence[str], tell: Callable[[str, str], None]) -> None:
        """Make it ready to start."""
        super().__init__(daemon=True)
        self.called, self.command, self.tell = name, command, tell
        self.last: deque[str] = deque(maxlen=LAST_LINES)
        self.starting, self.unwanted = Lock(), False
        self.process: subprocess.Popen[str] | None = None

    @property
    def status(self) -> int | None:
        """What it ended with."""
        return None if self.process is None else self.process.returncode

    @property
    def why(self) -> str:
        """What it said last, or which signal has ended it."""
        if self.status is not None and self.status < 0:
            return f"ended by {signal.Signals(-self.status).name}"
        return " ".join(self.last)

    def run(self) -> None:
        """Tell line by line, until it has ended."""
        with self.starting:
            if self.unwanted:
                return
            self.process = _started(self.command)
        with self.process as process:
            for line in process.stderr or ():
                self.last.append(line.strip())
                if not self.unwanted:
                    self.tell(self.called, line.strip())

    def stop(self) -> None:
        """Ask it to end."""
        with self.starting:
            self.unwanted = True
        if self.process is not None:
            self.process.terminate()

    def end(self) -> None:
        """Wait until it has ended, but not for long."""
        if self.process is None:
            return
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _started(command: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A terminal would interrupt it, too; that is ours to do.
        process_group=0,
    )
