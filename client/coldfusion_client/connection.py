"""Requests to one server: the token, the retries, and failures as errors of our tree."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import replace
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx

from coldfusion_client.answers import error_of, passes_by, retry_after
from coldfusion_client.patience import AT_FIRST, ONCE_MET, Patience, Transient
from coldfusion_shared import __version__
from coldfusion_shared.errors import ColdFusionError, ServerError, ServerUnreachable

USER_AGENT = f"coldfusion-client/{__version__}"
MAX_REDIRECTS = 5
# A redirect leads to a fresh URL each time; refused again, something else is wrong with it.
REFUSALS = 3
# No error needs more words, and nobody's may fill the memory.
ERROR_BYTES = 2**16
_KEPT = ("Content-Type", "Date", "Retry-After")
CONNECT_SECONDS = 10.0
READ_SECONDS = 30.0


class Connection:
    """One server, and who we are there. Safe to use from several threads."""

    def __init__(
        self,
        server: str,
        token: str | None = None,
        *,
        transport: httpx.BaseTransport | None = None,
        patience: Patience | None = None,
        limit: httpx.Timeout | None = None,
    ) -> None:
        """
        Connect to nothing yet.

        Args:
            server: its URL, without a slash at the end.
            token: sent to this server and to nobody else.
            transport: takes the place of the network, in tests.
            patience: how long to try again; little at first and more once the server answered.
            limit: how long to wait for an answer; null: as long as people on slow lines need.
        """
        self.server = server
        self._token = token
        self._client = httpx.Client(
            transport=transport,
            timeout=limit or timeout(),
            headers={"User-Agent": USER_AGENT},
            # The token is all that the server needs, and other hosts need nothing.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        )
        self._patience = patience
        self._notify = ONCE_MET.notify
        self._met = False

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @property
    def patience(self) -> Patience:
        """How long a failing request is tried again by now."""
        chosen = self._patience or (ONCE_MET if self._met else AT_FIRST)
        return replace(chosen, notify=self._notify)

    def on_retry(self, notify: Callable[[str], None]) -> None:
        """Call `notify` with a sentence whenever a request is going to be tried again."""
        self._notify = notify

    def once(self) -> Connection:
        """Return the same connection, but one that tries nothing twice."""
        other = copy(self)
        other._patience = Patience(tries=1)
        return other

    def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request of the API, again if need be, and return the answer, which is good."""
        url = self.server + path
        response = self.patience.persist(lambda: self._send(self._request(method, url, **options)))
        if response.has_redirect_location:
            # Not followed: the token is for the address that the person typed.
            raise ServerError(
                f"{self.server} has moved to {response.headers['Location']}.",
                hint="Log in at the new address: coldfusion-client login URL",
            )
        return response

    @contextmanager
    def stream(self, path: str, **options: Any) -> Iterator[httpx.Response]:
        """
        Open an answer to be read as it comes, here or where the server redirects to.

        Raises:
            Transient: it could not be opened.
        """
        response = self._follow(self.server + path, options)
        try:
            yield response
        finally:
            response.close()

    def put(self, url: str, *, content: Iterable[bytes], headers: dict[str, str]) -> None:
        """
        Send something to a signed URL, once and without the token.

        Args:
            url: the URL, absolute or of the server.
            content: the body, iterated again where a redirect leads elsewhere.
            headers: with its length.

        Raises:
            Transient: it did not arrive.
            UploadRefused: the URL is wrong or expired.
        """
        target = httpx.URL(self.server).join(url)
        for _ in range(MAX_REDIRECTS):
            request = self._client.build_request("PUT", target, content=content, headers=headers)
            response = self._send(request, stream=True)
            with suppress(httpx.RequestError):
                _beginning(response)  # read and not just closed, the connection can be used again
            if response.is_success:
                return
            target = _next(response)
        raise ServerError(f"{target.host} sends uploads around in circles.")

    def _follow(self, url: str, options: dict[str, Any]) -> httpx.Response:
        target = httpx.URL(url)
        for _ in range(MAX_REDIRECTS):
            response = self._open(self._request("GET", str(target), **options))
            if response.is_success:
                return response
            with suppress(httpx.RequestError):
                _beginning(response)
            target = _next(response)
        raise ServerError(f"{self.server} sends downloads around in circles.")

    def _open(self, request: httpx.Request) -> httpx.Response:
        try:
            return self._send(request, stream=True)
        except ServerUnreachable:
            raise
        except ColdFusionError as error:
            if self._is_ours(request.url):
                raise
            # A signed URL that has expired; asked again, the server gives a fresh one.
            raise Transient(error, tries=REFUSALS) from error

    def _request(self, method: str, url: str, **options: Any) -> httpx.Request:
        request = self._client.build_request(method, url, **options)
        if self._token is not None and self._is_ours(request.url):
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request

    def _is_ours(self, url: httpx.URL) -> bool:
        return _origin(url) == _origin(httpx.URL(self.server))

    def _send(self, request: httpx.Request, *, stream: bool = False) -> httpx.Response:
        try:
            response = self._client.send(request, stream=stream)
            if not (response.is_success or response.has_redirect_location) and stream:
                response = _head(response)
        except httpx.RequestError as error:
            raise unreachable(request.url, error) from error
        self._met = True
        if response.is_success or response.has_redirect_location:
            return response
        failure = error_of(response)
        if passes_by(response, failure):
            raise Transient(failure, retry_after(response))
        raise failure


def timeout(read: float = READ_SECONDS) -> httpx.Timeout:
    """Return limits that wait `read` seconds for the next bytes of an answer."""
    return httpx.Timeout(read, connect=CONNECT_SECONDS, pool=None)


def unreachable(url: httpx.URL, error: httpx.RequestError) -> Transient | ServerUnreachable:
    """Return what to raise for a request to `url` that got no answer, or only half of one."""
    host = str(url.copy_with(path="/", query=None)).rstrip("/")
    if isinstance(error.__cause__, ssl.SSLError) or "CERTIFICATE_VERIFY" in str(error):
        return ServerUnreachable(
            f"There is no secure connection to {host} ({error}).",
            hint="Name your organisation's certificates with SSL_CERT_FILE=/path/to/ca.pem, "
            "and check whether the address begins with https or http.",
        )
    reason = str(error) or type(error).__name__
    return Transient(
        ServerUnreachable(
            f"{host} does not answer ({reason}).",
            hint="Check the address, the network and the server. The same command goes on where "
            "it stopped.",
        )
    )


def _head(response: httpx.Response) -> httpx.Response:
    """Return a failed answer with the beginning of its body alone, and closed."""
    content = _beginning(response)
    kept = {name: response.headers[name] for name in _KEPT if name in response.headers}
    return httpx.Response(
        response.status_code, headers=kept, content=content, request=response.request
    )


def _beginning(response: httpx.Response) -> bytes:
    """Read an answer's body, but not all of an endless one, and close it."""
    content = b""
    try:
        for block in response.iter_bytes():
            content += block[: ERROR_BYTES - len(content)]
            if len(content) == ERROR_BYTES:
                break
    finally:
        response.close()
    return content


def _next(response: httpx.Response) -> httpx.URL:
    """Return where a redirect leads to."""
    target = response.url.join(response.headers["Location"])
    if response.url.scheme == "https" and target.scheme != "https":
        raise ServerError(
            f"{response.url.host} leads from https to {target.scheme}://{target.host}, where "
            "anybody in between could read along; not followed.",
            hint="Tell the server's operator.",
        )
    return target


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme)
