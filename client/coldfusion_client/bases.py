"""Bases by their manifests: named, verified and brought into the cache."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from coldfusion_client.api import Api
from coldfusion_client.cache import Cache
from coldfusion_client.reporting import Reporter, Silent
from coldfusion_client.transfer.download import fetch
from coldfusion_shared.errors import DigestMismatch, InvalidRequest, StorageFull
from coldfusion_shared.schemas.bases import Base, Manifest
from coldfusion_shared.schemas.common import check_model_name

LATEST = "latest"


@dataclass(frozen=True)
class Source:
    """Where bases come from, where they are kept, and who is told."""

    api: Api
    cache: Cache
    reporter: Reporter


def model_name(text: str) -> str:
    """Return `text` if it can name a model; raises `InvalidRequest`."""
    try:
        return check_model_name(text)
    except ValueError as error:
        raise InvalidRequest(
            f"{text!r:.120} names no model: {error}.", hint="Known ones: coldfusion-client models"
        ) from None


def version_name(text: str) -> str:
    """Return `text` if it is ``latest`` or a version such as ``v3``; raises `InvalidRequest`."""
    if text == LATEST or re.fullmatch(r"v(0|[1-9][0-9]{0,8})", text):
        return text
    raise InvalidRequest(
        f"{text!r:.40} is no version of a base.", hint="Write v3 for the third, or latest."
    )


def find_base(api: Api, model: str, version: str) -> Base:
    """
    Return a base whose manifest is the one that was asked for and that its digest names.

    Raises:
        ModelNotFound, BaseNotFound: there is none.
        DigestMismatch: the server's manifest is not what it says.
    """
    base = api.base(model, version)
    manifest = base.manifest
    named = (base.model, base.version) == (manifest.model, manifest.version)
    asked = base.model == model and version in {LATEST, base.version}
    if named and asked and manifest.digest() == base.digest:
        return base
    raise DigestMismatch(
        f"The manifest of {model} {version} is not the one that its digest names.",
        hint="A server newer than this client says more in a manifest than it knows; update it "
        "with: pip install -U 'coldfusion[client]'. If that does not help, tell the operator.",
    )


def bring(source: Source, manifest: Manifest) -> None:
    """
    Make sure that all files of a base are in the cache, unchanged.

    Raises:
        DigestMismatch, StorageFull, ServerUnreachable: a file could not be brought.
    """
    missing = [entry for entry in manifest.files if source.cache.find(entry) is None]
    if not missing:
        return
    total = sum(entry.size for entry in missing)
    _check_room(source.cache.root, total - sum(map(source.cache.begun, missing)))
    with source.reporter.bar(f"{manifest.model} {manifest.version}", total, "bytes") as bar:
        fetch(source.api, source.cache, manifest, missing, bar)


def base_file(source: Source, base: Base, path: str) -> Path | None:
    """
    Return one file of the model `base`, in the cache: to be read; null: it has no such file.

    For what has to be known of a model before all of it is worth a download.
    """
    entry = next((entry for entry in base.manifest.files if entry.path == path), None)
    if entry is None:
        return None
    if source.cache.find(entry) is None:
        fetch(source.api, source.cache, base.manifest, [entry], Silent())
    return source.cache.object(entry.sha256)


def base_folder(source: Source, base: Base) -> Path:
    """
    Return a folder with the model `base`, in the cache: to be read, not to be written.

    Called again before every use: it costs nothing, and somebody may have changed the files.
    """
    bring(source, base.manifest)
    return source.cache.folder(base.manifest)


def _check_room(folder: Path, needed: int) -> None:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise StorageFull(
            f"The download needs {needed / 1e6:,.0f} MB and the disk of {folder} has "
            f"{free / 1e6:,.0f} MB left.",
            hint="Free some space, or name a folder on another disk with COLDFUSION_CACHE.",
        )
