"""
The signature of a base, as OpenSSF Model Signing has it: ``model.sig`` in the model's folder.

It names every file with its digest. One of the files is the manifest, which says of which model
this is which version and what it was made from; so one signature binds all of it. Nothing is read
for it: the manifest has the digests, and its own is the base's.

https://github.com/sigstore/model-transparency
"""

from __future__ import annotations

import hashlib
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from coldfusion_shared.schemas.bases import Manifest
from coldfusion_shared.schemas.common import FilePath, Sha256
from coldfusion_shared.signing.envelope import Statement, Subject, claimed, refusal, seal, unseal
from coldfusion_shared.signing.keys import PublicKey, SigningKey

PREDICATE_TYPE = "https://model_signing/signature/v1.0"
SIGNATURE_FILE = "model.sig"
# The canonical manifest, byte by byte: its SHA-256 is the digest that names the base.
MANIFEST_FILE = "manifest.json"
# What may lie in a model's folder and is no part of the model: a client's own note of where it
# comes from, the signature itself, and what git keeps.
UNSIGNED = (
    "coldfusion.json",
    SIGNATURE_FILE,
    ".git",
    ".gitattributes",
    ".github",
    ".gitignore",
)


class _Serialization(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    method: Literal["files"]
    hash_type: Literal["sha256"]


class _Resource(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    name: FilePath
    algorithm: Literal["sha256"]
    digest: Sha256


class _Predicate(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    serialization: _Serialization
    resources: list[_Resource]


def sign_base(manifest: Manifest, key: SigningKey) -> str:
    """Return the signature of the base that `manifest` describes, as JSON."""
    files = contents(manifest)
    # By the parts of their paths, as the package sorts them.
    names = sorted(files, key=lambda name: PurePosixPath(name).parts)
    predicate: dict[str, Any] = {
        "serialization": {
            "method": "files",
            "hash_type": "sha256",
            "allow_symlinks": False,
            "ignore_paths": list(UNSIGNED),
        },
        "resources": [
            {"name": name, "algorithm": "sha256", "digest": files[name]} for name in names
        ],
    }
    digest = _root([files[name] for name in names])
    subject = Subject(name=_name(manifest), digest={"sha256": digest})
    return seal(subject, PREDICATE_TYPE, predicate, key)


def check_base(signature: str, manifest: Manifest, key: PublicKey) -> None:
    """
    Make sure that the owner of `key` has published the base that `manifest` describes.

    Raises:
        KeyChanged: another key has signed it.
        BadSignature: the signature is wrong, or one of other files or another manifest.
    """
    _compare(signed_files(signature, key, _name(manifest)), manifest)


def claimed_by(signature: str, manifest: Manifest) -> str:
    """
    Return the id of the key that `signature` names; whether it is that key's is not known.

    Raises:
        BadSignature: it is none at all, or one of other files or another manifest.
    """
    what = _name(manifest)
    signer, statement = claimed(signature, PREDICATE_TYPE, what)
    _compare(_files_of(statement, what), manifest)
    return signer


def _compare(signed: dict[str, str], manifest: Manifest) -> None:
    what, expected = _name(manifest), contents(manifest)
    if signed.get(MANIFEST_FILE) != expected[MANIFEST_FILE]:
        raise refusal(f"The signature of {what} is of another base.")
    if signed != expected:
        names = sorted(name for name in signed | expected if signed.get(name) != expected.get(name))
        raise refusal(f"The signature of {what} is of other files: {', '.join(names[:5])}.")


def signed_files(signature: str, key: PublicKey, what: str) -> dict[str, str]:
    """
    Return the SHA-256 of each file that `signature` is of, by its path.

    Args:
        signature: what ``model.sig`` holds.
        key: who has to have signed it.
        what: what was signed, for messages.

    Raises:
        KeyChanged: another key has signed it.
        BadSignature: the signature is wrong, or not one of a model's files.
    """
    return _files_of(unseal(signature, PREDICATE_TYPE, key, what), what)


def _files_of(statement: Statement, what: str) -> dict[str, str]:
    try:
        resources = _Predicate.model_validate(statement.predicate).resources
    except ValueError:
        raise refusal(f"The signature of {what} is of no files.") from None
    files = {resource.name: resource.digest for resource in resources}
    root = _root([resource.digest for resource in resources])
    if len(files) != len(resources) or statement.subject[0].digest.get("sha256") != root:
        raise refusal(f"The signature of {what} contradicts itself.")
    return files


def contents(manifest: Manifest) -> dict[str, str]:
    """Return the SHA-256 of each signed file of a pulled base, its manifest's own among them."""
    files = {file.path: file.sha256 for file in manifest.files}
    taken = sorted(files.keys() & {MANIFEST_FILE, *UNSIGNED})
    if taken or len(files) != len(manifest.files):
        raise refusal(f"No base can have the files that {_name(manifest)} names.")
    return {**files, MANIFEST_FILE: manifest.digest()}


def _root(digests: list[str]) -> str:
    return hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()


def _name(manifest: Manifest) -> str:
    return f"{manifest.model} {manifest.version}"
