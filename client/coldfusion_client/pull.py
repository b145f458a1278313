"""A base into a folder: verified, replaced safely, and nothing of a person's own touched."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from coldfusion_client.bases import LATEST, Found, bring, find_signed
from coldfusion_client.cache import Cache
from coldfusion_client.disk import write_atomically, writing
from coldfusion_client.place import place
from coldfusion_client.record import RECORD_FILE, Record, read_record, write_record
from coldfusion_client.rollbacks import announced, find_rollback, told
from coldfusion_client.signatures import kept_signature
from coldfusion_client.source import Source
from coldfusion_client.trust import unannounced
from coldfusion_shared.errors import Conflict, InvalidRequest
from coldfusion_shared.schemas.bases import Base, Manifest
from coldfusion_shared.schemas.files import FileEntry
from coldfusion_shared.schemas.models import HeadMove
from coldfusion_shared.signing.model_signature import MANIFEST_FILE, SIGNATURE_FILE
from coldfusion_shared.weights.digests import file_sha256

# What is written beside a base's files, so that anybody can verify them; null: nothing is.
Proof = dict[str, bytes | None]


@dataclass(frozen=True)
class Pulled:
    """
    What a pull did.

    Attributes:
        model: owner/name.
        version: of the base that the folder has now.
        path: the folder.
        digest: of the base's manifest.
        updated: whether anything was replaced.
        rolled_back: how the head left the base that the folder still has; null: it did not.
    """

    model: str
    version: str
    path: Path
    digest: str
    updated: bool
    rolled_back: HeadMove | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it for ``--json``."""
        told = {
            "model": self.model,
            "version": self.version,
            "path": str(self.path),
            "digest": self.digest,
            "updated": self.updated,
        }
        if self.rolled_back is not None:
            told["rolled_back"] = self.rolled_back.model_dump(mode="json")
        return told


def pull(
    source: Source, model: str, version: str, out: Path | None, *, only_newer: bool = False
) -> Pulled:
    """
    Bring a base into the folder `out`, by default one of the model's name here.

    With `only_newer` a folder that holds a newer base than the one asked for is left alone.

    Raises:
        ModelNotFound, BaseNotFound: there is no such base.
        InvalidRequest: `out` holds something that was not pulled from this model.
        Conflict: `out` holds an older base, and somebody changed its files.
        DigestMismatch, StorageFull, ServerUnreachable: it could not be downloaded.
        KeyChanged, BadSignature, HistoryChanged: it is not proven to be the server's own.
    """
    # Where a link leads to: the folder there is replaced, and the link stays.
    folder = (out or Path(model.split("/")[1])).resolve()
    record = _check_folder(folder, model)
    found = find_signed(source, model, version)
    base = found.base
    if only_newer and record is not None and _is_newer(folder, record, base):
        held = record.manifest.version
        left = _left(source, found, held) if version == LATEST else None
        return Pulled(model, held, folder, record.digest, updated=False, rolled_back=left)
    if found.move is not None:
        source.reporter.warn(told(found.move, model))
    updated = record is None or not _is_complete(folder, record, base.digest)
    if record is not None:
        # Hashing takes a while with large models, and only what is replaced can be lost.
        _check_unchanged(folder, record, thoroughly=updated)
    proof: Proof = {
        MANIFEST_FILE: base.manifest.canonical(),
        SIGNATURE_FILE: kept_signature(source.cache, base.digest),
    }
    if updated:
        bring(source, base.manifest)
        new = Record(server=source.api.server, digest=base.digest, manifest=base.manifest)
        _fill(source.cache, folder, record, new, proof)
    else:
        _prove(folder, proof)
    return Pulled(model, base.version, folder, base.digest, updated)


def _left(source: Source, found: Found, held: str) -> HeadMove | None:
    """Return how the head left the version that a folder holds; null: no server tells."""
    if found.head is None:
        return find_rollback(source.api, found.base.model, held)
    move = announced(found.head, held)
    if move is None:
        raise unannounced(source, held, found.head)
    return move


