"""The Range header of a download: one range of bytes, or the whole file."""

from __future__ import annotations

import re

from fastapi import HTTPException, Request

_RANGE = re.compile(r"bytes=(?:([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18}))")


def check_range(request: Request, size: int) -> None:
    """
    Take the Range header out of `request` unless it is one good range of a file of `size` bytes.

    RFC 9110 lets a server ignore it, and asks so where it makes no sense; several ranges of one
    file are no client's of ours, and a cheap way to make a server work.

    Raises:
        HTTPException: 416, the range lies behind the end.
    """
    value = request.headers.get("range")
    if value is None:
        return
    match = _RANGE.fullmatch(value)
    if match is None or (match[2] and int(match[2]) < int(match[1])):
        request.scope["headers"] = [
            (name, value) for name, value in request.scope["headers"] if name.lower() != b"range"
        ]
    elif int(match[1] or 0) >= size or match[3] and int(match[3]) == 0:
        raise HTTPException(416, headers={"Content-Range": f"bytes */{size}"})


def range_of(request: Request, size: int) -> tuple[int, int] | None:
    """
    Return the first byte that is asked for and the one after the last; null: the whole file.

    `check_range` has looked at it: what it takes for no range is none here.
    """
    match = _RANGE.fullmatch(request.headers.get("range", ""))
    if match is None:
        return None
    if match[3]:
        return max(0, size - int(match[3])), size
    start, stop = int(match[1]), int(match[2]) + 1 if match[2] else size
    return (start, min(size, stop)) if start < stop else None
