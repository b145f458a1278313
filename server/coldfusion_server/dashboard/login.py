"""
A token becomes a session cookie, and ends again.

The cookie shows pages and the event stream to its holder; the gate takes no writing on its word.
These two forms are all that is posted without a token, so they look at where the post comes from:
another site must neither log a visitor out nor log one in under a name that is not theirs.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, RedirectResponse, Response

from coldfusion_server.api.dependencies import BaseUrl, Ctx
from coldfusion_server.api.session import COOKIE, LIFETIME, make_session
from coldfusion_server.dashboard.rendering import page
from coldfusion_server.services.tokens import authenticate
from coldfusion_shared.errors import ColdFusionError, Forbidden, InvalidRequest

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)

# A path of ours: "//elsewhere" and "/\elsewhere" lead a browser away.
_PATH = re.compile(r"/(?![/\\])[\x21-\x7e]*")


@router.api_route("/login", methods=["GET", "HEAD"])
def login_form(request: Request, next: str = "/") -> HTMLResponse:
    """Show the form."""
    return page(request, "login.html", next=_safe(next), problem=None)


@router.post("/login")
async def login(request: Request, ctx: Ctx, url: BaseUrl) -> Response:
    """Begin a session for the holder of the token in the form."""
    _check_same_site(request, url)
    form = await _form(request)
    target = _safe(form.get("next", "/"))
    try:
        principal = await run_in_threadpool(authenticate, ctx, form.get("token", "").strip())
    except ColdFusionError as error:
        return page(request, "login.html", status=401, next=target, problem=error)
    response = RedirectResponse(target, 303)
    response.set_cookie(
        COOKIE,
        make_session(ctx, principal.token_id),
        max_age=int(LIFETIME.total_seconds()),
        httponly=True,
        samesite="strict",
        secure=_is_https(request, url),
    )
    return response


@router.post("/logout")
def logout(request: Request, url: BaseUrl) -> Response:
    """End the session in this browser."""
    _check_same_site(request, url)
    response = RedirectResponse("/", 303)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=_is_https(request, url))
    return response


def _check_same_site(request: Request, url: str) -> None:
    """Refuse a form that was sent from a page of another site; programs send neither header."""
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    hosts = (request.headers.get("host"), urlsplit(url).netloc)
    foreign = site not in (None, "same-origin", "none")
    if foreign or (origin is not None and urlsplit(origin).netloc not in hosts):
        raise Forbidden(
            "This form was sent from another site.", hint="Open the login page here and try again."
        )


async def _form(request: Request) -> dict[str, str]:
    """Read a small form; the gate has bounded the body."""
    try:
        fields = parse_qs((await request.body()).decode(), max_num_fields=10)
    except ValueError:
        raise InvalidRequest("The form cannot be read.") from None
    return {name: values[0] for name, values in fields.items()}


def _safe(target: str) -> str:
    return target if _PATH.fullmatch(target) else "/"


def _is_https(request: Request, url: str) -> bool:
    return request.url.scheme == "https" or url.startswith("https:")
