"""Which base, data and code a run is of."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import coldfusion_shared

ROOT, SHARED = Path(__file__).parent, Path(coldfusion_shared.__file__).parent
# What decides weights and scores beside their inputs.
ENGINE = ("fusion", "weights", "finetune", "tasks", "data", "evaluate")
DIGITS = 12


def code() -> str:
    """Return the version of coldfusion, and digests of the engine and of the experiments' code."""
    own = digest_of(ROOT, ROOT.rglob("*.py"))
    return f"coldfusion/{coldfusion_shared.__version__} engine/{engine()} experiments/{own}"


@cache
def engine() -> str:
    """Return a digest of the code that finetunes, fuses and scores."""
    return digest_of(SHARED, (file for part in ENGINE for file in (SHARED / part).rglob("*.py")))


def digest_of(root: Path, files: Iterable[Path]) -> str:
    """Return a digest of files in `root`, names and all."""
    sha = hashlib.sha256()
    for file in sorted(files):
        sha.update(f"{file.relative_to(root)}\n".encode() + file.read_bytes())
    return sha.hexdigest()[:DIGITS]


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
