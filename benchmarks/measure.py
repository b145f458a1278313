"""Run a program and measure it: wall time, CPU time, peak of its own memory."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

POLL_SECONDS = 0.005

# No peer asks the network for anything, or tells it anything.
OFFLINE = {"HF_HUB_OFFLINE": "1", "FLWR_TELEMETRY_ENABLED": "0", "NO_PROXY": "*"}


@dataclass(frozen=True)
class Measurement:
    """
    What one run has cost.

    Attributes:
        wall: seconds.
        cpu: seconds of user and system time, its children's among them.
        anonymous: peak of anonymous memory (RssAnon) of the process itself, in bytes; files that
            are mapped do not count.
        said: what it printed, errors among it.
    """

    wall: float
    cpu: float
    anonymous: int
    said: str = ""


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Measurement:
    """
    Run `command` to its end, with `environment` added to ours.

    Raises:
        RuntimeError: it fails; with its last words.
    """
    started = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, **OFFLINE, **(environment or {})},
    )
    peak = Peak(process.pid)
    assert process.stdout is not None
    try:
        words = process.stdout.read()
    except BaseException:
        # Ended by a person: what it writes into is about to be removed.
        process.kill()
        raise
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    peak.stop()
    process.stdout.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{words[-2000:]}")
    return Measurement(wall, usage.ru_utime + usage.ru_stime, peak.bytes, words)


def python(module: str, *arguments: str, interpreter: str = sys.executable) -> list[str]:
    """Return the command that runs `module`, with this interpreter unless another is given."""
    return [interpreter, "-m", module, *arguments]


def say(what: str) -> None:
    """Tell on standard error what happens now."""
    sys.stderr.write(f"{what}\n")
    sys.stderr.flush()


def anonymous_bytes(pid: int) -> int:
    """Return how much anonymous memory (RssAnon) a process has, in bytes; 0 if it has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return 0


class Peak:
    """Watches a process's anonymous memory, for which the kernel keeps no high-water mark."""

    def __init__(self, pid: int) -> None:
        """Watch from now on."""
        self.bytes = 0
        self.pid = pid
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def stop(self) -> int:
        """Watch no more, and return the peak in bytes."""
        self.done.set()
        self.thread.join()
        return self.bytes

    def _watch(self) -> None:
        while not self.done.wait(POLL_SECONDS):
            self.bytes = max(self.bytes, anonymous_bytes(self.pid))
