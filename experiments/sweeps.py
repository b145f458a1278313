"""
Making a run's jobs together with other processes: each makes what no other one is at.

A process goes through the protocol again and again. In such a sweep it makes every job whose inputs
are there and that nobody else is making, and passes over the rest; once there is nothing left to
make here or to wait for, it ends. What was made is in the cache, where the run itself finds it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from time import sleep
from typing import TypeVar

from experiments.lab import Lab, Pending, Sweep

Found = TypeVar("Found")
# Before looking again, where others are at all that could be made now.
PAUSE_SECONDS = 5.0


def swept(lab: Lab, work: Callable[[Lab], Found]) -> Found:
    """
    Sweep until nothing is left to make, and return what `work` returns.

    Args:
        lab: where it is made; nothing is noted.
        work: goes through the jobs, and is called until it passes over none.
    """
    while True:
        lab.sweep = Sweep()
        with suppress(Pending):
            found = work(lab)
            if not lab.sweep.busy:
                return found
        if not lab.sweep.made:
            lab.clock.pause()
            sleep(PAUSE_SECONDS)
