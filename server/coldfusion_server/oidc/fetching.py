"""Requests to the provider: bounded in time and in size, and never led elsewhere."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn

import anyio
import httpx
import structlog

from coldfusion_shared import __version__
from coldfusion_shared.errors import ProviderUnavailable

log = structlog.get_logger(__name__)

# For all of an answer, from the name's address to the last byte.
SECONDS = 10.0
# Keys of the largest providers are a tenth of it.
MOST_BYTES = 2**18
_HEADERS = {
    "Accept": "application/json",
    # What is packed can be a thousand times as large as what was sent.
    "Accept-Encoding": "identity",
    "User-Agent": f"coldfusion-server/{__version__}",
}


@dataclass(frozen=True)
class Reply:
    """An answer: its status, and the JSON object that it holds."""

    status: int
    content: Mapping[str, Any]


class Fetcher:
    """Asks the provider. Safe to use from several threads, but from none that has an event loop."""

    def __init__(self, seconds: float = SECONDS) -> None:
        """Wait for `seconds` at most for each answer."""
        self._seconds = seconds

    def get(self, url: str) -> Mapping[str, Any]:
        """Return the JSON object at `url`; raises `ProviderUnavailable`."""
        reply = self._fetch("GET", url)
        if reply.status != 200:
            _fail(url, f"status {reply.status}")
        return reply.content

    def post(self, url: str, form: Mapping[str, str], auth: tuple[str, str] | None = None) -> Reply:
        """
        Send a form and return the answer, which may be a refusal.

        Args:
            url: where to.
            form: its fields.
            auth: name and password to send along.

        Raises:
            ProviderUnavailable: there is none, or it is none.
        """
        reply = self._fetch("POST", url, form, auth)
        if reply.status not in (200, 400, 401, 403):
            _fail(url, f"status {reply.status}")
        return reply

    def _fetch(
        self,
        method: str,
        url: str,
        form: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
    ) -> Reply:
        try:
            # A loop of its own: nothing else bounds the whole of an answer that comes in drops.
            return anyio.run(self._ask, method, url, form, auth)
        except (TimeoutError, httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            _fail(url, repr(error))

    async def _ask(
        self,
        method: str,
        url: str,
        form: Mapping[str, str] | None,
        auth: tuple[str, str] | None,
    ) -> Reply:
        with anyio.fail_after(self._seconds):
            async with (
                httpx.AsyncClient(
                    verify=self._certificates, timeout=None, follow_redirects=False
                ) as client,
                client.stream(method, url, data=form, auth=auth, headers=_HEADERS) as response,
            ):
                if response.is_redirect:
                    _fail(url, "a redirect, which is not followed")
                content = bytearray()
                async for block in response.aiter_raw():
                    content += block
                    if len(content) > MOST_BYTES:
                        _fail(url, f"more than {MOST_BYTES} bytes")
                return Reply(response.status_code, _parsed(url, bytes(content)))

    @cached_property
    def _certificates(self) -> ssl.SSLContext:
        return httpx.create_ssl_context()


def _parsed(url: str, content: bytes) -> Mapping[str, Any]:
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        _fail(url, "no JSON object")
    return parsed


def _fail(url: str, why: str) -> NoReturn:
    """Tell the log what the provider did, and whoever wants to sign in that it did not work."""
    log.warning("sign-in provider", url=url, why=why)
    raise ProviderUnavailable(
        "The sign-in provider does not answer as it should.",
        hint="Try again in a while; if it stays so, tell the operator of this Repository, whose "
        "log has the details.",
    )
