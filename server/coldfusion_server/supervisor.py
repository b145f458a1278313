"""A child process beside the server: started again when it ends, ended with the server."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from threading import Event, Thread

import structlog

log = structlog.get_logger(__name__)

POLL_SECONDS = 0.2
# Between two starts, doubled each time, unless the child has lived for a while.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 300.0
STEADY_SECONDS = 600.0
# What a child gets to leave its work.
END_SECONDS = 8.0
# What one without a parent gets: a step inside a library may not be interrupted before.
ORPHAN_SECONDS = 20


def supervise(
    name: str,
    command: Sequence[str],
    stop: Event,
    once: Sequence[str] = (),
    settings: Mapping[str, str] | None = None,
) -> None:
    """
    Keep the process of `command` running until `stop` is set, then end it.

    Its standard input is a pipe that nothing is ever written to. It closes when this process ends,
    however that ends; so a child that calls `end_with_parent` does not stay behind.

    Args:
        name: what the log calls it.
        command: the program and its arguments.
        stop: ends both.
        once: more arguments, for the first start alone.
        settings: variables of its environment beside our own; other users see command lines.
    """
    pause, more = FIRST_PAUSE, once
    environment = {**os.environ, **(settings or {})}
    while not stop.is_set():
        begun = time.monotonic()
        status = _run(name, [*command, *more], stop, environment)
        more = ()
        if stop.is_set():
            return
        if time.monotonic() - begun > STEADY_SECONDS:
            pause = FIRST_PAUSE
        log.error(f"{name} ended", status=status, again_in=pause)
        stop.wait(pause)
        pause = min(LONGEST_PAUSE, 2 * pause)


def end_with_parent() -> None:
    """End this process as by SIGTERM once standard input closes; after a while the hard way."""
    Thread(target=_await_parent, daemon=True, name="parent").start()


def _run(name: str, command: Sequence[str], stop: Event, environment: Mapping[str, str]) -> int:
    """Run the child to its end, or to ours; return its exit status."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment) as child:
        log.info(f"{name} started", pid=child.pid)
        while child.poll() is None and not stop.wait(POLL_SECONDS):
            pass
        if child.poll() is None:
            _end(child)
    return child.returncode


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()


def _await_parent() -> None:
    while os.read(0, 4096):
        pass
    # SIGALRM ends a process by itself, also where Python does not come to act.
    signal.alarm(ORPHAN_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
