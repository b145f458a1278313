"""A server as a person means it: by an argument, the environment, or what `login` kept."""

from __future__ import annotations

import os
from collections.abc import Callable

import httpx

from coldfusion_client import config
from coldfusion_client.api import Api
from coldfusion_client.connection import Connection
from coldfusion_client.patience import Patience

SERVER_VARIABLE = "COLDFUSION_SERVER"
TOKEN_VARIABLE = "COLDFUSION_TOKEN"


def choose(server: str | None, token: str | None = None) -> tuple[str, str | None]:
    """
    Return the URL of the server that is meant and the token for it, null where there is none.

    Args:
        server: its URL; null: ``COLDFUSION_SERVER``, else the one that was logged in to last.
        token: null: ``COLDFUSION_TOKEN``, else the one that `login` kept for that server.

    Raises:
        ConfigurationError: no server is known, or URL, token or the file of tokens is no good.
    """
    credentials = config.load_credentials(config.credentials_file())
    url = config.choose_server(server or os.environ.get(SERVER_VARIABLE) or None, credentials)
    # A secret that comes from a file often has a line break at its end.
    given = (token or os.environ.get(TOKEN_VARIABLE, "")).strip()
    chosen = given or credentials.tokens.get(url)
    if chosen is not None:
        config.check_token(chosen)
    return url, chosen


def open_api(url: str, token: str | None, notify: Callable[[str], None]) -> Api:
    """Return the API of the server at `url`, which tells `notify` when it has to try again."""
    connection = Connection(url, token)
    connection.on_retry(notify)
    return Api(connection)


def open_briefly(url: str, token: str | None, seconds: float) -> Api:
    """Return the API of the server at `url`, for one try that ends after `seconds`."""
    return Api(Connection(url, token, patience=Patience(tries=1), limit=httpx.Timeout(seconds)))
