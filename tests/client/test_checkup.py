from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from coldfusion_client.api import Api
from coldfusion_client.checkup import Finding, Verdict, check_server, check_up, clock, proxies
from tests.client.repository import MODEL, TOKEN, Repository, problem

BIN = Path(sys.executable).parent
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
Look = Callable[[], dict[str, Finding]]


@pytest.fixture
def look(url: str, monkeypatch: pytest.MonkeyPatch) -> Look:
    monkeypatch.setenv("COLDFUSION_TOKEN", TOKEN)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)

    def looked() -> dict[str, Finding]:
        return {one.check: one for one in check_up(url)}

    return looked


def test_where_all_is_well_nothing_fails(look: Look) -> None:
    found = look()
    assert {one.verdict for one in found.values()} <= {Verdict.OK, Verdict.NOTE}
    assert set(found) >= {"client", "proxy", "server", "tls", "clock", "token", "cache", "training"}
    assert found["token"].message == "ann (contributor), does not expire"
    assert "torch" in found["training"].message


def test_no_server_and_a_server_that_is_away_fail_and_the_rest_is_looked_at() -> None:
    for server in (None, "http://127.0.0.1:9"):
        found = {one.check: one for one in check_up(server)}
        assert found["server"].verdict == Verdict.FAILED
        assert found["server"].hint
        assert "cache" in found and "token" not in found


def test_the_token(look: Look, repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    repository.expires_at = datetime.now(UTC) + timedelta(days=2, hours=1)
    assert (look()["token"].verdict, look()["token"].message) == (
        Verdict.NOTE, "ann (contributor), expires in 2 d",
    )  # fmt: skip
    repository.expires_at, repository.role = None, "reader"
    assert "may not contribute" in look()["token"].message
    monkeypatch.setenv("COLDFUSION_TOKEN", "cf_wrong")
    assert look()["token"].verdict == Verdict.FAILED
    monkeypatch.delenv("COLDFUSION_TOKEN")
    assert "coldfusion-client login" in (look()["token"].hint or "")


def test_a_server_that_fails_is_said(look: Look, repository: Repository) -> None:
    repository.faults.append(lambda _: problem(503, "database_unavailable", "No database."))
    assert look()["server"].message == "No database."


@pytest.mark.parametrize(
    ("seconds", "verdict", "said"),
    [(2, "ok", "within 2 s"), (-900, "failed", "15 min behind"), (7200, "failed", "120 min ahead")],
)
def test_the_clock(seconds: float, verdict: str, said: str) -> None:
    found = clock(format_datetime(NOW, usegmt=True), NOW + timedelta(seconds=seconds))
    assert found.verdict == verdict and said in found.message


@pytest.mark.parametrize("date", [None, "", "yesterday"])
def test_a_server_without_a_clock(date: str | None) -> None:
    assert clock(date, NOW).verdict == Verdict.OK


def test_a_clock_that_is_off_is_seen_in_the_servers_answer(
    connect: Callable[..., Api], repository: Repository
) -> None:
    repository.headers["Date"] = format_datetime(datetime.now(UTC) - timedelta(hours=3))
    found = {one.check: one for one in check_server(connect(), TOKEN)}
    assert found["clock"].verdict == Verdict.FAILED
    assert found["token"].verdict == Verdict.OK


def test_proxies_are_told_without_their_password() -> None:
    url = "https://models.example.org"
    assert proxies(url, {}, bypassed=False).message == "none is set"
    assert proxies(url, {"http": "http://a:1"}, bypassed=False).message == "none is set"
    for proxy in ("http://ann:secret@proxy.test:3128", "ann:secret@proxy.test:3128"):
        said = proxies(url, {"all": proxy}, bypassed=False).message
        assert said == "requests go through proxy.test:3128"
    assert "not used" in proxies(url, {"https": "http://p:1"}, bypassed=True).message


def test_certificates_that_are_not_there(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_DIR", "/none/ü")
    (found,) = [one for one in check_up("http://127.0.0.1:9") if one.check == "tls"]
    assert found.verdict == Verdict.FAILED and "/none/ü" in found.message


def test_a_cache_that_cannot_be_written(
    look: Look, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("COLDFUSION_CACHE", str(tmp_path / "file" / "cache"))
    assert look()["cache"].verdict == Verdict.FAILED


def test_without_torch_contributing_alone_is_impossible(
    look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coldfusion_client.checkup.TRAINING", ("torch", "none-such"))
    assert look()["training"].verdict == Verdict.NOTE
    assert "none-such" in look()["training"].message


def test_the_command_as_a_process(url: str, tmp_path: Path) -> None:
    settings = {**os.environ, "COLDFUSION_SERVER": url, "COLDFUSION_TOKEN": TOKEN}
    # A locale and a terminal that know neither colours nor letters beyond ASCII.
    settings |= {"LC_ALL": "C", "TERM": "dumb", "COLUMNS": "40"}
    settings |= {"COLDFUSION_CACHE": str(tmp_path / "cache ü"), "PYTHONIOENCODING": "ascii"}
    command = [str(BIN / "coldfusion-client"), "doctor"]

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *more], env=settings, capture_output=True, text=True)

    good = run()
    assert good.returncode == 0, good.stdout + good.stderr
    assert f"server: {url}, 0.1.0" in good.stdout and "cache \\xfc" in good.stdout
    data = json.loads(run("--json").stdout)
    assert data["ok"] and {one["verdict"] for one in data["checks"]} <= {"ok", "note"}
    assert run("--quiet").stdout == ""
    settings["COLDFUSION_TOKEN"] = "cf_wrong"
    bad = run("--quiet")
    assert (bad.returncode, bad.stdout) == (1, "token: The token is not valid.\n")
    assert MODEL not in bad.stderr
