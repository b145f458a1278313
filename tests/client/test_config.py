from __future__ import annotations

import stat
from pathlib import Path

import pytest

from coldfusion_client import config
from coldfusion_shared.errors import ConfigurationError


def test_credentials_are_for_the_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "credentials.json"
    credentials = config.Credentials()
    credentials.remember("http://a", "secret")
    config.save_credentials(path, credentials)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert config.load_credentials(path) == credentials


def test_the_last_server_is_the_default_and_forgotten_with_its_token() -> None:
    credentials = config.Credentials()
    credentials.remember("http://a", "1")
    credentials.remember("http://b", "2")
    assert config.choose_server(None, credentials) == "http://b"
    assert config.choose_server("http://c/", credentials) == "http://c"
    assert credentials.forget("http://b")
    assert not credentials.forget("http://b")
    assert credentials.default == "http://a"


def test_without_a_server_the_way_to_one_is_told() -> None:
    with pytest.raises(ConfigurationError) as caught:
        config.choose_server(None, config.Credentials())
    assert "coldfusion-client login URL" in (caught.value.hint or "")


def test_a_damaged_file_is_said_without_the_token(tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    path.write_text('{"tokens": {"http://a": ["cf_secret"]}}')
    with pytest.raises(ConfigurationError, match="damaged") as caught:
        config.load_credentials(path)
    assert "cf_secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://Models.Example.org/", "https://models.example.org"),
        (" http://localhost:8000/cf/ ", "http://localhost:8000/cf"),
    ],
)
def test_addresses_are_normalised(text: str, url: str) -> None:
    assert config.server_url(text) == url


@pytest.mark.parametrize(
    "text",
    ["", "localhost:8000", "ftp://a", "http://", "http://u:p@a", "http://a?t=1", "http://a:b"],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        config.server_url(text)


@pytest.mark.parametrize("token", ["", "a b", "a\nb", "tökén"])
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        config.check_token(token)
    assert not token or token not in caught.value.message


@pytest.mark.parametrize(
    ("server", "exposed"),
    [
        ("http://models.org", True),
        ("https://models.org", False),
        ("http://localhost:1", False),
        ("http://[::1]:1", False),
    ],
)
def test_unencrypted_servers_are_known(server: str, exposed: bool) -> None:
    assert config.is_exposed(server) is exposed
