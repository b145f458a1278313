"""The programs that the demo starts, and their end: all of them, whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

STOP_SECONDS = 10
BIN = Path(sys.executable).parent


class Processes:
    """A group of processes that ends with the block in which it was made."""

    def __init__(self, logs: Path) -> None:
        """Write what the processes say into files in the folder `logs`."""
        self.logs = logs
        self.running: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self.running:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for process in self.running:
            _wait(process)

    def start(
        self, name: str, command: Sequence[str], env: Mapping[str, str]
    ) -> subprocess.Popen[str]:
        """
        Start a program of this environment.

        Its standard output can be read; what it says besides goes to ``<logs>/<name>.log``. Ctrl-C
        does not reach it: the demo ends it itself, in order.
        """
        with (self.logs / f"{name}.log").open("w") as log:
            process = subprocess.Popen(
                [str(BIN / command[0]), *command[1:]],
                stdout=subprocess.PIPE,
                stderr=log,
                stdin=subprocess.DEVNULL,
                text=True,
                env={**os.environ, **env},
                start_new_session=True,
            )
        self.running.append(process)
        return process

    def run(self, name: str, command: Sequence[str], env: Mapping[str, str]) -> str:
        """Run a program to its end and return its standard output; raises `DemoFailed`."""
        process = self.start(name, command, env)
        output, _ = process.communicate()
        if process.returncode:
            raise DemoFailed(f"{' '.join(command[:3])} failed", self.log_tail(name))
        return output

    def log_tail(self, name: str) -> str:
        """Return the last lines that the program of that name has said."""
        return "\n".join((self.logs / f"{name}.log").read_text().splitlines()[-15:])


class DemoFailed(Exception):
    """One of the programs failed; the message says which and shows its last words."""

    def __init__(self, what: str, words: str) -> None:
        """Keep both."""
        super().__init__(f"{what}:\n{words}" if words else what)


def _wait(process: subprocess.Popen[str]) -> None:
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
