"""What a request says of its body's length."""

from __future__ import annotations

from starlette.datastructures import Headers

from coldfusion_shared.errors import InvalidRequest


def content_length(headers: Headers) -> int | None:
    """
    Return the Content-Length in bytes; null if there is none.

    Raises:
        InvalidRequest: it is no plain number, or the body is chunked besides: then a server in
            front may see another end of the request than we do. Not all of them refuse that.
    """
    text = headers.get("content-length")
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise InvalidRequest("Content-Length is not a number of bytes.")
    if "transfer-encoding" in headers:
        raise InvalidRequest("A body has a Content-Length or is chunked, but not both.")
    return int(text)
