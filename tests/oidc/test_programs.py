"""The real programs and a real browser, with a provider beside them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from tests.dashboard.browser import PATIENCE_MS, chromium_running, needs_chromium
from tests.e2e.programs import BIN, WAIT_SECONDS, Client, Server
from tests.oidc.provider import Provider, code_in
from tests.oidc.visit import settings_for


@pytest.fixture(scope="module")
def server(_provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    values = settings_for(_provider, oidc_name="Example")
    written = {
        f"COLDFUSION_{name.upper()}": json.dumps(value) if isinstance(value, dict) else value
        for name, value in values.items()
    }
    server = Server(tmp_path_factory.mktemp("oidc") / "data", settings=written)
    server.start()
    yield server
    server.end()


def test_the_client_signs_in_by_a_code_and_keeps_the_token(
    server: Server, provider: Provider, tmp_path: Path
) -> None:
    provider.slow_down = 1
    client = Client(server, tmp_path, token="")
    try:
        process = client.start("login", server.url, "--device", "--json")
        assert process.stderr is not None
        code = next(filter(None, map(code_in, process.stderr)))
        provider.type_code(code)
        output, errors = process.communicate(timeout=WAIT_SECONDS)
    finally:
        client.end()
    assert process.returncode == 0, errors
    assert json.loads(output)["name"] == "ann" and "token" not in json.loads(output)
    kept = json.loads((tmp_path / "config" / "credentials.json").read_text())["tokens"][server.url]
    assert kept not in output + errors
    headers = {"Authorization": f"Bearer {kept}"}
    url = f"{server.url}/v1/whoami"
    whoami = httpx.get(url, headers=headers, trust_env=False, timeout=120).json()
    assert (whoami["name"], whoami["role"]) == ("ann", "contributor")
    assert whoami["expires_at"] is not None


def test_whoever_refuses_at_the_provider_is_told(
    server: Server, provider: Provider, tmp_path: Path
) -> None:
    client = Client(server, tmp_path, token="")
    try:
        process = client.start("login", server.url, "--device")
        assert process.stderr is not None
        provider.type_code(next(filter(None, map(code_in, process.stderr))), "deny")
        _, errors = process.communicate(timeout=WAIT_SECONDS)
    finally:
        client.end()
    assert process.returncode == 4
    assert "Error: The sign-in was refused at the provider." in errors


def test_half_a_configuration_does_not_start(server: Server, tmp_path: Path) -> None:
    ended = subprocess.run(
        [str(BIN / "coldfusion-server"), "up", "--data-dir", str(tmp_path / "data")],
        env={**server.environment, "COLDFUSION_OIDC_CLIENT_ID": ""},
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
    )
    assert ended.returncode == 1
    assert "oidc_issuer is set, and oidc_client_id is not." in ended.stderr
    assert "Traceback" not in ended.stderr and not (tmp_path / "data").exists()


@needs_chromium
def test_a_person_signs_in_and_out_in_a_browser(server: Server, provider: Provider) -> None:
    with chromium_running() as browser:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        faults: list[str] = []
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(f"{server.url}/login?next=/?from=login")
        page.get_by_role("link", name="Sign in with Example").click()
        expect(page.get_by_role("heading")).to_have_text("Sign in at the provider")
        page.get_by_role("button", name="deny").click()
        expect(page.get_by_role("alert")).to_contain_text("refused at the provider")
        # A page with the status 403 is a fault to the console alone.
        faults.clear()
        page.get_by_role("link", name="Sign in with Example").click()
        page.get_by_role("button", name="allow").click()
        # The strict cookie goes along with the very next page.
        page.wait_for_url(f"{server.url}/?from=login")
        expect(page.get_by_label("Session")).to_contain_text("ann")
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_role("link", name="Log in", exact=True)).to_be_visible()
        assert faults == []
