"""Signing in, as browsers and programs do it."""

from __future__ import annotations

import re
import secrets
from typing import Any

from fastapi.testclient import TestClient

from tests.oidc.provider import DASHBOARD, PROGRAM, SECRET, Provider
from tests.server.repository import Repository


def settings_for(provider: Provider, **changes: Any) -> dict[str, Any]:
    """Return the settings of a Repository whose people sign in by `provider`."""
    return {
        "oidc_issuer": provider.url,
        "oidc_client_id": DASHBOARD,
        "oidc_client_secret": SECRET,
        "oidc_device_client_id": PROGRAM,
        "oidc_name": "Example <b>",
        "oidc_roles": {"chiefs": "maintainer", "staff": "contributor"},
        **changes,
    }


def start(browser: TestClient, target: str = "/") -> str:
    """Press the button; return where the browser is sent."""
    answer = browser.get("/login/oidc", params={"next": target}, follow_redirects=False)
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


def visit(repo: Repository, provider: Provider, target: str = "/") -> tuple[TestClient, Any]:
    """Sign in with a new browser; return it, and the page that it ends on."""
    browser = repo.client()
    return browser, come_back(browser, provider.answer(start(browser, target)))


def come_back(browser: TestClient, address: str) -> Any:
    """Return the page at the address to which the provider sends the browser."""
    return browser.get(re.sub(r"^http://testserver", "", address), follow_redirects=False)


def exchange(repo: Repository, id_token: str, key: str | None = None) -> Any:
    """Ask for a token for an id token."""
    headers = {"Idempotency-Key": key or secrets.token_hex(16)}
    return repo.client().post("/v1/sign-in", json={"id_token": id_token}, headers=headers)