def _check_folder(folder: Path, model: str) -> Record | None:
    """Return what `folder` says of itself; null if it is new or empty."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    record = read_record(folder) if folder.is_dir() else None
    if record is None or record.finetuned or record.manifest.model != model:
        what = "is not empty and was not pulled"
        if record is not None:
            what = "holds " + ("a finetuned model" if record.finetuned else record.manifest.model)
        raise InvalidRequest(
            f"{folder} {what}; nothing in it was touched.", hint="Name another folder with --out."
        )
    return record


def _is_newer(folder: Path, record: Record, base: Base) -> bool:
    held = int(record.manifest.version[1:])
    return _is_complete(folder, record, record.digest) and held > int(base.version[1:])


def _is_complete(folder: Path, record: Record, digest: str) -> bool:
    files = (folder / entry.path for entry in record.manifest.files)
    whole = record.replacing is None and all(file.is_file() for file in files)
    return whole and record.digest == digest


def _check_unchanged(folder: Path, record: Record, *, thoroughly: bool) -> None:
    allowed = [*record.manifest.files, *(record.replacing or [])]
    paths = sorted({entry.path for entry in allowed})
    changed = [path for path in paths if not _is_one_of(folder / path, allowed, path, thoroughly)]
    if changed:
        raise Conflict(
            f"In {folder} somebody changed {', '.join(changed[:5])} after the pull; nothing in it "
            "was touched.",
            hint="Move your own work elsewhere, or name another folder with --out.",
        )


def _is_one_of(file: Path, allowed: list[FileEntry], path: str, thoroughly: bool) -> bool:
    entries = [entry for entry in allowed if entry.path == path]
    size = _size(file)
    if size is None:
        return True  # what is missing can be put back
    if size not in {entry.size for entry in entries}:
        return False
    return not thoroughly or file_sha256(file) in {entry.sha256 for entry in entries}


def _size(file: Path) -> int | None:
    return file.stat().st_size if file.is_file() else None


def _prove(folder: Path, proof: Proof) -> None:
    for name, content in proof.items():
        file = folder / name
        if content is None:
            file.unlink(missing_ok=True)
        elif not file.is_file() or file.read_bytes() != content:
            write_atomically(file, content)


def _fill(cache: Cache, folder: Path, old: Record | None, new: Record, proof: Proof) -> None:
    # Always the same name, so that the next pull removes what a killed one has left.
    fresh = folder.with_name(f".{folder.name}.partial")
    with cache.lock(sha256(str(folder).encode()).hexdigest()), writing(folder.parent):
        try:
            _build(cache, fresh, new.manifest)
            if old is None:
                _prove(fresh, proof)
                write_record(fresh, new)
                _rename(fresh, folder)
            else:
                _replace(folder, old, fresh, new, proof)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


def _build(cache: Cache, folder: Path, manifest: Manifest) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for entry in manifest.files:
        target = folder / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        place(cache.object(entry.sha256), target)


def _rename(fresh: Path, folder: Path) -> None:
    if not folder.exists():
        fresh.rename(folder)
        return
    try:
        folder.rmdir()  # it is empty
        fresh.rename(folder)
    except OSError:
        # A mounted disk, or a folder in somebody else's. The record last: it says that all is here.
        for path in sorted(fresh.iterdir(), key=lambda path: path.name == RECORD_FILE):
            shutil.move(path, folder / path.name)


def _replace(folder: Path, old: Record, fresh: Path, new: Record, proof: Proof) -> None:
    """Exchange the files one by one; a record of both bases lets the next pull finish it."""
    before = [*old.manifest.files, *(old.replacing or [])]
    write_record(folder, new.model_copy(update={"replacing": before}))
    for path in {entry.path for entry in before} - {entry.path for entry in new.manifest.files}:
        (folder / path).unlink(missing_ok=True)
    for entry in new.manifest.files:
        target = folder / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        (fresh / entry.path).replace(target)
    _prove(folder, proof)
    write_record(folder, new)
