"""A small base as a folder, its manifest, and a key."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coldfusion_shared.schemas.bases import Manifest
from coldfusion_shared.schemas.files import FileEntry
from coldfusion_shared.signing.keys import SigningKey
from coldfusion_shared.signing.model_signature import MANIFEST_FILE, SIGNATURE_FILE, sign_base

KEY = SigningKey.from_secret(b"x" * 32)
OTHER = SigningKey.from_secret(b"y" * 32)
FILES = {
    "config.json": b'{"model_type": "bert"}',
    "model.safetensors": b"\0" * 100,
    # By their text these two sort the other way round than by their parts.
    "sub/vocab.txt": b"a",
    "sub-x": b"b",
}


def manifest_of(files: dict[str, bytes], **changes: Any) -> Manifest:
    entries = [
        FileEntry(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest())
        for path, data in files.items()
    ]
    values = {"model": "demo/tiny", "version": "v3", "files": entries, "round": 3, **changes}
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return Manifest(**{"created_at": at, "parent": None, "software": "test", **values})


def written(folder: Path, files: dict[str, bytes], key: SigningKey = KEY) -> Path:
    """Write a base as a pull does."""
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    manifest = manifest_of(files)
    (folder / MANIFEST_FILE).write_bytes(manifest.canonical())
    (folder / SIGNATURE_FILE).write_text(sign_base(manifest, key))
    (folder / "coldfusion.json").write_text("{}")
    return folder
