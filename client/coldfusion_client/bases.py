"""Bases by their manifests: named, verified and brought into the cache."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from coldfusion_client.api import Api
from coldfusion_client.reporting import Silent
from coldfusion_client.rollbacks import told
from coldfusion_client.signatures import check_signature, key_changed, newest
from coldfusion_client.source import Source
from coldfusion_client.transfer.download import fetch
from coldfusion_client.trust import check_history, trusted_key
from coldfusion_shared.errors import DigestMismatch, InvalidRequest, KeyChanged, StorageFull
from coldfusion_shared.schemas.bases import Base, Manifest
from coldfusion_shared.schemas.common import check_model_name
from coldfusion_shared.schemas.models import HeadMove
from coldfusion_shared.signing.envelope import refusal
from coldfusion_shared.signing.heads import Head

LATEST = "latest"


@dataclass(frozen=True)
class Found:
    """
    A base as its Repository has signed it.

    Attributes:
        base: what was asked for.
        head: which one is the newest, signed; null: it was not asked, or the server signs nothing.
        move: how the head left the base that this machine has seen as the newest, if it did since.
    """

    base: Base
    head: Head | None
    move: HeadMove | None


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


def find_base(source: Source, model: str, version: str) -> Base:
    """
    Return a base whose manifest is the one that was asked for, and signed by the server's key.

    Raises:
        ModelNotFound, BaseNotFound: there is none.
        DigestMismatch: the server's manifest is not what it says.
        KeyChanged, BadSignature: it is not signed, or not by the key that is trusted.
        HistoryChanged: a base that was seen before is another one, or was taken back without a
            word.
    """
    found = find_signed(source, model, version)
    if found.move is not None:
        source.reporter.warn(told(found.move, model))
    return found.base


def find_signed(source: Source, model: str, version: str) -> Found:
    """Return what `find_base` does, with its head, and leave it to the caller to tell of moves."""
    key = trusted_key(source)
    if key is None:
        return Found(_find(source.api, model, version), None, None)
    try:
        head = newest(source, model, key) if version == LATEST else None
        base = _find(source.api, model, version if head is None else head.version)
        if head is not None and base.digest != head.digest:
            raise refusal(f"{model} {head.version} is another base than its Repository says.")
        check_signature(source, base, key)
    except KeyChanged as error:
        raise key_changed(error, source) from None
    return Found(base, head, check_history(source, base, head, key))


def _find(api: Api, model: str, version: str) -> Base:
    base = api.base(model, version)
    manifest = base.manifest
    named = (base.model, base.version) == (manifest.model, manifest.version)
    asked = base.model == model and version in {LATEST, base.version}
    if named and asked and manifest.digest() == base.digest:
        return base
    raise not_named(f"{model} {version}")


def not_named(what: str) -> DigestMismatch:
    """Return the error for a manifest that is not the one that its digest names."""
    return DigestMismatch(
        f"The manifest of {what} is not the one that its digest names.",
        hint="A server newer than this client says more in a manifest than it knows; update it "
        "with: pip install -U 'coldfusion[client]'. If that does not help, tell the operator.",
    )


def bring(source: Source, manifest: Manifest, candidate: str | None = None) -> None:
    """
    Make sure that all files of a base, or of a candidate of that id, are in the cache, unchanged.

    Raises:
        DigestMismatch, StorageFull, ServerUnreachable: a file could not be brought.
    """
    missing = [entry for entry in manifest.files if source.cache.find(entry) is None]
    if not missing:
        return
    total = sum(entry.size for entry in missing)
    _check_room(source.cache.root, total - sum(map(source.cache.begun, missing)))
    name = f"{manifest.model} {candidate or manifest.version}"
    with source.reporter.bar(name, total, "bytes") as bar:
        fetch(source.api, source.cache, manifest, missing, bar, candidate=candidate)


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
