"""
A whole round by real programs, with secrets that are known: they turn up nowhere else.

Looked through are the server's log, what was answered to others and to mistakes, the database and
its backup, what the client prints and keeps, and the command lines and names of all processes.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import secrets
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from coldfusion_server.api.session import COOKIE
from coldfusion_server.db.backup import backup
from coldfusion_server.db.database import Database
from coldfusion_server.services.context import open_context
from coldfusion_server.settings import Settings
from tests.e2e.programs import Client, Server, wait_until
from tests.server.repository import MODEL, body_file, declaration, repository


@dataclass
class Round:
    """What was kept secret, and everywhere where it might have been told."""

    folder: Path
    server: Server
    secrets: dict[str, str] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)

    @property
    def http(self) -> httpx.Client:
        return httpx.Client(base_url=self.server.url, trust_env=False, timeout=60)

    def hear(self, what: str, answer: httpx.Response) -> httpx.Response:
        """Keep an answer."""
        self.told[f"{what} {len(self.told)}"] = answer.text + repr(answer.headers.raw)
        return answer

    def contribute(self, who: str, seed: int) -> None:
        """Go the whole way; the upload's URLs, which only this contributor is told, are secrets."""
        raw = body_file(seed)
        headers = {"Authorization": f"Bearer {self.secrets[who]}"}
        with self.http as http:
            answer = http.post(
                f"/v1/models/{MODEL}/contributions",
                json=declaration(raw),
                headers={**headers, "Idempotency-Key": f"the key of {who}"},
            ).raise_for_status()
            plan = answer.json()["upload"]
            (part,) = plan["files"][0]["parts"]
            self.secrets[f"{who}'s URL"] = re.findall("signature=([0-9a-f]{64})", part["url"])[0]
            # Cut off, refused and retried on its way, as uploads are.
            self.hear("short part", http.put(part["url"], content=raw[:10]))
            self.hear("strange part", http.put(part["url"].replace("size=", "size=1"), content=raw))
            http.put(part["url"], content=raw).raise_for_status()
            where = f"/v1/contributions/{plan['contribution']}"
            self.hear("completed", http.post(f"{where}/complete", headers=headers))
            self.hear("receipt", http.get(where))

    def blunder(self) -> None:
        """Say secrets where they do not belong."""
        token = self.secrets["ann"]
        with self.http as http:
            for value in (f"Basic {token}", token, f"Bearer {token}x", f"Bearer  {token} {token}"):
                self.hear("header", http.get("/v1/whoami", headers={"Authorization": value}))
            for path in (f"/v1/models?token={token}", f"/v1/models?limit={token}",
                         f"/login?next={token}"):  # fmt: skip
                http.get(path)
            self.hear("form", http.post("/login", data={"token": token[:-1]}))
            bad = {"Authorization": f"Bearer {token}", "Idempotency-Key": "x" * 9}
            self.hear("body", http.post(f"/v1/models/{MODEL}/contributions", json=1, headers=bad))

    def look_in(self) -> None:
        """Log in with a browser's form and out again."""
        with self.http as http:
            answer = http.post("/login", data={"token": self.secrets["ann"]})
            cookie = answer.cookies[COOKIE]
            self.secrets["ann's session"] = cookie.rsplit(".", 1)[1]
            for path in ("/", f"/models/{MODEL}"):
                self.hear("page", http.get(path, headers={"Cookie": f"{COOKIE}={cookie}"}))

    def use_client(self) -> None:
        """Use the command line, well and badly."""
        home = self.folder / "home"
        home.mkdir()
        client = Client(self.server, home, self.secrets["bob"])
        wrong = {"COLDFUSION_TOKEN": self.secrets["bob"][:-1]}
        try:
            for words, settings in ((("doctor",), {}), (("status", "--json"), {}),
                                    (("status",), wrong)):  # fmt: skip
                client.settings = settings
                done = client.run(*words)
                self.told[f"client {words} {settings.keys()}"] = done.stdout + done.stderr
        finally:
            client.end()
        for file in home.rglob("*"):
            if file.is_file():
                self.told[f"file {file}"] = file.read_bytes().decode("latin-1")


def processes() -> str:
    """Return the command lines of all processes, as every user of the machine sees them."""
    found = ""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += file.read_bytes().replace(b"\0", b" ").decode("latin-1") + "\n"
        except OSError:
            continue  # It has ended.
    return found


def dumped(folder: Path) -> str:
    """Return all that a backup of the database has."""
    database = Database(f"sqlite:///{folder / 'data' / 'coldfusion.db'}")
    backup(database, folder / "dump", lambda done, total: None)
    database.close()
    return gzip.decompress((folder / "dump").read_bytes()).decode()


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Round]:
    """A round with everything that can be said in one."""
    folder = tmp_path_factory.mktemp("secrets")
    known = {"signing_secret": secrets.token_urlsafe(40), "secret": secrets.token_urlsafe(40)}
    with repository(folder / "data") as made:
        made.model(min_contributions=2)
        tokens = {name: made.token(name) for name in ("ann", "bob")}
        tokens["mia"] = made.token("mia", "maintainer")
    (folder / "data" / "signing-key.pem").unlink()
    settings = {f"COLDFUSION_{name.upper()}": value for name, value in known.items()}
    settings["COLDFUSION_LOG_LEVEL"] = "debug"
    settings["COLDFUSION_WRONG_TOKENS"] = "0"
    # How a line is written, for people or for programs, changes nothing of what it tells.
    round = Round(folder, Server(folder / "data", settings=settings))
    # The signing key is derived from its secret; the data folder was made with another one.
    round.secrets = {**known, **tokens}
    with sqlite3.connect(folder / "data" / "coldfusion.db") as database:
        database.execute("UPDATE bases SET signature = NULL")
    database.close()
    round.server.start()
    try:
        for seed, who in enumerate(("ann", "bob")):
            round.contribute(who, seed)
        round.blunder()
        round.look_in()
        round.use_client()
        with round.http as http:
            model = f"/v1/models/{MODEL}"
            wait_until(lambda: http.get(model).json()["current"] == "v1", "the base")
            round.hear("base", http.get(f"{model}/bases/v1"))
            round.hear("events", http.get("/v1/events"))
        round.told["processes"] = processes()
    finally:
        round.server.end()
    round.told["log"] = (folder / "server.log").read_text()
    round.told["backup"] = dumped(folder)
    for file in (folder / "data").rglob("*"):
        if file.is_file():
            round.told[f"file {file.name}"] = file.read_bytes().decode("latin-1")
    yield round


def test_no_secret_is_told_anywhere(done: Round) -> None:
    found = []
    for name, secret in done.secrets.items():
        # Of a token the first part, its id, is no secret.
        needle = secret.split("_", 2)[2] if secret.startswith("cf_") else secret
        assert len(needle) >= 32
        found += [(name, where) for where, text in done.told.items() if needle in text]
    assert not found


def test_it_was_looked_where_something_is(done: Round) -> None:
    log = done.told["log"]
    assert "/v1/uploads/" in log and "/login" in log and log.count("status") > 10
    assert "coldfusion-server" in done.told["processes"] and "cf_" not in log
    assert any(where.startswith("file coldfusion.db") for where in done.told)
    # Digests are in it, and readable: a compressed file would show nothing.
    assert hashlib.sha256(done.secrets["ann"].encode()).hexdigest() in done.told["backup"]


def test_the_data_folder_is_for_the_servers_user_alone(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    open_context(Settings(data_dir=folder)).close()
    assert folder.stat().st_mode & 0o777 == 0o700
    for name in ("secret.key", "signing-key.pem"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600
