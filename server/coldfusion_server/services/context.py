"""What every service works with."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import inspect, select

from coldfusion_server import tracing
from coldfusion_server.db.database import Database
from coldfusion_server.db.tables import BaseRow
from coldfusion_server.oidc.options import options_of
from coldfusion_server.settings import Settings
from coldfusion_server.storage import ObjectStore
from coldfusion_server.storage.local import LocalStore
from coldfusion_server.storage.traced import traced
from coldfusion_shared import __version__
from coldfusion_shared.errors import BadKey, ConfigurationError, DatabaseUnavailable
from coldfusion_shared.signing.keys import SigningKey

if TYPE_CHECKING:
    from coldfusion_server.oidc.provider import Provider

SOFTWARE = f"coldfusion {__version__}"
KEY_BYTES = 32


def utc_now() -> datetime:
    """Return the time, with time zone."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Context:
    """
    What every service works with.

    Attributes:
        settings: those in force.
        database: where all states are.
        store: where all bytes are.
        secret: signs upload URLs and browser sessions, for nobody but ourselves.
        signing_key: signs bases, for everybody.
        provider: by which people may sign in; null: by tokens alone.
        now: the clock.
        seconds: another one, for spans of time: nobody ever sets it back.
        pulse: called by long work all the time: it shows that the work moves, and may end it.
        beats: when each part of the Repository that runs in this process last showed that it works,
            by the clock that nobody sets back.
    """

    settings: Settings
    database: Database
    store: ObjectStore
    secret: bytes
    signing_key: SigningKey
    provider: Provider | None = None
    now: Callable[[], datetime] = field(default=utc_now)
    seconds: Callable[[], float] = field(default=time.monotonic)
    pulse: Callable[[], None] = field(default=lambda: None)
    beats: dict[str, float] = field(default_factory=dict)

    def close(self) -> None:
        """Close the connections to database and store."""
        self.database.close()
        self.store.close()


def open_context(settings: Settings) -> Context:
    """
    Connect to what `settings` name; the data folder is made where anything is kept in it.

    Raises:
        ConfigurationError: the data folder cannot be written, or a setting cannot be used.
        BadKey: there is no key any more, or it cannot be used.
        DatabaseUnavailable: there is no key, and whether one was used before cannot be asked.
    """
    provider = open_provider(settings)
    folder = settings.data_dir
    try:
        if settings.needs_folder:
            # Private models are in it: other users of the machine have no business there.
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        secret = _secret(settings, folder / "secret.key")
    except OSError as error:
        raise ConfigurationError(
            f"The data folder {str(folder)!r} cannot be used: {error.strerror}.",
            hint="Choose another with --data-dir.",
        ) from None
    database = Database(
        settings.database, pool=settings.database_pool, overflow=settings.database_overflow
    )
    try:
        signing_key = _signing_key(settings, folder / "signing-key.pem", database)
        store = open_store(settings)
        if tracing.is_on():
            store = traced(store)
        return Context(settings, database, store, secret, signing_key, provider)
    except BaseException:
        database.close()
        raise


def open_store(settings: Settings) -> ObjectStore:
    """Return the store that `settings` name; raises `ConfigurationError`."""
    if settings.s3_bucket is None:
        return LocalStore(settings.data_dir)
    try:
        # An extra: a Repository on one disk does without boto3.
        from coldfusion_server.storage.s3.connection import options_of
        from coldfusion_server.storage.s3.store import S3Store
    except ModuleNotFoundError:
        raise ConfigurationError(
            "The setting s3_bucket needs the package boto3, which is not installed.",
            hint="Install it with: pip install 'coldfusion[server,s3]'",
        ) from None
    return S3Store(options_of(settings))


def open_provider(settings: Settings) -> Provider | None:
    """Return the provider that `settings` name, null where none; raises `ConfigurationError`."""
    options = options_of(settings)
    if options is None:
        return None
    try:
        # An extra: a Repository that gives out tokens itself does without.
        from coldfusion_server.oidc.provider import Provider
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"The setting oidc_issuer needs the package {error.name}, which is not installed.",
            hint="Install it with: pip install 'coldfusion[server,oidc]'",
        ) from None
    return Provider(options)


def _secret(settings: Settings, file: Path) -> bytes:
    if settings.secret is not None:
        return settings.secret.get_secret_value().encode()
    _make_once(file, lambda: secrets.token_bytes(KEY_BYTES).hex().encode())
    return _read_key(file)


def _signing_key(settings: Settings, file: Path, database: Database) -> SigningKey:
    named, text = settings.signing_key_file, settings.signing_secret
    if named is not None and text is not None:
        raise ConfigurationError(
            "signing_key_file and signing_secret are both set, and name two keys.",
            hint="Leave one of them out: the one that no client knows yet.",
        )
    if text is not None:
        return SigningKey.from_secret(text.get_secret_value().encode())
    if named is not None:
        return _read_signing_key(named)
    if not settings.needs_folder:
        # A key in a folder that nobody keeps would be another one after the next start.
        raise ConfigurationError(
            "There is no key to sign bases with, and no data folder to keep one in.",
            hint="Set signing_secret to a long random text, the same for all processes, or "
            "signing_key_file to a file that they all have. Keep it: it cannot be replaced "
            "without every client being told.",
        )
    if not file.exists() and _has_signatures(database):
        raise BadKey(
            f"{file}, the key that bases are signed with, is gone, and there are bases that were "
            "signed with it.",
            hint="Put the copy back that you kept of it: with another key every client refuses "
            "what it downloads. If it is lost for good, stop all processes, make a new one with: "
            f"openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {file}, then "
            "run coldfusion-server key --sign-again, and tell people the new one.",
        )
    _make_once(file, lambda: SigningKey.new().pem)
    return _read_signing_key(file)


def _has_signatures(database: Database) -> bool:
    try:
        database.check_file()
    except DatabaseUnavailable:
        return False  # A data folder that is new.
    with database.read() as session:
        tables = inspect(session.connection())
        # It may be empty, or from before there were signatures.
        if not tables.has_table("bases"):
            return False
        if all(column["name"] != "signature" for column in tables.get_columns("bases")):
            return False
        signed = select(BaseRow.id).where(BaseRow.signature.is_not(None)).limit(1)
        return session.scalar(signed) is not None


def _read_signing_key(file: Path) -> SigningKey:
    try:
        pem = file.read_bytes()
    except OSError as error:
        raise BadKey(
            f"The key in {file}, which bases are signed with, cannot be read: {error.strerror}.",
            hint="Let the server's user read it, or name another file with signing_key_file. A "
            "new one is made with: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 "
            "-out FILE",
        ) from None
    return SigningKey.from_pem(pem, str(file))


def _make_once(file: Path, content: Callable[[], bytes]) -> None:
    """Write `content` to `file` where there is none; of several processes the first one counts."""
    if file.exists():
        return
    new = file.with_name(f"{file.name}.{secrets.token_hex(8)}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(content())
        opened.flush()
        os.fsync(descriptor)
    # A link and not a rename: it fails where another process was first.
    with suppress(FileExistsError):
        file.hardlink_to(new)
    new.unlink()


def _read_key(file: Path) -> bytes:
    """Return the key in `file`; an empty or cut one would let everybody sign."""
    try:
        key = bytes.fromhex(file.read_text(encoding="ascii").strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigurationError(
            f"{file} does not hold a signing key any more.",
            hint="Put the copy back that you kept of it, or remove it and a new one is made; "
            "browsers then have to log in again, webhooks have to be made anew, and running "
            "uploads ask for new URLs by themselves.",
        )
    return key
