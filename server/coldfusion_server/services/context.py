"""What every service works with."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from coldfusion_server.db.database import Database
from coldfusion_server.settings import Settings
from coldfusion_server.storage import ObjectStore
from coldfusion_server.storage.local import LocalStore
from coldfusion_shared import __version__
from coldfusion_shared.errors import ConfigurationError

SOFTWARE = f"coldfusion {__version__}"
KEY_BYTES = 32


def utc_now() -> datetime:
    """Return the time, with time zone."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Context:
    """The settings in force, database, store, signing key, clock, and the pulse of long work."""

    settings: Settings
    database: Database
    store: ObjectStore
    secret: bytes
    now: Callable[[], datetime] = field(default=utc_now)
    # Called by long work all the time: it shows that the work moves, and may end it.
    pulse: Callable[[], None] = field(default=lambda: None)

    def close(self) -> None:
        """Close the connections to database and store."""
        self.database.close()
        self.store.close()


def open_context(settings: Settings) -> Context:
    """
    Connect to what `settings` name; the data folder is made where anything is kept in it.

    Raises:
        ConfigurationError: the data folder cannot be written, or a setting cannot be used.
    """
    folder = settings.data_dir
    try:
        if settings.needs_folder:
            folder.mkdir(parents=True, exist_ok=True)
        secret = _secret(settings, folder / "secret.key")
    except OSError as error:
        raise ConfigurationError(
            f"The data folder {str(folder)!r} cannot be used: {error.strerror}.",
            hint="Choose another with --data-dir.",
        ) from None
    database = Database(
        settings.database, pool=settings.database_pool, overflow=settings.database_overflow
    )
    return Context(settings, database, open_store(settings), secret)


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


def _secret(settings: Settings, file: Path) -> bytes:
    """Return the signing key; of several processes that start at once, the first one's counts."""
    if settings.secret is not None:
        return settings.secret.get_secret_value().encode()
    if not file.exists():
        new = file.with_name(f"{file.name}.{secrets.token_hex(8)}")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as opened:
            opened.write(secrets.token_bytes(KEY_BYTES).hex())
            opened.flush()
            os.fsync(descriptor)
        # A link and not a rename: it fails where another process was first.
        with suppress(FileExistsError):
            file.hardlink_to(new)
        new.unlink()
    return _read_key(file)


def _read_key(file: Path) -> bytes:
    """Return the key in `file`; an empty or cut one would let everybody sign."""
    try:
        key = bytes.fromhex(file.read_text(encoding="ascii").strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigurationError(
            f"{file} does not hold a signing key any more.",
            hint="Remove it and a new one is made; browsers then have to log in again, and running "
            "uploads ask for new URLs by themselves.",
        )
    return key
