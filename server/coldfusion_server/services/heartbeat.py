"""
The sign of life of a part of the Repository: a file that is touched while its work goes on, and
what the process itself knows of its parts.

It is given by the work itself, turn by turn and chunk by chunk, and not by a thread beside it: a
thread would go on when the work hangs.
"""

from __future__ import annotations

import time
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Self

from coldfusion_server.settings import Settings
from coldfusion_shared.errors import ConfigurationError

BEAT_SECONDS = 1.0


class Part(StrEnum):
    """The parts of a Repository that a process may run alone."""

    API = "api"
    SCHEDULER = "scheduler"
    WORKER = "worker"
    EVALUATOR = "evaluator"


class WorkStopped(BaseException):
    """
    The process is about to end: its work is left, with its lease given back, for another one.

    No `Exception`, as `KeyboardInterrupt` is none: nothing on the way may take it for a failure.
    """


class Heartbeat:
    """Called all the time by what scheduler or worker do; also tells them when to stop."""

    def __init__(
        self, settings: Settings, part: Part, stop: Event, beats: dict[str, float] | None = None
    ) -> None:
        """
        Beat until `stop` is set.

        Args:
            settings: with the `run_dir` to do it in, if there is one.
            part: whose heart it is.
            stop: ends the work.
            beats: of the process: when each part has beaten last, by the clock that nobody sets.
        """
        self.file = heartbeat_file(settings, part)
        self.part = part
        self.stop = stop
        self.beats = {} if beats is None else beats
        self.next = 0.0

    def __enter__(self) -> Self:
        """
        Remove what an earlier process left: it would vouch for this one.

        Raises:
            ConfigurationError: the folder cannot be written.
        """
        if self.file is not None:
            try:
                self.file.parent.mkdir(parents=True, exist_ok=True)
                self.file.touch()
                self.file.unlink()
            except OSError as error:
                raise ConfigurationError(
                    f"The folder {str(self.file.parent)!r} cannot be used: {error.strerror}.",
                    hint="Set run_dir to a folder that this process may write.",
                ) from None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.beats.pop(self.part, None)
        if self.file is not None:
            with suppress(OSError):
                self.file.unlink(missing_ok=True)

    def __call__(self) -> None:
        """Show that the work moves; raises `WorkStopped` once it is to end."""
        if self.stop.is_set():
            raise WorkStopped
        now = self.beats[self.part] = time.monotonic()
        if self.file is None or now < self.next:
            return
        self.next = now + BEAT_SECONDS
        # A folder that has gone is seen by who looks for the file; the work need not end for it.
        with suppress(OSError):
            self.file.touch()


def heartbeat_file(settings: Settings, part: Part) -> Path | None:
    """Return the file that `part` touches; null if the settings name no folder."""
    return None if settings.run_dir is None else settings.run_dir / f"{part}.heartbeat"


def silence(file: Path) -> float | None:
    """Return the seconds since the last beat; null if there was none since the start."""
    try:
        return max(0.0, time.time() - file.stat().st_mtime)
    except FileNotFoundError:
        return None
