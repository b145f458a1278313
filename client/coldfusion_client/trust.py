"""
What is believed of servers: each one's key, and which base it has shown as a model's newest.

A key is taken from the server the first time, as ssh does it, or given by a person. From then on
that key counts, and what was shown once is not taken back without a word.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ValidationError

from coldfusion_client.config import PRIVATE, config_folder
from coldfusion_client.disk import write_atomically
from coldfusion_client.lock import locked
from coldfusion_client.rollbacks import announced
from coldfusion_client.source import Source
from coldfusion_shared.errors import BadKey, ConfigurationError, HistoryChanged, NotFound
from coldfusion_shared.schemas.bases import Base
from coldfusion_shared.schemas.models import HeadMove
from coldfusion_shared.signing.envelope import SHOWN
from coldfusion_shared.signing.heads import Head
from coldfusion_shared.signing.keys import PublicKey

KEY_VARIABLE = "COLDFUSION_KEY"
# Of a digest, in hexadecimal: 128 bits, for which nobody finds another base.
DIGEST_KEPT = 32
# Versions of a model whose digests are kept: some 20 kB.
MOST_VERSIONS = 500


class SeenHead(BaseModel):
    """A base that was a model's newest."""

    version: str
    digest: str

    @property
    def number(self) -> int:
        """The version as a number."""
        return int(self.version[1:])


class Known(BaseModel):
    """
    What is known of one server.

    Attributes:
        key: as PEM.
        heads: the newest base of each model.
        digests: of the bases that were seen, by model and version, cut short; the newest ones of
            each model that were looked at.
    """

    key: str
    heads: dict[str, SeenHead] = {}
    digests: dict[str, dict[str, str]] = {}


class Trust(BaseModel):
    """What is known of all servers, by their URLs."""

    format: int = 1
    servers: dict[str, Known] = {}


def trust_file() -> Path:
    """Return where it is kept."""
    return config_folder() / "trust.json"


def load_trust() -> Trust:
    """Return what is known by now; raises `ConfigurationError` where the file is not ours."""
    file = trust_file()
    try:
        return Trust.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return Trust()
    except ValidationError:
        raise ConfigurationError(
            f"{file} is damaged.",
            hint="It held the keys of servers. Put a copy back, or remove it and give the key "
            "again with --key FILE.",
        ) from None


@contextmanager
def changing() -> Iterator[Trust]:
    """Yield what is known, to be changed; it is written at the end, by one process at a time."""
    file = trust_file()
    with locked(file.with_suffix(".lock"), wait=True):
        trust = load_trust()
        yield trust
        write_atomically(file, trust.model_dump_json(indent=2).encode(), PRIVATE)


def read_key(file: Path) -> PublicKey:
    """Return the key in `file`; raises `BadKey`."""
    try:
        pem = file.read_bytes()
    except OSError as error:
        raise BadKey(
            f"The key in {file} cannot be read: {error.strerror}.",
            hint="Name the file with the server's public key, PEM, with --key or COLDFUSION_KEY.",
        ) from None
    return PublicKey.from_pem(pem, str(file))


def given_key(file: Path | None) -> PublicKey | None:
    """Return the key that a person has given, in `file` or by ``COLDFUSION_KEY``."""
    named = file or os.environ.get(KEY_VARIABLE)
    return read_key(Path(named)) if named else None


def known_key(server: str) -> PublicKey | None:
    """Return the key of `server` that was met or given before."""
    known = load_trust().servers.get(server)
    return None if known is None else PublicKey.from_pem(known.key.encode(), str(trust_file()))


def trusted_key(source: Source) -> PublicKey | None:
    """
    Return the key by which the server's bases are checked; null: it signs nothing.

    Raises:
        BadKey: a file that should hold it does not.
    """
    # A given one is kept when a signature was found good by it: see `check_history`.
    return given_key(source.key) or known_key(source.api.server) or _met(source)


