"""
Signing in by a provider: the browser goes there with a number, and comes back with a code.

It ends in the same session as a login by token does. It may begin from anywhere, as it ends in the
name of whoever the provider knows this browser as; it ends in the browser alone in which it began.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from coldfusion_server.api.dependencies import Address, BaseUrl, Ctx, Guessing
from coldfusion_server.api.guessing import Tried
from coldfusion_server.api.session import cookie_value
from coldfusion_server.dashboard import begun
from coldfusion_server.dashboard.login import is_https, login_page, path_of_ours, set_session
from coldfusion_server.dashboard.rendering import page
from coldfusion_server.services.context import Context
from coldfusion_server.services.sign_in import begin_session, provider_of
from coldfusion_shared.errors import ColdFusionError, SignInRefused

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)

# What the provider's errors mean; of its own words none are shown.
_WHY = {
    "access_denied": "The sign-in was refused at the provider.",
    "login_required": "The sign-in was refused at the provider.",
    "temporarily_unavailable": "The sign-in provider is too busy.",
    "server_error": "The sign-in provider met an error of its own.",
}


@router.get("/login/oidc")
def begin(request: Request, ctx: Ctx, url: BaseUrl, next: str = "/") -> Response:
    """Send the browser to the provider."""
    provider = provider_of(ctx)
    started = begun.begin(path_of_ours(next))
    try:
        address = provider.address(begun.request_of(ctx, started, url))
    except ColdFusionError as error:
        return login_page(request, ctx, started.target, refusal=error)
    response = RedirectResponse(address, 303)
    secure = is_https(request, url)
    response.set_cookie(
        begun.cookie_name(secure),
        begun.cookie_of(ctx, started),
        max_age=int(begun.LIFETIME.total_seconds()),
        httponly=True,
        # Not strict: the browser comes back from another site.
        samesite="lax",
        secure=secure,
    )
    response.headers["Cache-Control"] = "no-store"
    return response


@router.get(begun.CALLBACK)
def end(
    request: Request,
    ctx: Ctx,
    url: BaseUrl,
    guesses: Guessing,
    address: Address,
    state: str = "",
    code: str = "",
    error: str = "",
    iss: str | None = None,
) -> Response:
    """Begin a session for whom the provider knows the browser as."""
    provider_of(ctx)
    secure = is_https(request, url)
    cookie = cookie_value(request.headers.get("cookie", ""), begun.cookie_name(secure))
    tried = Tried.once(address, f"{state}\n{code}")
    target = "/"
    try:
        started = guesses.watch(tried, lambda: begun.read(ctx, cookie, state), SignInRefused)
        target = started.target
        if error or not code:
            raise SignInRefused(
                _WHY.get(error, "The sign-in provider reports an error."), hint="Try again."
            )
        token_id = guesses.watch(
            tried, lambda: _token_id(ctx, started, url, code, iss), SignInRefused
        )
    except ColdFusionError as failure:
        response = login_page(request, ctx, target, refusal=failure)
    else:
        # A page and no redirect: to the browser that would still be the provider's link, on which
        # it sends no strict cookie along.
        response = page(request, "signed_in.html", target=target)
        set_session(request, ctx, response, token_id, url)
    response.delete_cookie(begun.cookie_name(secure), httponly=True, samesite="lax", secure=secure)
    return response


def _token_id(ctx: Context, started: begun.Begun, url: str, code: str, iss: str | None) -> str:
    asked = begun.request_of(ctx, started, url)
    id_token = provider_of(ctx).redeem(code, iss, asked)
    return begin_session(ctx, id_token, asked.nonce)
