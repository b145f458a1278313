"""
What every request passes before the application sees it: id, log, identity, size.

FastAPI reads a JSON body to its end before any dependency runs, so who may not send one has to be
turned away here, before the first byte.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from inspect import isawaitable

import anyio
import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coldfusion_server import tracing
from coldfusion_server.api.addresses import address_of
from coldfusion_server.api.admission import Admission, Admit
from coldfusion_server.api.crowd import Crowd
from coldfusion_server.api.guessing import Guesses
from coldfusion_server.api.http_metrics import HttpMetrics, method_of, route_of
from coldfusion_server.api.lengths import content_length
from coldfusion_server.api.rate_limits import RateLimits
from coldfusion_server.api.request_body import SAFE_METHODS, RequestBody
from coldfusion_server.api.responses import SHOWN_PATH
from coldfusion_server.api.session import session_token_id
from coldfusion_server.services.context import Context
from coldfusion_server.services.tokens import Principal, principal_of
from coldfusion_shared.errors import ColdFusionError, TooLarge, Unauthenticated

log = structlog.get_logger("coldfusion.http")

Refuse = Callable[[Request, ColdFusionError], Response | Awaitable[Response]]

# Here the URL itself is the credential.
UPLOADS = "/v1/uploads/"
# The browser's own forms bring no token along, nor does an invitation or who signs in; they are as
# small as this, in bytes.
FORMS = {"/login": 4096, "/logout": 4096, "/v1/join": 4096, "/v1/sign-in": 16_384}
# Below this the dashboard's decisions are posted, by forms alone, as large as this. They come with
# a cookie, and with a number of its session that no other site can know: the dashboard checks it.
DECISIONS = "/decide/"
DECISION_BYTES = 65_536
FORM_TYPE = "application/x-www-form-urlencoded"
QUIET = frozenset({"/healthz", "/readyz"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

# For what is no page: whatever the bytes are, a browser that shows them runs and loads nothing.
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # What one visitor may see nobody on the way may keep.
    "Cache-Control": "private, no-cache",
}
# Who hangs up is told nothing; the log has nginx's number for it.
HUNG_UP = 499


class Gate:
    """Pure ASGI middleware, so that bodies stream through untouched where they should."""

    def __init__(
        self,
        app: ASGIApp,
        context: Context,
        rates: RateLimits,
        guesses: Guesses,
        refuse: Refuse,
        admit: Admit,
        metrics: HttpMetrics,
    ) -> None:
        """
        Stand before an application.

        Args:
            app: what stands behind.
            context: the services' surroundings.
            rates: how often somebody may ask.
            guesses: who has to wait for having tried wrong tokens.
            refuse: answers as the application does: people get pages, hub clients what they know.
            admit: says what is different with some requests.
            metrics: counts what passes, and what does not.
        """
        self.app = app
        self.admit = admit
        self.metrics = metrics
        self.refuse = refuse
        self.context = context
        self.rates = rates
        self.guesses = guesses
        self.crowd = Crowd(context.settings.address_requests)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it here."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        _drop_quoted_cookies(scope)
        headers = Headers(scope=scope)
        with self.metrics.in_flight(), tracing.request(scope["path"], headers) as served:
            await self._serve(scope, receive, send, served)

    async def _serve(
        self, scope: Scope, receive: Receive, send: Send, served: tracing.Served
    ) -> None:
        request_id = _request_id(Headers(scope=scope))
        scope.setdefault("state", {})["request_id"] = request_id
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        body = RequestBody(receive, scope, self.context.settings.part_bytes)
        answer = _Answer(send, request_id, body)
        started = time.perf_counter()
        try:
            await self._pass(scope, body.receive, answer.send)
        except ClientDisconnect:
            answer.status = answer.status or HUNG_UP
        except Exception as error:
            # It was answered with status 500, unless an answer had begun.
            answer.status = answer.status or 500
            log.error("fault", error=repr(error))
            raise
        finally:
            # Who is cut off while he waits is told nothing, either.
            answer.status = answer.status or HUNG_UP
            _log(scope, answer.status, time.perf_counter() - started)
            began = None if answer.began is None else answer.began - started
            self.metrics.count(scope, answer.status, began, body.arrived, answer.sent)
            served.end(method_of(scope), route_of(scope), answer.status)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        admission = self.admit(scope) or Admission(streams=scope["path"].startswith(UPLOADS))
        with ExitStack() as stack:
            try:
                self.rates.count(scope)
                stack.enter_context(self.crowd.place(address_of(scope)))
                principal = None
                if not admission.own_tokens:
                    principal = await anyio.to_thread.run_sync(self._principal, scope)
                self.rates.count_token(scope, principal)
                scope["state"]["principal"] = principal
                if scope["method"] not in SAFE_METHODS and not admission.streams:
                    receive = await self._small_body(scope, receive, principal, admission)
            except ColdFusionError as error:
                structlog.contextvars.bind_contextvars(address=address_of(scope))
                scope["state"]["refused"] = True
                answer = self.refuse(Request(scope), error)
                response = await answer if isawaitable(answer) else answer
                await response(scope, receive, send)
                return
            await self.app(scope, receive, send)

    def _principal(self, scope: Scope) -> Principal | None:
        headers = Headers(scope=scope)
        value = headers.get("authorization")
        if value is not None:
            scheme, _, token = value.partition(" ")
            if scheme.lower() != "bearer":
                raise Unauthenticated("Send the token as: Authorization: Bearer TOKEN.")
            return self.guesses.authenticate(self.context, address_of(scope), token.strip())
        token_id = session_token_id(self.context, headers.get("cookie", ""))
        if token_id is None:
            return None
        try:
            return principal_of(self.context, token_id)
        except ColdFusionError:
            return None  # A session that has ended reads as a visitor, who may log in again.

    async def _small_body(
        self, scope: Scope, receive: Receive, principal: Principal | None, admission: Admission
    ) -> Receive:
        headers = Headers(scope=scope)
        form = _form_bytes(scope, headers)
        known = principal is not None and "authorization" in headers
        if form is None and not known and not admission.visitors:
            # A browser's cookie is no right to write: other sites could make it be sent.
            raise Unauthenticated(
                "This needs a token.",
                hint="Log in with: coldfusion-client login URL, or send Authorization: Bearer "
                "TOKEN.",
            )
        usual = admission.body_bytes or self.context.settings.max_body_bytes
        limit = usual if form is None else form
        if (content_length(headers) or 0) > limit:
            raise _too_large(limit)
        content = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            content += message.get("body", b"")
            if len(content) > limit:
                raise _too_large(limit)
            if not message.get("more_body", False):
                return _replay(bytes(content), receive)


class _Answer:
    """Adds headers to the answer, and remembers its status, its begin and its bytes."""

    def __init__(self, send: Send, request_id: str, body: RequestBody) -> None:
        self._send = send
        self._body = body
        self.request_id = request_id
        self.status = 0
        self.began: float | None = None
        self.sent = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.began = time.perf_counter()
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self.request_id
            if self._body.is_endless:
                headers["Connection"] = "close"
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
        else:
            self.sent += len(message.get("body", b""))
        await self._send(message)


def _form_bytes(scope: Scope, headers: Headers) -> int | None:
    """Return how large the browser's form may be; null: this is none."""
    if scope["path"].startswith(DECISIONS):
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        return DECISION_BYTES if scope["method"] == "POST" and kind == FORM_TYPE else None
    return FORMS.get(scope["path"])


def _drop_quoted_cookies(scope: Scope) -> None:
    """
    Take out cookies that Python's own reader, which FastAPI asks, would unquote.

    Until Python 3.11.10 a header full of backslashes keeps it busy for a minute, in which nobody
    else is served. Ours need no quotes.
    """
    scope["headers"] = [
        (name, value) for name, value in scope["headers"] if name != b"cookie" or b"\\" not in value
    ]


def _request_id(headers: Headers) -> str:
    """Take the caller's id if it is harmless in a log, else make one."""
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body is larger than {limit} bytes.")


def _replay(content: bytes, receive: Receive) -> Receive:
    left: list[Message] = [{"type": "http.request", "body": content, "more_body": False}]

    async def replayed() -> Message:
        return left.pop() if left else await receive()

    return replayed


def _log(scope: Scope, status: int, seconds: float) -> None:
    """One line a request. The path alone: a query string may hold a signature."""
    if scope["path"] in QUIET:
        return
    write = log.warning if status >= 500 else log.info
    write(
        "request",
        method=scope["method"][:SHOWN_PATH],
        path=scope["path"][:SHOWN_PATH],
        status=status,
        ms=round(seconds * 1000, 1),
    )
