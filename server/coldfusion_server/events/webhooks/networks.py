"""
Which IP addresses a webhook may reach.

A webhook's receiver is chosen by a maintainer, and the request is sent from inside the operator's
network: nothing there may be reached by it unless the operator says so. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
# What may be reached beside the public internet.
Allowed = Sequence[Network]

# Of clouds: whoever may ask there gets the machine's credentials. Most are link-local anyway.
_METADATA = tuple(
    ip_network(text)
    for text in (
        "168.63.129.16/32", "100.100.100.200/32", "192.0.0.192/32", "fd00:ec2::/32",
        "fd20:ce::/32", "fd00:c1::/32", "fd00:42::/32",
    )
)  # fmt: skip
# Addresses of IPv6 that stand for one of IPv4, and at which bit that one begins.
_NAT64 = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))
_COMPATIBLE = IPv6Network("::/96")
# All of IPv6 that is given out, and what stands for public addresses of IPv4. The rest is nobody's:
# what a router makes of it, such as 127.0.0.1 of ::ffff:0:127.0.0.1, is its own affair.
_GIVEN_OUT = (IPv6Network("2000::/3"), IPv6Network("64:ff9b::/96"))
# For what is not used any more, for documentation, and for what a network does within itself.
_LEFT = (
    IPv6Network("3fff::/20"),
    IPv4Network("192.88.99.0/24"),
    IPv4Network("192.0.0.0/24"),
)


def parse_address(text: str) -> Address | None:
    """Return what `text` is the usual form of; null: of no address."""
    try:
        return ip_address(text)
    except ValueError:
        return None


def is_public(address: Address) -> bool:
    """Return whether an address is one of the public internet, in all that it may stand for."""
    return all(_is_public(one) for one in meanings(address))


def is_never(address: Address) -> bool:
    """Return whether an address is never reached: link-local, metadata, multicast, nobody's."""
    return any(_is_never(one) for one in meanings(address))


def may_reach(address: Address, allowed: Allowed) -> bool:
    """Return whether a webhook may reach an address."""
    if is_never(address):
        return False
    return all(_is_public(one) or _is_in(one, allowed) for one in _reached(address))


def may_reach_all(addresses: Sequence[Address], allowed: Allowed) -> bool:
    """Return whether a webhook may reach a name of these addresses: one bad one spoils it."""
    return bool(addresses) and all(may_reach(address, allowed) for address in addresses)


def meanings(address: Address) -> Iterator[Address]:
    """Yield an address, and those of IPv4 that it is another way to write."""
    yield address
    if isinstance(address, IPv6Address):
        yield from _inside(address)


def _reached(address: Address) -> Iterator[Address]:
    """Yield what is connected to: ``::ffff:127.0.0.1`` is 127.0.0.1, and nothing of its own."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    if mapped is not None:
        yield mapped
    else:
        yield from meanings(address)


def _inside(address: IPv6Address) -> Iterator[IPv4Address]:
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    if any(address in network for network in _NAT64):
        yield IPv4Address(int(address) & 0xFFFFFFFF)
    elif address in _COMPATIBLE and int(address) > 1:
        yield IPv4Address(int(address))


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return _is_public(address.ipv4_mapped)
    if isinstance(address, IPv6Address) and not _is_in(address, _GIVEN_OUT):
        return False
    return address.is_global and not _is_in(address, _LEFT) and not _is_never(address)


def _is_never(address: Address) -> bool:
    return (
        address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or (isinstance(address, IPv4Address) and address.is_reserved)
        or _is_in(address, _METADATA)
    )


def _is_in(address: Address, networks: Allowed) -> bool:
    # One of IPv4 is in none of IPv6.
    return any(address in network for network in networks)
