"""
The server's programs as processes that start at once: forked off one that has imported them.

A start takes two seconds of imports, in which there is nothing yet that a kill could harm; the
tests that kill start programs by the hundred. What runs is the command line, as in life.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

PROGRAMS = multiprocessing.get_context("forkserver")
PROGRAMS.set_forkserver_preload(
    [
        "coldfusion_server.cli",
        "coldfusion_server.process",
        "coldfusion_server.services.verifying",
        "coldfusion_server.storage.s3.store",
        "sqlalchemy.dialects.postgresql.psycopg",
        "pytest",
    ]
)
END_SECONDS = 300


class Program:
    """One of the server's programs; it can be killed and started again."""

    def __init__(
        self, name: str, words: Sequence[str], environment: Mapping[str, str], folder: Path
    ) -> None:
        """
        Start nothing yet.

        Args:
            name: what it is called here.
            words: the command, behind ``coldfusion-server``.
            environment: its settings; none of the caller's are handed on.
            folder: where its log goes.
        """
        self.name, self.words, self.environment = name, list(words), dict(environment)
        self.log = folder / f"{name}.log"
        self._process = PROGRAMS.Process(target=_run)

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.pid is not None and self._process.is_alive()

    @property
    def pid(self) -> int:
        """The id of its process, or of the last one."""
        pid = self._process.pid
        assert pid is not None, f"{self.name} was never started"
        return pid

    def start(self, fault_point: str | None = None) -> None:
        """Start it; at `fault_point` it kills itself."""
        assert not self.alive, f"{self.name} runs already"
        environment = dict(self.environment)
        if fault_point is not None:
            environment |= {"COLDFUSION_UNDER_TEST": "1", "COLDFUSION_FAULT_POINT": fault_point}
        arguments = (self.words, environment, self.log)
        self._process = PROGRAMS.Process(target=_run, args=arguments, daemon=True, name=self.name)
        self._process.start()

    def kill(self) -> None:
        """End it at once, as ``kill -9`` does, if it runs."""
        if self.alive:
            self._process.kill()
            self._process.join()

    def pause(self, seconds: float) -> None:
        """Let it stand still for so long, as a machine does that is short of memory."""
        # It may end by itself just now.
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGSTOP)
            time.sleep(seconds)
            os.kill(self.pid, signal.SIGCONT)

    def ended(self) -> int:
        """Wait until it ends by itself; return its status, below 0 where a signal ended it."""
        self._process.join(END_SECONDS)
        status = self._process.exitcode
        assert status is not None, f"{self.name} does not end"
        return status


def _run(words: list[str], environment: dict[str, str], log: Path) -> None:
    """Be that program, in this process."""
    for name in [name for name in os.environ if name.startswith("COLDFUSION_")]:
        del os.environ[name]
    os.environ.update(environment)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, sys.stdout.fileno())
    os.dup2(descriptor, sys.stderr.fileno())
    from coldfusion_server.__main__ import main

    sys.argv = ["coldfusion-server", *words]
    main()
