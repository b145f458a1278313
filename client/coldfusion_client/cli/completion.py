"""What a shell proposes while a command is typed. Never an error, never a long wait."""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import suppress
from itertools import islice
from pathlib import Path

import typer

# A person who presses the tabulator waits no longer.
SECONDS = 1.5
KEPT_SECONDS = 300.0
MOST = 500


def complete_model(context: typer.Context, incomplete: str) -> list[str]:
    """Return the server's models whose names begin with `incomplete`; none if it is silent."""
    # Whatever goes wrong here, a message in the middle of somebody's line would be worse.
    with suppress(Exception):
        given = context.params.get("server")
        names = model_names(given if isinstance(given, str) else None)
        return [name for name in names if name.startswith(incomplete)]
    return []


def model_names(server: str | None) -> list[str]:
    """
    Return the names of the models that we may read, at most `MOST`, kept for `KEPT_SECONDS`.

    Raises:
        ColdFusionError: no server is known, or it does not answer within `SECONDS`.
    """
    from coldfusion_client.opening import choose, open_briefly

    url, token = choose(server)
    kept = _file(url, token)
    known = _fresh(kept)
    if known is not None:
        return known
    with open_briefly(url, token, SECONDS) as api:
        names = sorted(model.name for model in islice(api.models(), MOST))
    with suppress(OSError):
        from coldfusion_client.disk import write_atomically

        # For the owner's eyes only: private models are among them.
        write_atomically(kept, json.dumps(names).encode(), 0o600)
    return names


def _file(url: str, token: str | None) -> Path:
    from coldfusion_client.cache import default_cache

    # Another token may read other models.
    key = hashlib.sha256(f"{url}\n{token or ''}".encode()).hexdigest()[:16]
    return default_cache().root / "completion" / f"{key}.json"


def _fresh(file: Path) -> list[str] | None:
    with suppress(OSError, ValueError):
        if 0 <= time.time() - file.stat().st_mtime < KEPT_SECONDS:
            return [name for name in json.loads(file.read_bytes()) if isinstance(name, str)]
    return None
