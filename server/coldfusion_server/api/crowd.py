"""How much one address may have at a time: nobody takes the place of all others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv6Network, ip_address

from coldfusion_shared.errors import RateLimited

# What one subscriber gets of IPv6, in bits.
SUBSCRIBER = 64
RETRY_SECONDS = 5


class Crowd:
    """Counts what is under way, by address. Of one thread, the event loop's."""

    def __init__(self, limit: int) -> None:
        """Let each address have `limit` at a time."""
        self.limit = limit
        self._count: Counter[str] = Counter()

    def enter(self, address: str) -> bool:
        """Count one more; return false, and count nothing, where there are too many by now."""
        if self._count[address] >= self.limit:
            return False
        self._count[address] += 1
        return True

    def leave(self, address: str) -> None:
        """Count one less."""
        self._count[address] -= 1
        if not self._count[address]:
            del self._count[address]

    @contextmanager
    def place(self, address: str) -> Iterator[None]:
        """Count one while the context lasts; raises `RateLimited`."""
        if not self.enter(address):
            raise RateLimited(
                f"{self.limit} requests from your address are under way.",
                hint="Try again when some of them have ended.",
                retry_after=RETRY_SECONDS,
            )
        try:
            yield
        finally:
            self.leave(address)


def neighbourhood(host: str) -> str:
    """Return what counts as one address: of IPv6, where everybody has 2**64, the network."""
    try:
        address = ip_address(host)
    except ValueError:
        return host  # A proxy may say "unknown", and a socket of the system has no address.
    if address.version == 4:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Network((int(address) >> SUBSCRIBER << SUBSCRIBER, SUBSCRIBER)))
