"""How quick uploads to a server were, so that the next one is no larger than it should be."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from coldfusion_client.disk import write_atomically

# What is smaller tells more of the way there and back than of its width.
TELLING_BYTES = 2**20


def upload_speed(cache: Path, server: str) -> float | None:
    """Return the bytes a second of the latest upload to `server`; null: none is known."""
    speed = _known(cache).get(server)
    return float(speed) if isinstance(speed, int | float) and speed > 0 else None


def note_upload(cache: Path, server: str, size: int, seconds: float) -> None:
    """Keep how long `size` bytes took; it is no loss where that cannot be written."""
    if size >= TELLING_BYTES and seconds > 0:
        known = {**_known(cache), server: size / seconds}
        with suppress(OSError):
            write_atomically(cache / "speeds.json", json.dumps(known).encode())


def _known(cache: Path) -> dict[str, object]:
    try:
        known = json.loads((cache / "speeds.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
