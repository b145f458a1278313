"""
What every request passes before the application sees it: id, log, identity, size.

FastAPI reads a JSON body to its end before any dependency runs, so who may not send one has to be
turned away here, before the first byte.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Sequence

import anyio
import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coldfusion_server.api.lengths import content_length
from coldfusion_server.api.responses import problem_response
from coldfusion_server.api.session import session_token_id
from coldfusion_server.services.context import Context
from coldfusion_server.services.tokens import Principal, authenticate, principal_of
from coldfusion_shared.errors import ColdFusionError, TooLarge, Unauthenticated

log = structlog.get_logger("coldfusion.http")

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
# Here the URL itself is the credential.
UPLOADS = "/v1/uploads/"
# The browser's own forms bring no token along; they are as small as this, in bytes.
FORMS = frozenset({"/login", "/logout"})
FORM_BYTES = 4096
# So much of a refused body is read and dropped; after more the connection is closed.
DRAINED_BYTES = 64 * 2**20
QUIET = frozenset({"/healthz", "/readyz"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'self'",
}


class Gate:
    """Pure ASGI middleware, so that bodies stream through untouched where they should."""

    def __init__(self, app: ASGIApp, context: Context) -> None:
        """Stand before `app`."""
        self.app = app
        self.context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it here."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(Headers(scope=scope))
        scope.setdefault("state", {})["request_id"] = request_id
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        body = _Body(receive, Headers(scope=scope), self.context.settings.part_bytes)
        answer = _Answer(send, request_id, body)
        started = time.perf_counter()
        try:
            await self._pass(scope, body.receive, answer.send)
        except Exception as error:
            # Answered further out as status 500; here the log still knows the request's id.
            answer.status = answer.status or 500
            log.error("fault", error=repr(error))
            raise
        finally:
            _log(scope, answer.status, time.perf_counter() - started)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            principal = await anyio.to_thread.run_sync(self._principal, Headers(scope=scope))
            scope["state"]["principal"] = principal
            if scope["method"] not in SAFE_METHODS and not scope["path"].startswith(UPLOADS):
                receive = await self._small_body(scope, receive, principal)
        except ColdFusionError as error:
            response = problem_response(error, scope["path"], scope["state"]["request_id"])
            await response(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _principal(self, headers: Headers) -> Principal | None:
        value = headers.get("authorization")
        if value is not None:
            scheme, _, token = value.partition(" ")
            if scheme.lower() != "bearer":
                raise Unauthenticated("Send the token as: Authorization: Bearer TOKEN.")
            return authenticate(self.context, token.strip())
        token_id = session_token_id(self.context, headers.get("cookie", ""))
        if token_id is None:
            return None
        try:
            return principal_of(self.context, token_id)
        except ColdFusionError:
            return None  # A session that has ended reads as a visitor, who may log in again.

    async def _small_body(
        self, scope: Scope, receive: Receive, principal: Principal | None
    ) -> Receive:
        headers = Headers(scope=scope)
        form = scope["path"] in FORMS
        if not form and (principal is None or "authorization" not in headers):
            # A browser's cookie is no right to write: other sites could make it be sent.
            raise Unauthenticated(
                "This needs a token.",
                hint="Log in with: coldfusion-client login URL, or send Authorization: Bearer "
                "TOKEN.",
            )
        limit = FORM_BYTES if form else self.context.settings.max_body_bytes
        if (content_length(headers) or 0) > limit:
            raise _too_large(limit)
        messages: list[Message] = []
        size = 0
        while True:
            message = await receive()
            messages.append(message)
            size += len(message.get("body", b""))
            if size > limit:
                raise _too_large(limit)
            if not message.get("more_body", False):
                return _replay(messages, receive)


class _Body:
    """Knows whether the request's body was read to its end, and what is to be done if not."""

    def __init__(self, receive: Receive, headers: Headers, part_bytes: int) -> None:
        self._receive = receive
        self._has_length = "content-length" in headers
        try:
            self._length = content_length(headers) or 0
        except ColdFusionError:
            self._has_length, self._length = False, 1
        self._ended = self._has_length and not self._length
        self._ended = self._ended or not (self._has_length or "transfer-encoding" in headers)
        self._drained = max(DRAINED_BYTES, 4 * part_bytes)

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            self._ended = True
        return message

    @property
    def is_endless(self) -> bool:
        """
        Whether nobody should read on.

        What is left of an honest body is read and dropped, because its sender would not see the
        answer before: a connection that is closed in its face is all that it would see.
        """
        return not self._ended and not (self._has_length and self._length <= self._drained)


class _Answer:
    """Adds headers to the answer and remembers its status for the log."""

    def __init__(self, send: Send, request_id: str, body: _Body) -> None:
        self._send = send
        self._body = body
        self.request_id = request_id
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self.request_id
            if self._body.is_endless:
                headers["Connection"] = "close"
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
        await self._send(message)


def _request_id(headers: Headers) -> str:
    """Take the caller's id if it is harmless in a log, else make one."""
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body is larger than {limit} bytes.")


def _replay(messages: Sequence[Message], receive: Receive) -> Receive:
    left = iter(messages)

    async def replayed() -> Message:
        message = next(left, None)
        return await receive() if message is None else message

    return replayed


def _log(scope: Scope, status: int, seconds: float) -> None:
    """One line a request. The path alone: a query string may hold a signature."""
    if scope["path"] in QUIET:
        return
    write = log.warning if status >= 500 else log.info
    write(
        "request",
        method=scope["method"],
        path=scope["path"],
        status=status,
        ms=round(seconds * 1000, 1),
    )
