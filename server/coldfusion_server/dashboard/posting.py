"""Forms that a browser posts: where they come from, and what is in them."""

from __future__ import annotations

from urllib.parse import parse_qs

from fastapi import Request

from coldfusion_shared.errors import Forbidden, InvalidRequest


def check_same_site(request: Request, url: str, hint: str) -> None:
    """
    Refuse a form that was sent from a page of another site; programs send neither header.

    Args:
        request: the browser's.
        url: where we are reached.
        hint: what to do about it.

    Raises:
        Forbidden: it comes from elsewhere.
    """
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    # Not by urlsplit, which raises for some of what programs may send.
    hosts = {request.headers.get("host"), url.partition("://")[2].partition("/")[0]} - {""}
    foreign = site not in (None, "same-origin", "none")
    if foreign or (origin is not None and origin.partition("://")[2] not in hosts):
        raise Forbidden("This form was sent from another site.", hint=hint)


async def read_form(request: Request, most: int) -> dict[str, list[str]]:
    """
    Return what is in a form, empty boxes too; the gate has bounded the body.

    Args:
        request: the browser's.
        most: values that it may have at most.

    Raises:
        InvalidRequest: it is no form, or has more values.
    """
    try:
        return parse_qs(
            (await request.body()).decode(), keep_blank_values=True, max_num_fields=most
        )
    except ValueError:
        raise InvalidRequest("The form cannot be read.") from None
