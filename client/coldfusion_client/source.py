"""Where bases come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from coldfusion_client.api import Api
from coldfusion_client.cache import Cache
from coldfusion_client.reporting import Reporter


@dataclass(frozen=True)
class Source:
    """
    Where bases come from, where they are kept, and who is told.

    Attributes:
        api: the server.
        cache: of this machine.
        reporter: who is told.
        key: file of the server's public key; null: ``COLDFUSION_KEY``, else the one that is known.
    """

    api: Api
    cache: Cache
    reporter: Reporter
    key: Path | None = None