def check_history(source: Source, base: Base, head: Head | None, key: PublicKey) -> HeadMove | None:
    """
    Compare a base, and the signed `head` if it was asked for as the newest, with what was seen.

    It is kept as seen then, and `key`, by which both were found good, if none is known.

    Returns:
        How the head left the base that was the newest before; null: it did not.

    Raises:
        HistoryChanged: a version that was seen is another base now, or the head was taken back
            without a word.
    """
    server, model = source.api.server, base.model
    known = load_trust().servers.get(server)
    seen = None if known is None else known.heads.get(model)
    if _was_another(known, seen, base):
        raise _changed(f"{model} {base.version} was another base before", source)
    move = None
    if head is not None and seen is not None and int(head.version[1:]) < seen.number:
        move = announced(head, seen.version)
        if move is None:
            raise unannounced(source, seen.version, head)
    shown = seen if head is None else SeenHead(version=head.version, digest=head.digest)
    digests = {} if known is None else known.digests.get(model, {})
    if known is None or shown != seen or base.version not in digests:
        _note(source, lambda trust: _see(trust, server, key, base, shown))
    return move


def unannounced(source: Source, version: str, head: Head) -> HistoryChanged:
    """Return the error for a head that went below `version` without a word."""
    return _changed(
        f"The newest base of {head.model} was {version} and is {head.version} now, which was "
        "never announced",
        source,
    )


def give(server: str, key: PublicKey) -> None:
    """Check what comes from `server` by `key` from now on."""
    with changing() as trust:
        _put(trust, server, key)


def forget(server: str) -> bool:
    """Forget all that is known of `server`; return whether there was anything."""
    with changing() as trust:
        return trust.servers.pop(server, None) is not None


def _met(source: Source) -> PublicKey | None:
    server = source.api.server
    try:
        pem = source.api.signing_key()
    except NotFound:
        source.reporter.alert(
            f"{server} signs nothing; whether a base is really its own cannot be checked."
        )
        return None
    key = PublicKey.from_pem(pem, f"{server}/v1/signing-key")
    known = Known(key=key.pem.decode())
    source.reporter.say(f"The key of {server}, {key.id[:SHOWN]}, is trusted from now on.")
    _note(source, lambda trust: trust.servers.setdefault(server, known))
    return key


def _put(trust: Trust, server: str, key: PublicKey) -> None:
    trust.servers.setdefault(server, Known(key="")).key = key.pem.decode()


def _was_another(known: Known | None, seen: SeenHead | None, base: Base) -> bool:
    """Return whether the base's version was seen before with another digest."""
    if seen is not None and seen.version == base.version and seen.digest != base.digest:
        return True
    before = None if known is None else known.digests.get(base.model, {}).get(base.version)
    return before is not None and before != base.digest[:DIGEST_KEPT]


def _see(trust: Trust, server: str, key: PublicKey, base: Base, head: SeenHead | None) -> None:
    known = trust.servers.setdefault(server, Known(key=key.pem.decode()))
    if head is not None:
        known.heads[base.model] = head
    digests = known.digests.setdefault(base.model, {})
    digests[base.version] = base.digest[:DIGEST_KEPT]
    for version in list(digests)[:-MOST_VERSIONS]:
        del digests[version]


def _changed(what: str, source: Source) -> HistoryChanged:
    return HistoryChanged(
        f"{what}.",
        hint="Ask the operator what happened. If all is well, as after a backup was brought back, "
        f"let the past go with: coldfusion-client key --forget --server {source.api.server}",
    )


def _note(source: Source, change: Callable[[Trust], object]) -> None:
    """Change what is known; where nothing can be written, as in some containers, say so."""
    try:
        with changing() as trust:
            change(trust)
    except OSError as error:
        source.reporter.warn(
            f"{trust_file()} cannot be written ({error.strerror}): what is known of "
            f"{source.api.server} is forgotten again. Give its key each time, with COLDFUSION_KEY."
        )
