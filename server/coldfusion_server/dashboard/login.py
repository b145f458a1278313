"""
A token becomes a session cookie, and ends again.

The cookie shows pages and the event stream to its holder, and nothing is written on its word alone:
the forms in `decisions` bring a number of their session along. These two forms need no token, so
they look at where the post comes from: another site must neither log a visitor out nor log one in
under a name that is not theirs.
"""

from __future__ import annotations

import re

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, RedirectResponse, Response

from coldfusion_server.api.dependencies import Address, BaseUrl, Ctx, Guessing
from coldfusion_server.api.errors import STATUS, headers
from coldfusion_server.api.session import COOKIE, LIFETIME, make_session, session_token_id
from coldfusion_server.dashboard.posting import check_same_site, read_form
from coldfusion_server.dashboard.rendering import page
from coldfusion_server.services.context import Context
from coldfusion_server.services.sign_in import end_session
from coldfusion_shared.errors import ColdFusionError

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)

HINT = "Open the login page here and try again."
# A path of ours: "//elsewhere" and "/\elsewhere" lead a browser away.
_PATH = re.compile(r"/(?![/\\])[\x21-\x7e]*")


@router.api_route("/login", methods=["GET", "HEAD"])
def login_form(request: Request, ctx: Ctx, next: str = "/") -> HTMLResponse:
    """Show the form."""
    return login_page(request, ctx, path_of_ours(next))


@router.post("/login")
async def login(
    request: Request, ctx: Ctx, url: BaseUrl, guesses: Guessing, address: Address
) -> Response:
    """Begin a session for the holder of the token in the form."""
    check_same_site(request, url, HINT)
    form = {name: values[0] for name, values in (await read_form(request, 10)).items()}
    target = path_of_ours(form.get("next", "/"))
    try:
        token = form.get("token", "").strip()
        principal = await run_in_threadpool(guesses.authenticate, ctx, address, token)
    except ColdFusionError as error:
        return login_page(request, ctx, target, problem=error)
    response = RedirectResponse(target, 303)
    set_session(request, ctx, response, principal.token_id, url)
    return response


@router.post("/logout")
def logout(request: Request, ctx: Ctx, url: BaseUrl) -> Response:
    """End the session in this browser; a token that was made for it alone ends, too."""
    check_same_site(request, url, HINT)
    token_id = session_token_id(ctx, request.headers.get("cookie", ""))
    if token_id is not None:
        end_session(ctx, token_id)
    response = RedirectResponse("/", 303)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=is_https(request, url))
    return response


def login_page(
    request: Request,
    ctx: Context,
    target: str,
    *,
    problem: ColdFusionError | None = None,
    refusal: ColdFusionError | None = None,
) -> HTMLResponse:
    """
    Return the page of all ways to log in.

    Args:
        request: the browser's.
        ctx: the service's surroundings.
        target: a path of ours, to which they lead.
        problem: what was wrong with a token.
        refusal: why the provider's way failed.
    """
    provider = None if ctx.provider is None else ctx.provider.options.name
    error = problem or refusal
    shown = page(
        request,
        "login.html",
        status=200 if error is None else STATUS[error.code],
        next=target,
        problem=problem,
        refusal=refusal,
        provider=provider,
    )
    if error is not None:
        shown.headers.update(headers(error))
    return shown


def set_session(
    request: Request, ctx: Context, response: Response, token_id: str, url: str
) -> None:
    """Give the browser a new session, whatever it had before, of the token of that id."""
    response.set_cookie(
        COOKIE,
        make_session(ctx, token_id),
        max_age=int(LIFETIME.total_seconds()),
        httponly=True,
        samesite="strict",
        secure=is_https(request, url),
    )


def path_of_ours(target: str) -> str:
    """Return `target` if it is a path here, else that of the first page."""
    return target if _PATH.fullmatch(target) else "/"


def is_https(request: Request, url: str) -> bool:
    """Return whether the browser's way to us, or to the proxy before us, is encrypted."""
    return request.url.scheme == "https" or url.startswith("https:")
