"""Which addresses a webhook may have, and how much of one is shown. Pure."""

from __future__ import annotations

import re
from typing import NoReturn

import httpx

from coldfusion_server.events.webhooks.networks import Allowed, may_reach, parse_address
from coldfusion_shared.errors import InvalidRequest

# Ports below 1024 are those of mail, of shells and of the like, which a request could be taken for
# a command by.
FIRST_FREE_PORT = 1024
_DEFAULTS = {"http": 80, "https": 443}
# What ends like this is a number to old resolvers: 0x7f.1 is 127.0.0.1, and so is 2130706433.
_NUMBER = re.compile(r"(.*\.)?(0[xX][0-9a-fA-F]*|[0-9]+)\.?")
_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
_DISPATCHES = re.compile(r"(/[^/]+)*/repos/[^/]+/[^/]+/dispatches")


def check_url(text: str, allowed: Allowed) -> httpx.URL:
    """
    Return the address of a webhook, as it is connected to.

    Args:
        text: as it was given.
        allowed: what may be reached beside the public internet.

    Raises:
        InvalidRequest: a webhook cannot have it; the message does not repeat it.
    """
    try:
        url = httpx.URL(text)
        # Looked at here: a name in another script may turn out to be none.
        host = url.host
    except (httpx.InvalidURL, ValueError):
        _refuse("is no URL.")
    if url.scheme not in _DEFAULTS or not host:
        _refuse("does not begin with https:// and the name of a server.")
    if url.userinfo:
        _refuse(
            "has a name or a password in it.",
            "Send them as an Authorization header: that is never shown, and is kept encrypted.",
        )
    if url.fragment:
        _refuse("has a # in it, and what stands behind that is never sent.")
    if url.scheme == "http" and not allowed:
        _refuse("is not an https:// one, and anybody on the way could read what is sent.")
    port = port_of(url)
    if port != _DEFAULTS[url.scheme] and not FIRST_FREE_PORT <= port <= 65535:
        _refuse(f"names port {port}; it may be {_DEFAULTS[url.scheme]}, or one from 1024 on.")
    _check_host(url.raw_host.decode("ascii").strip("[]"), allowed)
    return url


def check_dispatches(url: httpx.URL) -> None:
    """Raise `InvalidRequest` unless GitHub takes a repository_dispatch there."""
    if not _DISPATCHES.fullmatch(url.path):
        _refuse(
            "is not where GitHub takes a repository_dispatch.",
            "It is https://api.github.com/repos/OWNER/REPOSITORY/dispatches",
        )


def port_of(url: httpx.URL) -> int:
    """Return the port that is connected to."""
    return url.port if url.port is not None else _DEFAULTS[url.scheme]


def origin_of(url: httpx.URL) -> str:
    """Return scheme, host and port: what may stand in logs."""
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


def shown(url: httpx.URL) -> str:
    """
    Return the address without what stands behind a question mark, which is often a secret.

    Escapes stay escapes: `url.path` would make line ends and the terminal's commands of them.
    """
    return origin_of(url) + url.raw_path.partition(b"?")[0].decode("ascii")


def _check_host(host: str, allowed: Allowed) -> None:
    address = parse_address(host)
    if address is None and _NUMBER.fullmatch(host):
        _refuse("names its server by a number that is no IP address.")
    if address is None and not _NAME.fullmatch(host):
        _refuse("names a server that there cannot be.")
    if "%" in host:
        _refuse("names a network card of this machine.")
    if address is not None and not may_reach(address, allowed):
        _refuse(
            "is one that webhooks do not reach: a private, local or reserved address.",
            "The operator can allow private ones with the setting webhook_private.",
        )


def _refuse(what: str, hint: str | None = None) -> NoReturn:
    raise InvalidRequest(
        f"The address of a webhook cannot be used: it {what}",
        hint=hint or "Give it like https://ci.example.org/hooks/coldfusion",
    )
