"""
Ports for programs that have to be told theirs, and take it only later, or once more.

Whoever asks the system for any port gets one of those above: so nobody is given one of these
between the choice and the use, nor while a program that was killed is started again.
"""

from __future__ import annotations

import itertools
import os
import random
import socket
from contextlib import suppress

# Below what systems give out by themselves.
FIRST, PAST = 20_000, 32_000
# Of each process that runs tests beside others, by its number.
OF_ONE = 500
_begin = FIRST + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) * OF_ONE % (PAST - FIRST)
# Somebody else may be running tests on this machine, too.
_ours = itertools.cycle(random.Random(os.getpid()).sample(range(_begin, _begin + OF_ONE), OF_ONE))


def free_ports(count: int) -> list[int]:
    """Return ports on which nothing listens, each once in a long while."""
    found: list[int] = []
    for port in itertools.islice(_ours, OF_ONE):
        with suppress(OSError), socket.socket() as tried:
            tried.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise AssertionError(f"only {len(found)} ports are free")
