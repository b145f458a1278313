"""Webhooks made, shown, changed and deleted: by whom, within which bounds, without a secret."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from coldfusion_server.cli import app as commands
from coldfusion_server.db import tables
from coldfusion_server.services.fan_out import fan_out
from coldfusion_server.services.waiting import waiting
from coldfusion_server.services.webhooks import list_webhooks
from tests.server.conftest import Prepared
from tests.server.hooks import delivering, happen, make, settled
from tests.server.receiver import receiver, status
from tests.server.repository import MODEL, Repository, repository
from tests.server.test_metrics import counted

PRIVATE = "demo/private"
URL = "https://ci.example.org/hooks/x?token=t0psecret"


@pytest.fixture
def repo(tmp_path: Path, prepared: Prepared, database_url: str | None) -> Iterator[Repository]:
    shutil.copytree(prepared.folder / "repo", tmp_path / "data")
    data = tmp_path / "data"
    with repository(data, database_url, copied=True, webhook_private="true") as opened:
        yield opened


def maintainer(repo: Repository, models: list[str] | None = None) -> Any:
    return repo.client(repo.token("mia", "maintainer", models))


def test_a_new_webhook_shows_its_secret_once_and_its_address_without_one(repo: Repository) -> None:
    hook = make(repo, URL, events=["base.*", "round.rejected", "base.*"], authorization="Bearer x")
    assert hook["secret"].startswith("whsec_")
    assert len(base64.b64decode(hook["secret"].removeprefix("whsec_"))) == 32
    client = maintainer(repo)
    shown = client.get(f"/v1/webhooks/{hook['id']}").json()
    assert shown == {
        "id": hook["id"], "model": MODEL, "url": "https://ci.example.org/hooks/x",
        "events": ["base.*", "round.rejected"], "format": "coldfusion", "has_authorization": True,
        "active": True, "paused_at": None, "failures": 0, "failing_since": None, "waiting": 0,
        "created_by": "mia", "created_at": "2026-06-01T12:00:00Z",
    }  # fmt: skip
    assert client.get("/v1/webhooks").json() == [shown]


def test_nobody_reads_a_secret_out_of_the_database_or_the_audit_log(
    repo: Repository, tmp_path: Path
) -> None:
    hook = make(repo, URL, authorization="Bearer t0ken")
    maintainer(repo).post(f"/v1/webhooks/{hook['id']}/rotate")
    text = "".join(str(row) for row in _everything(repo))
    for secret in ("t0psecret", "t0ken", hook["secret"], hook["secret"][6:], "/hooks/x"):
        assert secret not in text
    assert "https://ci.example.org" in text


def _everything(repo: Repository) -> Iterator[Any]:
    with repo.ctx.database.read() as session:
        for table in tables.Table.metadata.sorted_tables:
            yield from session.execute(select(table))


def test_one_only_changes_what_is_ones_own(repo: Repository) -> None:
    repo.model(PRIVATE, public=False)
    admin = repo.token("ada", "admin")
    private = make(repo, URL, admin, model=PRIVATE)["id"]
    every = make(repo, URL, admin, model=None)["id"]
    own = make(repo, URL, admin)["id"]
    limited = maintainer(repo, [MODEL])
    assert [one["id"] for one in limited.get("/v1/webhooks").json()] == [own]
    for other in (private, every, "0" * 16, "%00"):
        for method, rest, body in (
            ("GET", "", None), ("PATCH", "", {"active": False}), ("DELETE", "", None),
            ("POST", "/rotate", None), ("POST", "/ping", None), ("GET", "/deliveries", None),
        ):  # fmt: skip
            answer = limited.request(method, f"/v1/webhooks/{other}{rest}", json=body)
            assert (answer.status_code, answer.json()["code"]) == (404, "webhook_not_found")
    assert limited.get(f"/v1/webhooks?model={PRIVATE}").status_code == 404
    wanted = {"model": PRIVATE, "url": URL}
    assert limited.post("/v1/webhooks", json=wanted).status_code == 403
    # One of all models is for admins.
    of_all = maintainer(repo)
    assert of_all.post("/v1/webhooks", json={"url": URL}).status_code == 403
    assert {one["id"] for one in of_all.get("/v1/webhooks").json()} == {private, own}
    assert of_all.get(f"/v1/webhooks?model={PRIVATE}").json()[0]["id"] == private
    everybody = repo.client(admin).get("/v1/webhooks").json()
    assert {one["id"] for one in everybody} == {private, every, own}
    # Whoever made one does not matter afterwards.
    assert limited.delete(f"/v1/webhooks/{own}").status_code == 204


@pytest.mark.parametrize(("changes", "status"), [
    ({"url": "https://127.0.0.1.nip.io:22/"}, 422),
    ({"url": "https://169.254.169.254/"}, 422),
    ({"url": "https://user:pw@ci.example.org/"}, 422),
    ({"url": ""}, 422),
    ({"url": "https://ci.example.org/" + "x" * 2000}, 422),
    ({"events": []}, 422),
    ({"events": ["bases.*"]}, 422),
    ({"events": ["base.publish"]}, 422),
    ({"events": ["[a-z]*"]}, 422),
    ({"events": ["base.*"] * 51}, 422),
    ({"format": "slack"}, 422),
    ({"format": "github"}, 422),
    ({"format": "github", "authorization": "Bearer x"}, 422),
    ({"authorization": "Bearer x\r\nHost: y"}, 422),
    ({"authorization": "Bearer ä"}, 422),
    ({"model": "demo/nowhere"}, 404),
    ({"secret": "whsec_mine"}, 422),
])  # fmt: skip
def test_what_cannot_be_is_refused(changes: Any, status: int, repo: Repository) -> None:
    body = {"model": MODEL, "url": URL, **changes}
    answer = maintainer(repo).post("/v1/webhooks", json=body)
    assert answer.status_code == status, answer.text
    assert "t0psecret" not in answer.text and "pw" not in answer.text


def test_there_are_so_many_and_no_more(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coldfusion_server.services.webhooks.MOST", 2)
    make(repo, URL)
    make(repo, URL)
    answer = maintainer(repo).post("/v1/webhooks", json={"model": MODEL, "url": URL})
    assert (answer.status_code, answer.json()["code"]) == (403, "quota_exceeded")
    make(repo, URL, repo.token("ada", "admin"), model=None)


def test_a_list_takes_as_many_statements_for_many_as_for_one(repo: Repository) -> None:
    admin = repo.principal("ada", "admin")
    make(repo, URL)
    with counted(repo) as for_one:
        list_webhooks(repo.ctx, admin)
    for number in range(3):
        repo.model(f"demo/m{number}")
        for _ in range(3):
            make(repo, URL, model=f"demo/m{number}")
    happen(repo, "base.published")
    assert fan_out(repo.ctx)
    with counted(repo) as for_many:
        found = list_webhooks(repo.ctx, admin)
    assert len(for_many) == len(for_one)
    assert sorted(one.waiting for one in found) == [*[0] * 9, 1]


def test_a_change_is_what_it_says_and_is_audited(repo: Repository) -> None:
    hook = make(repo, URL, authorization="Bearer x")
    client, path = maintainer(repo), f"/v1/webhooks/{hook['id']}"
    assert client.patch(path, json={}).json()["active"] is True
    done = client.patch(path, json={"events": ["round.*"], "active": False}).json()
    assert (done["events"], done["active"], done["paused_at"]) == (["round.*"], False, None)
    moved = client.patch(path, json={"url": "https://ci.example.org/other"}).json()
    assert (moved["url"], moved["has_authorization"]) == ("https://ci.example.org/other", True)
    # To another server the header does not go along, unless it is given anew.
    for url in ("https://evil.example.org/", "https://ci.example.org:8443/other"):
        assert not client.patch(path, json={"url": url}).json()["has_authorization"]
        given = client.patch(path, json={"url": URL, "authorization": "Bearer y"}).json()
        assert given["has_authorization"]
    assert not client.patch(path, json={"authorization": None}).json()["has_authorization"]
    refused = ({"url": "http://169.254.169.254/"}, {"format": "github"}, {"model": MODEL})
    for bad in refused:
        assert client.patch(path, json=bad).status_code == 422
    assert client.get(path).json()["format"] == "coldfusion"
    assert client.delete(path).status_code == 204
    assert client.get(path).status_code == 404
    entries = repo.get("/v1/audit", repo.token("ada", "admin"))["items"]
    told = [entry for entry in reversed(entries) if entry["action"].startswith("webhook.")]
    assert told[0]["action"] == "webhook.created" and told[-1]["action"] == "webhook.deleted"
    assert {entry["action"] for entry in told[1:-1]} == {"webhook.changed"}
    assert {entry["model"] for entry in told} == {MODEL}
    assert "t0psecret" not in json.dumps(told) and "Bearer" not in json.dumps(told)


def test_what_waits_for_a_maintainer_tells_of_a_webhook_that_was_given_up(repo: Repository) -> None:
    with receiver(behave=status(410)) as ci:
        hook = make(repo, ci.url)
        happen(repo, "base.published")
        with delivering(repo):
            settled(repo, hook["id"], 1, "given_up")
    found = repo.get("/v1/waiting", repo.token("mia", "maintainer"))
    (item,) = found["items"]
    assert (item["kind"], item["subject"]) == ("webhook", hook["id"])
    assert item["address"] == f"/webhooks/{hook['id']}"
    assert " failed the last time and is sent nothing any more." in item["sentence"]
    assert found["models"][0]["sentence"] == "1 webhook waits for a maintainer"
    for other in (None, repo.token("c", "contributor"), repo.token("e", "evaluator")):
        assert repo.get("/v1/waiting", other) == {"models": [], "items": []}
    health = repo.get("/v1/health", repo.token("mia", "maintainer"))
    (failure,) = health["work"]["failures"]
    assert failure["reason"] == "It answered with status 410."
    assert failure["address"] == item["address"]
    maintainer(repo).patch(f"/v1/webhooks/{hook['id']}", json={"active": True})
    assert waiting(repo.ctx, None).models == []


def test_deliveries_are_paged_filtered_and_shown_with_their_body(repo: Repository) -> None:
    with receiver() as ci:
        hook = make(repo, ci.url)
        happen(repo, *["base.published"] * 3, version="v1")
        with delivering(repo):
            settled(repo, hook["id"], 3, "delivered")
    client, path = maintainer(repo), f"/v1/webhooks/{hook['id']}/deliveries"
    first = client.get(f"{path}?limit=2").json()
    rest = client.get(f"{path}?limit=2&cursor={first['next_cursor']}").json()
    assert (len(first["items"]), len(rest["items"]), rest["next_cursor"]) == (2, 1, None)
    assert client.get(f"{path}?state=failed").json()["items"] == []
    assert client.get(f"{path}?state=lost").status_code == 422
    one = client.get(f"{path}/{first['items'][0]['id']}").json()
    assert one["body"] == json.loads(ci.posted[-1].body)
    other = make(repo, URL)["id"]
    lost = client.get(f"/v1/webhooks/{other}/deliveries/{one['id']}")
    assert (lost.status_code, lost.json()["code"]) == (404, "webhook_not_found")
    # Only what has ended is sent once more, and only while it is active.
    client.patch(f"/v1/webhooks/{hook['id']}", json={"active": False})
    refused = client.post(f"{path}/{one['id']}/redeliver")
    assert (refused.status_code, refused.json()["code"]) == (409, "state_conflict")
    client.patch(f"/v1/webhooks/{hook['id']}", json={"active": True})
    assert client.post(f"{path}/{one['id']}/redeliver").status_code == 202
    assert client.post(f"{path}/{one['id']}/redeliver").status_code == 409


# Commands.


def run(repo: Repository, *words: str, **how: Any) -> Any:
    where = ["--database-url", repo.ctx.settings.database, "--data-dir", str(repo.folder)]
    command = [words[0], *where, *words[1:]]
    return CliRunner().invoke(commands, ["webhook", *command], **how)


def test_the_commands(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLDFUSION_WEBHOOK_PRIVATE", "true")
    empty = run(repo, "list")
    assert (empty.exit_code, empty.stdout[:21]) == (0, "There is no webhook y")
    made = run(repo, "create", "-", "--model", MODEL, "--event", "base.*", input=f"{URL}\n")
    assert made.exit_code == 0 and made.stdout.startswith("whsec_")
    assert "t0psecret" not in made.output
    (one,) = json.loads(run(repo, "list", "--json").stdout)
    hook = one["id"]
    assert (one["model"], one["events"], one["created_by"]) == (MODEL, ["base.*"], None)
    assert hook in run(repo, "list", "--model", MODEL).stdout
    assert "https://ci.example.org/hooks/x" in run(repo, "show", hook).stdout
    assert json.loads(run(repo, "ping", hook, "--json").stdout)["type"] == "webhook.ping"
    assert "webhook.ping" in run(repo, "deliveries", hook).stdout
    assert "There are none" in run(repo, "deliveries", hook, "--state", "failed").stdout
    (delivery,) = json.loads(run(repo, "deliveries", hook, "--json").stdout)
    waits = run(repo, "redeliver", hook, delivery["id"])
    assert waits.exit_code != 0
    rotated = run(repo, "rotate", hook)
    assert rotated.stdout.startswith("whsec_") and rotated.stdout != made.stdout
    assert "paused" in run(repo, "pause", hook).stdout
    assert "paused" in run(repo, "list").stdout
    assert "active" in run(repo, "resume", hook).stdout
    assert "deleted" in run(repo, "delete", hook).stdout
    assert run(repo, "show", hook).exit_code != 0
    assert json.loads(run(repo, "list", "--json").stdout) == []


def test_a_header_that_cannot_be_is_not_repeated(repo: Repository) -> None:
    environment = {"COLDFUSION_WEBHOOK_AUTHORIZATION": "Bearer t0psecret\n"}
    failed = run(repo, "create", URL, env=environment)
    assert failed.exit_code != 0
    assert "t0psecret" not in failed.output + str(failed.exception)
