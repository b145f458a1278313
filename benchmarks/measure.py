"""Run a program and measure it: wall time, CPU time, peak of its own memory."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

POLL_SECONDS = 0.005

# No peer asks the network for anything, or tells it anything.
OFFLINE = {"HF_HUB_OFFLINE": "1", "FLWR_TELEMETRY_ENABLED": "0"}


@dataclass(frozen=True)
class Measurement:
    """
    What one run has cost.

    Attributes:
        wall: seconds.
        cpu: seconds of user and system time, its children's among them.
        anonymous: peak of anonymous memory (RssAnon) of the process itself, in bytes; files that
            are mapped do not count.
    """

    wall: float
    cpu: float
    anonymous: int


def run(command: Sequence[str]) -> Measurement:
    """Run `command` to its end; raises `RuntimeError` with its last words if it fails."""
    started = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=os.environ | OFFLINE,
    )
    peak = _Peak(process.pid)
    assert process.stdout is not None
    words = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    peak.stop()
    process.stdout.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{words[-2000:]}")
    return Measurement(wall, usage.ru_utime + usage.ru_stime, peak.bytes)


def python(module: str, *arguments: str, interpreter: str = sys.executable) -> list[str]:
    """Return the command that runs `module`, with this interpreter unless another is given."""
    return [interpreter, "-m", module, *arguments]


class _Peak:
    """Watches a process's anonymous memory, for which the kernel keeps no high-water mark."""

    def __init__(self, pid: int) -> None:
        self.bytes = 0
        self.status = Path(f"/proc/{pid}/status")
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.done.set()
        self.thread.join()

    def _watch(self) -> None:
        while not self.done.wait(POLL_SECONDS):
            try:
                lines = self.status.read_text().splitlines()
            except OSError:
                return
            for line in lines:
                if line.startswith("RssAnon:"):
                    self.bytes = max(self.bytes, int(line.split()[1]) * 1024)
