"""Requests as a server hands them on, with headers and bodies that no client would send."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI

Headers = list[tuple[bytes, bytes]]


@dataclass
class Answer:
    """What came back, and how much of the body was asked for."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    read: int = 0

    def json(self) -> Any:
        return json.loads(self.body)


def request(
    app: FastAPI,
    method: str,
    path: str,
    headers: Headers = (),  # type: ignore[assignment]
    chunks: Iterable[bytes] = (),
    query: str = "",
    *,
    hang_up: bool = False,
    address: str = "127.0.0.1",
) -> Answer:
    """
    Send one request straight into `app`.

    Args:
        app: the application.
        method: such as ``PUT``.
        path: decoded, as servers hand it on.
        headers: raw; nothing is added but a host where there is none.
        chunks: the body, as it arrives.
        query: raw query string.
        address: the sender's.
        hang_up: disconnect after the chunks, instead of ending the body.
    """
    answer = Answer()
    left = iter(chunks)
    given = list(headers)
    if not any(name.lower() == b"host" for name, _ in given):
        given.append((b"host", b"testserver"))
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode("latin-1"),
        "headers": given,
        "client": (address, 1),
        "server": ("testserver", 80),
    }

    async def receive() -> dict[str, Any]:
        chunk = next(left, None)
        if chunk is None:
            if hang_up:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": b"", "more_body": False}
        answer.read += len(chunk)
        return {"type": "http.request", "body": chunk, "more_body": True}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {
                name.decode("latin-1").lower(): value.decode("latin-1")
                for name, value in message["headers"]
            }
        elif message["type"] == "http.response.body":
            answer.body += message.get("body", b"")

    async def call() -> None:
        try:
            await app(scope, receive, send)
        except Exception:
            # A server has sent the answer by now, and logs.
            assert answer.status == 500

    asyncio.run(call())
    return answer
