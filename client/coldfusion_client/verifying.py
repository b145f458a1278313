"""A folder that was pulled, compared with what its Repository has signed; no server is asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from coldfusion_client.opening import choose
from coldfusion_client.record import read_record
from coldfusion_client.trust import given_key, known_key
from coldfusion_shared.errors import BadKey, BadSignature, ConfigurationError
from coldfusion_shared.signing.envelope import refusal
from coldfusion_shared.signing.keys import PublicKey
from coldfusion_shared.signing.model_signature import (
    MANIFEST_FILE,
    SIGNATURE_FILE,
    UNSIGNED,
    signed_files,
)
from coldfusion_shared.weights.digests import file_sha256

# Of the files that are at fault.
MOST_NAMED = 5


@dataclass(frozen=True)
class Verified:
    """What a folder is, beyond doubt."""

    path: Path
    model: str
    version: str
    digest: str
    key: str
    files: int
    # Whose key it was; null: one that a person has given.
    server: str | None

    def as_json(self) -> dict[str, Any]:
        """Return it for ``--json``."""
        return {**asdict(self), "path": str(self.path)}


def verify(folder: Path, key_file: Path | None, server: str | None = None) -> Verified:
    """
    Make sure that `folder` holds what the owner of the key has signed, all of it and nothing more.

    Args:
        folder: what a pull has written.
        key_file: the public key; null: ``COLDFUSION_KEY``, else the one that is known of `server`.
        server: its URL; null: the default server, and only if the folder says it comes from there:
            any server that was once met could vouch for any model.

    Raises:
        BadKey: no key is known, the file holds none, or whose key is meant has to be said.
        KeyChanged: another key has signed it.
        BadSignature: there is no signature, it is wrong, or the files are not those that it is of.
    """
    signature = _read_signature(folder)
    key, of = given_key(key_file), None
    if key is None:
        of = _url(server) if server else _server_of(folder)
        key = _key_of(folder, of)
    signed = signed_files(signature, key, str(folder))
    faults = _faults(folder, signed)
    if faults:
        raise BadSignature(
            f"{folder} is not what was signed: {'; '.join(faults)}.",
            hint="Pull it again, into another folder; keep files of your own elsewhere.",
        )
    model, version = _read_manifest(folder)
    return Verified(folder, model, version, signed[MANIFEST_FILE], key.id, len(signed), of)


def _read_signature(folder: Path) -> str:
    try:
        return (folder / SIGNATURE_FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise BadSignature(
            f"{folder} has no {SIGNATURE_FILE} that can be read.",
            hint="A pull writes it: coldfusion-client pull MODEL --out FOLDER",
        ) from None


def _url(server: str | None) -> str:
    url, _ = choose(server)
    return url


def _server_of(folder: Path) -> str:
    """Return the server that the folder says it comes from, if it is the default one."""
    record = read_record(folder)
    if record is None:
        raise BadKey(
            f"{folder} does not say which server it comes from.",
            hint="Give the public key of its Repository with --key FILE, or name a server whose "
            "key is known with --server URL.",
        )
    try:
        default = _url(None)
    except ConfigurationError:
        default = None
    if record.server != default:
        raise BadKey(
            f"{folder} says that it comes from {record.server}, which is not your default server.",
            hint="A folder cannot say itself whom to believe. Give the public key of its "
            "Repository with --key FILE, or, if that is the server that you mean, name it with "
            "--server URL.",
        )
    return record.server


def _key_of(folder: Path, server: str) -> PublicKey:
    known = known_key(server)
    if known is None:
        raise BadKey(
            f"No key of {server} is known by which {folder} could be verified.",
            hint="Give the public key of its Repository with --key FILE.",
        )
    return known


def _faults(folder: Path, signed: Mapping[str, str]) -> list[str]:
    found = set(_files(folder))
    changed = [
        name for name in sorted(found & signed.keys()) if file_sha256(folder / name) != signed[name]
    ]
    kinds = {
        "links": sorted(name for name in found if (folder / name).is_symlink()),
        "changed": changed,
        "missing": sorted(signed.keys() - found),
        "not signed": sorted(found - signed.keys()),
    }
    return [f"{kind}: {', '.join(names[:MOST_NAMED])}" for kind, names in kinds.items() if names]


def _files(folder: Path) -> list[str]:
    """Return the files that make a model what it is, by their paths in `folder`."""
    # A linked folder is not gone into: it is told as what it is.
    found = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    paths = [path.relative_to(folder) for path in found]
    return [path.as_posix() for path in paths if path.parts[0] not in UNSIGNED]


def _read_manifest(folder: Path) -> tuple[str, str]:
    """Return which version of which model it is; the file is the one that was signed."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        said = json.loads((folder / MANIFEST_FILE).read_bytes())
        return str(said["model"]), str(said["version"])
    raise refusal(f"What was signed in {folder} is no base of a Repository.")
