"""What a request says of its body's length."""

from __future__ import annotations

from starlette.datastructures import Headers

from coldfusion_shared.errors import InvalidRequest


def content_length(headers: Headers) -> int | None:
    """
    Return the Content-Length in bytes; null if there is none.

    Raises:
        InvalidRequest: it is no plain number. Not every server in front refuses that.
    """
    text = headers.get("content-length")
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise InvalidRequest("Content-Length is not a number of bytes.")
    return int(text)
