"""
One delivery: posted to an address that was checked, bounded in time and in size, led nowhere else.

The name is looked up once, and what is connected to is the very address that was looked at: a name
that leads elsewhere a moment later leads nobody astray.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cache

import anyio
import httpx

from coldfusion_server.events.webhooks.networks import (
    Address,
    Allowed,
    is_public,
    may_reach_all,
    parse_address,
)
from coldfusion_server.events.webhooks.urls import check_url, port_of
from coldfusion_shared.errors import InvalidRequest

CONNECT_SECONDS = 5.0
# For all of a delivery, from the name's address to the last byte of the answer.
SECONDS = 10.0
# An answer tells us its status; what else is in it is nobody's business here.
MOST_BYTES = 2**16
# So long it may take to come, once the status has.
READ_SECONDS = 1.0
# So many addresses of one name are tried.
MOST_ADDRESSES = 4

Resolver = Callable[[str, int], Sequence[str]]


@dataclass(frozen=True)
class Answer:
    """
    What came of a try.

    Attributes:
        status: of the answer; null: there was none.
        error: why it failed, in a sentence; null: it did not.
        seconds: how long it took.
        retry_after: the ``Retry-After`` of an answer that was a refusal.
    """

    status: int | None
    error: str | None
    seconds: float
    retry_after: str | None = None

    @property
    def went_well(self) -> bool:
        """Whether the receiver has it."""
        return self.error is None


@dataclass(frozen=True)
class Letter:
    """What is posted, and where to: ``url`` as it was given."""

    url: str
    body: bytes
    headers: Mapping[str, str]


class _Failed(Exception):
    """The try failed, for a reason that is one sentence."""


def resolve(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a name; raises `OSError`, or `UnicodeError` for what is none."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


@cache
def certificates() -> ssl.SSLContext:
    """Return what the certificates of receivers are checked with: SSL_CERT_FILE adds to it."""
    return httpx.create_ssl_context()


class Poster:
    """Posts deliveries. Safe to use from several threads, but from none that has an event loop."""

    def __init__(
        self,
        allowed: Allowed,
        *,
        resolver: Resolver = resolve,
        trusted: Callable[[], ssl.SSLContext] = certificates,
        seconds: float = SECONDS,
    ) -> None:
        """
        Prepare to post.

        Args:
            allowed: what may be reached beside the public internet.
            resolver: looks up names.
            trusted: what certificates are checked with.
            seconds: how long a delivery may take.
        """
        self._allowed = allowed
        self._resolver = resolver
        self._trusted = trusted
        self._seconds = seconds

    def post(self, letter: Letter) -> Answer:
        """Post once and return what came of it, whatever that is."""
        begun = time.monotonic()
        status, error, retry_after = self._post(letter)
        return Answer(status, error, time.monotonic() - begun, retry_after)

    def _post(self, letter: Letter) -> tuple[int | None, str | None, str | None]:
        try:
            response = anyio.run(self._ask, letter)
        except _Failed as failure:
            return None, str(failure), None
        except InvalidRequest as refusal:
            return None, refusal.message, None
        except TimeoutError:
            return None, f"It did not answer within {self._seconds:g} seconds.", None
        except (httpx.HTTPError, OSError) as error:
            return None, _told(error), None
        told = None if response.is_success else _refusal(response)
        return response.status_code, told, response.headers.get("Retry-After")

    async def _ask(self, letter: Letter) -> httpx.Response:
        """Return the answer, its body left unread but for what is on the way anyway."""
        with anyio.fail_after(self._seconds) as whole:
            url = check_url(letter.url, self._allowed)
            addresses = await self._addresses(url)
            for address in addresses[:-1]:
                try:
                    return await self._send(letter, url, address, whole.deadline)
                except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                    if _certificate_error(error) is not None:
                        raise
            return await self._send(letter, url, addresses[-1], whole.deadline)

    async def _addresses(self, url: httpx.URL) -> Sequence[Address]:
        """Return what may be connected to; raises `_Failed`."""
        host = url.raw_host.decode("ascii")
        try:
            # The thread of a resolver that hangs is left behind: it ends by itself.
            texts = await anyio.to_thread.run_sync(
                self._resolver, host.strip("[]"), port_of(url), abandon_on_cancel=True
            )
        except (OSError, UnicodeError):
            raise _Failed("The name of its server is not known.") from None
        found = [address for text in texts if (address := parse_address(text)) is not None]
        if not may_reach_all(found, self._allowed) or len(found) < len(texts):
            raise _Failed(
                "The name of its server leads to an address that webhooks do not reach: a private, "
                "local or reserved one."
            )
        if url.scheme == "http" and any(is_public(address) for address in found):
            raise _Failed("It is not an https:// one, and anybody on the way could read it.")
        return found[:MOST_ADDRESSES]

    async def _send(
        self, letter: Letter, url: httpx.URL, address: Address, deadline: float
    ) -> httpx.Response:
        headers = {**letter.headers, "Host": url.netloc.decode("ascii")}
        # For connecting, and for TLS: neither is cut off by the deadline, which would leave the
        # connection open behind it.
        patience = min(CONNECT_SECONDS, 0.45 * (deadline - anyio.current_time()))
        async with (
            httpx.AsyncClient(
                verify=self._trusted(),
                timeout=httpx.Timeout(None, connect=patience),
                follow_redirects=False,
                # No proxies, and no passwords from a .netrc: what the environment says is not for
                # addresses that others choose.
                trust_env=False,
                event_hooks={"response": [_lead_nowhere]},
            ) as client,
            client.stream(
                "POST",
                url.copy_with(host=str(address)),
                content=letter.body,
                headers=headers,
                # The certificate has to be the name's, and so has the server that is asked for.
                extensions={"sni_hostname": url.raw_host.decode("ascii").strip("[]")},
            ) as response,
        ):
            await _read_some(response)
            return response


async def _lead_nowhere(response: httpx.Response) -> None:
    """Forget where a redirect leads: httpx reads that, followed or not, and fails at what it is."""
    response.headers.pop("Location", None)


async def _read_some(response: httpx.Response) -> None:
    """Let a small answer end in good order; whatever becomes of the rest, its status has come."""
    left = MOST_BYTES
    with anyio.move_on_after(READ_SECONDS):
        try:
            async for block in response.aiter_raw():
                left -= len(block)
                if left < 0:
                    return
        except httpx.HTTPError:
            return


def seconds_of(retry_after: str | None, now: datetime) -> float | None:
    """Return the seconds that a ``Retry-After`` asks for; null: none, or it cannot be read."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        at = parsedate_to_datetime(text)
        # A date without a zone is in UTC, as HTTP has it.
        return max(0.0, (at.replace(tzinfo=at.tzinfo or now.tzinfo) - now).total_seconds())
    except (ValueError, OverflowError, TypeError):
        return None


def _refusal(response: httpx.Response) -> str:
    if response.is_redirect:
        return (
            f"It answered with status {response.status_code}, a redirect, and those are not "
            "followed: give the webhook the new address."
        )
    return f"It answered with status {response.status_code}."


def _told(error: BaseException) -> str:
    certificate = _certificate_error(error)
    if certificate is not None:
        return f"Its certificate is not to be trusted: {certificate.verify_message}."
    if isinstance(error, httpx.ConnectTimeout):
        return "No connection could be made in time."
    if isinstance(error, httpx.ConnectError):
        return "No connection could be made."
    return "It broke the connection off, or what it answered is no HTTP."


def _certificate_error(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    """Return what was wrong with a certificate; httpx has it behind its own error."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error
        error = error.__cause__ or error.__context__
    return None
