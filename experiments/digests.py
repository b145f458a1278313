"""Which base, data and code a run is of."""

from __future__ import annotations

import hashlib
from pathlib import Path

from coldfusion_shared import __version__

ROOT = Path(__file__).parent


def code() -> str:
    """Return the version of coldfusion, and a digest of the experiments' own code."""
    sha = hashlib.sha256()
    for file in sorted(ROOT.rglob("*.py")):
        sha.update(f"{file.relative_to(ROOT)}\n".encode() + file.read_bytes())
    return f"coldfusion/{__version__} experiments/{sha.hexdigest()[:12]}"


def state_digest(folder: Path) -> str:
    """
    Return a digest of what a base has beside the weights that it publishes; "" for nothing.

    The float32 master and the server optimizer's state: two bases that differ in these alone score
    alike, but go on otherwise.
    """
    files = [
        file
        for name in ("master", "optimizer")
        for file in sorted((folder / name).rglob("*"))
        if file.is_file()
    ]
    if not files:
        return ""
    sha = hashlib.sha256()
    for file in files:
        sha.update(f"{file.relative_to(folder)}\n".encode())
        with file.open("rb") as opened:
            sha.update(hashlib.file_digest(opened, "sha256").digest())
    return sha.hexdigest()
