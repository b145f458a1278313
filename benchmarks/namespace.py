"""
A network of its own for one process, so that the kernel counts what that process alone moves.

A network namespace of Linux, tied to this machine by a pair of virtual interfaces; root alone can
make one. What listens on 127.0.0.1 cannot be reached from inside, so one port is passed on.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread

INTERFACE = "bench"


@dataclass(frozen=True)
class Namespace:
    """
    A network and how it is reached.

    Attributes:
        name: of the namespace.
        inside: address of the process in it.
        endpoint: URL under which that process reaches the port that is passed on.
    """

    name: str
    inside: str
    endpoint: str

    @property
    def prefix(self) -> list[str]:
        """What to write before a command to run it inside; it keeps its process id."""
        return ["ip", "netns", "exec", self.name]


def is_possible() -> bool:
    """Return whether this user can make a namespace here."""
    return os.geteuid() == 0 and shutil.which("ip") is not None


def moved_bytes(pid: int) -> int:
    """Return what has come and gone over the interface of the process's own network, in bytes."""
    for line in Path(f"/proc/{pid}/net/dev").read_text().splitlines():
        interface, _, counters = line.strip().partition(":")
        if interface == INTERFACE:
            return int(counters.split()[0]) + int(counters.split()[8])
    raise RuntimeError(f"The process {pid} has no network of its own.")


@contextmanager
def namespace(port: int) -> Iterator[Namespace]:
    """Make a network from which 127.0.0.1:`port` can be reached; it goes with the context."""
    # A network that is meant for benchmarks and leads nowhere (RFC 2544).
    third = os.getpid() % 256
    outside, inside = f"198.18.{third}.1", f"198.18.{third}.2"
    name, link = f"bench{os.getpid()}", f"bn{os.getpid()}"
    within = ["netns", "exec", name, "ip"]
    with ExitStack() as stack:
        _ip("netns", "add", name)
        # The interfaces go with it.
        stack.callback(_ip, "netns", "del", name)
        _ip("link", "add", link, "type", "veth", "peer", "name", INTERFACE, "netns", name)
        _ip("addr", "add", f"{outside}/30", "dev", link)
        _ip("link", "set", link, "up")
        _ip(*within, "addr", "add", f"{inside}/30", "dev", INTERFACE)
        _ip(*within, "link", "set", INTERFACE, "up")
        _ip(*within, "link", "set", "lo", "up")
        passed = stack.enter_context(_passed_on(outside, port))
        yield Namespace(name, inside, f"http://{outside}:{passed}")


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")


class _Forwarder(ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, host: str, port: int) -> None:
        self.port = port
        super().__init__((host, 0), _Connection)


class _Connection(BaseRequestHandler):
    def handle(self) -> None:
        """Pass on both ways until both have ended."""
        assert isinstance(self.server, _Forwarder)
        with socket.create_connection(("127.0.0.1", self.server.port)) as other:
            back = Thread(target=_pump, args=(other, self.request), daemon=True)
            back.start()
            _pump(self.request, other)
            back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(2**16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@contextmanager
def _passed_on(host: str, port: int) -> Iterator[int]:
    with _Forwarder(host, port) as forwarder:
        Thread(target=forwarder.serve_forever, daemon=True).start()
        yield int(forwarder.server_address[1])
        forwarder.shutdown()
