"""Which servers we know, and our token at each: one file that only its owner can read."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from platformdirs import user_config_path
from pydantic import BaseModel, ValidationError

from coldfusion_client.disk import write_atomically
from coldfusion_shared.errors import ConfigurationError

PRIVATE = 0o600


class Credentials(BaseModel):
    """What `login` keeps."""

    format: int = 1
    default: str | None = None
    tokens: dict[str, str] = {}

    def remember(self, server: str, token: str) -> None:
        """Keep `token` for `server`, which becomes the default."""
        self.tokens[server] = token
        self.default = server

    def forget(self, server: str) -> bool:
        """Drop the token for `server`; return whether there was one."""
        found = self.tokens.pop(server, None) is not None
        if self.default == server:
            self.default = next(iter(self.tokens), None)
        return found


def config_folder() -> Path:
    """Return ``COLDFUSION_CONFIG`` or the platform's folder for what a program keeps."""
    folder = os.environ.get("COLDFUSION_CONFIG")
    return Path(folder) if folder else user_config_path("coldfusion")


def credentials_file() -> Path:
    """Return where credentials are kept."""
    return config_folder() / "credentials.json"


def load_credentials(path: Path) -> Credentials:
    """
    Return what was kept at `path`; nothing if there is no file.

    Raises:
        ConfigurationError: the file is not ours.
    """
    try:
        return Credentials.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return Credentials()
    except ValidationError:
        # Not the validation error's text, which would show the token.
        raise ConfigurationError(
            f"{path} is damaged.", hint="Delete it and log in again: coldfusion-client login URL"
        ) from None


def save_credentials(path: Path, credentials: Credentials) -> None:
    """Write `credentials` to `path`, for the owner's eyes only."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomically(path, credentials.model_dump_json(indent=2).encode(), PRIVATE)


def choose_server(given: str | None, credentials: Credentials) -> str:
    """
    Return the server to talk to: the one that is given, else the default.

    Raises:
        ConfigurationError: neither is there, or it is no URL.
    """
    if given is not None:
        return server_url(given)
    if credentials.default is None:
        raise ConfigurationError(
            "No server is known yet.",
            hint="Log in with: coldfusion-client login URL, or add --server URL",
        )
    return credentials.default


def server_url(text: str) -> str:
    """
    Return `text` as a server's URL without a slash at the end.

    Raises:
        ConfigurationError: it is not one.
    """
    try:
        parts = urlsplit(text.strip())
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigurationError(
            f"{text!r:.100} is not a server's address.",
            hint="It looks like https://models.example.org or http://localhost:8000; "
            "a token does not belong into it.",
        )
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}"


def check_token(token: str) -> None:
    """Raise `ConfigurationError` unless `token` can be sent in a header."""
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigurationError(
            "That is no token." if token else "No token was given.",
            hint="Give it at the prompt, with --token, in COLDFUSION_TOKEN or on standard input; "
            "the server's operator makes one with: coldfusion-server token create NAME",
        )
    if token.startswith("cfi_"):
        raise ConfigurationError(
            "That is the code of an invitation, and no token yet.",
            hint="Use it with: coldfusion-client join URL CODE",
        )


def is_exposed(server: str) -> bool:
    """Return whether a token would travel to `server` unencrypted over a network."""
    parts = urlsplit(server)
    return parts.scheme == "http" and parts.hostname not in {"localhost", "127.0.0.1", "::1"}
