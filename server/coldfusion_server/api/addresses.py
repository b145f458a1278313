"""Whose address a request comes from, for all that is counted by address."""

from __future__ import annotations

from starlette.types import Scope

from coldfusion_server.api.crowd import neighbourhood


def address_of(scope: Scope) -> str:
    """
    Return what a request is counted by: its sender's address, as far as proxies tell.

    Behind a proxy that `trusted_proxies` names it is the proxy's client, as uvicorn has found out;
    behind one that it does not name all clients are one.
    """
    client = scope.get("client")
    return neighbourhood(client[0]) if client else ""
