"""
Many event streams in a process of their own, so that reading them keeps nobody else waiting.

    python -m benchmarks.streams HOST PORT PATH COUNT

It says ``connected`` when all are open, and at the end of its input what was heard: for each
contribution that was announced, when each stream had told of it, by the machine's monotonic clock.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import Mapping
from contextlib import suppress

DECLARED = re.compile(rb'"type":"contribution\.declared".*"contribution":"([0-9a-f]+)"')
CONNECTED = b": connected"

Heard = dict[str, list[float]]


async def main(host: str, port: int, path: str, count: int) -> Heard:
    """Keep the streams open until the input ends; return what was heard."""
    heard: Heard = {}
    connected = asyncio.Semaphore(0)
    tasks = [asyncio.create_task(_watch(host, port, path, heard, connected)) for _ in range(count)]
    for _ in tasks:
        await connected.acquire()
    sys.stdout.write("connected\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    broken = sum(task.done() for task in tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    if broken:
        raise RuntimeError(f"{broken} streams ended before their time")
    return heard


async def _watch(
    host: str, port: int, path: str, heard: Heard, connected: asyncio.Semaphore
) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    while line := await reader.readline():
        if line.startswith(CONNECTED):
            connected.release()
        elif found := DECLARED.search(line):
            heard.setdefault(found[1].decode(), []).append(time.monotonic())


def delays(sent: Mapping[str, float], heard: Heard) -> list[float]:
    """Return the milliseconds from each announcement's sending to each hearing of it."""
    return [
        1000 * (moment - start) for name, start in sent.items() for moment in heard.get(name, [])
    ]


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        host, port, path, count = sys.argv[1:]
        json.dump(asyncio.run(main(host, int(port), path, int(count))), sys.stdout)
