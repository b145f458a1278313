"""The audit log: who decided what is in it, nothing is taken out, and what is done to it shows."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import structlog
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from structlog.testing import LogCapture

from coldfusion_server.api.refusals import MOST, Refusals
from coldfusion_server.cli.operator import OPERATOR
from coldfusion_server.db.backup import backup, restore
from coldfusion_server.db.database import Database
from coldfusion_server.events import audit, chain
from coldfusion_server.services import auditing, models, signing, tokens
from coldfusion_server.services.closing import close_by_hand, close_due
from coldfusion_server.services.invitations import invite, revoke_invitation
from coldfusion_server.services.paging import Window
from coldfusion_shared.errors import AuditBroken, DatabaseUnavailable, RoundNotClosable
from coldfusion_shared.schemas.audit import AuditEntry
from coldfusion_shared.schemas.invitations import InvitationRequest
from coldfusion_shared.schemas.models import Policy
from tests.server.backends import Backend, only_sqlite
from tests.server.repository import ANY_UPDATE, MODEL, Repository, repository
from tests.server.test_cli import Run, failed, run  # noqa: F401
from tests.server.test_quarantine import decide, held, strict  # noqa: F401
from tests.server.test_rate_limits import ONE, Time, asked, limited
from tests.server.test_round_way import accepted

MODEL_PATH = f"/v1/models/{MODEL}"


def entries(repo: Repository, action: str | None = None) -> list[AuditEntry]:
    """Return the log, the first entry first."""
    found = auditing.list_entries(repo.ctx, OPERATOR, Window(None, 200), action=action).items
    return found[::-1]


def last(repo: Repository, action: str) -> AuditEntry:
    return entries(repo, action)[-1]


def note(repo: Repository, count: int = 1, **data: Any) -> None:
    for _ in range(count):
        with repo.ctx.database.write() as session:
            audit.note(session, repo.ctx.now(), "ann", "test", reason="ä\n", **data)


def post(repo: Repository, path: str, **body: Any) -> str:
    """Post as a maintainer; return the id of the token."""
    token = repo.token("max", "maintainer")
    answer = repo.client(token).post(path, json=body)
    assert answer.status_code == 200, answer.text
    return token.split("_")[1]


# What is in it.


@only_sqlite
def test_what_is_done_to_tokens_and_invitations_is_noted(repo: Repository) -> None:
    token = repo.token("ann", models=[MODEL])
    made = last(repo, "token.created")
    assert (made.by, made.token, made.subject) == ("operator", None, token.split("_")[1])
    assert made.data == {"name": "ann", "role": "contributor", "models": [MODEL],
                         "expires_at": None}  # fmt: skip
    assert tokens.revoke_token(repo.ctx, "ann") == 1
    assert tokens.revoke_token(repo.ctx, "ann") == 0
    assert [e.data["tokens"] for e in entries(repo, "token.revoked")] == [[made.subject]]
    admin = repo.principal("ada", "admin")
    opened, used = (invite(repo.ctx, InvitationRequest(), admin) for _ in range(2))
    invited = last(repo, "invitation.created")
    assert (invited.by, invited.token) == ("ada", admin.token_id)
    assert invited.data["role"] == "contributor"
    for _ in range(2):
        revoke_invitation(repo.ctx, opened.invitation.id, OPERATOR)
    assert [e.subject for e in entries(repo, "invitation.revoked")] == [opened.invitation.id]
    body = {"code": used.code, "name": "new"}
    answer = repo.client().post("/v1/join", json=body, headers={"Idempotency-Key": "x" * 16})
    joined = last(repo, "invitation.used")
    assert (joined.by, joined.subject) == ("new", used.invitation.id)
    assert joined.data == {"token_made": answer.json()["token"].split("_")[1]}
    text_of_all = "".join(auditing.lines(repo.ctx))
    for secret in (token, used.code, answer.json()["token"]):
        assert secret not in text_of_all
        assert hashlib.sha256(secret.encode()).hexdigest() not in text_of_all


@only_sqlite
def test_a_changed_policy_is_noted_with_what_differs(repo: Repository) -> None:
    created = last(repo, "model.created")
    assert (created.by, created.model, created.data["public"]) == ("operator", MODEL, True)
    policy = Policy(min_contributions=5, screening=ANY_UPDATE, contributor_weights={"a.b": 1.0})
    maintainer = repo.principal("max", "maintainer")
    before = models.get_model(repo.ctx, MODEL, None).policy
    models.set_policy(repo.ctx, MODEL, policy, maintainer)
    changed = last(repo, "model.policy")
    assert (changed.by, changed.token, changed.model) == ("max", maintainer.token_id, MODEL)
    assert changed.data["changed"]["min_contributions"] == [before.min_contributions, 5]
    assert changed.data["changed"]["contributor_weights.a.b"] == [None, 1.0]
    assert "method" not in changed.data["changed"]
    models.set_policy(repo.ctx, MODEL, policy, maintainer)
    assert last(repo, "model.policy").data == {"changed": {}}


@only_sqlite
def test_what_is_decided_on_rounds_and_bases_is_noted(repo: Repository) -> None:
    with pytest.raises(RoundNotClosable):
        close_by_hand(repo.ctx, MODEL, "open", OPERATOR)
    accepted(repo, [1, 2])
    close_due(repo.ctx)
    repo.work()
    # By its policy: nobody has decided that.
    assert not entries(repo, "round.closed")
    who = post(repo, f"{MODEL_PATH}/rollback", version="v0", reason="worse")
    back = last(repo, "model.rolled_back")
    assert (back.by, back.token, back.subject, back.reason) == ("max", who, "v0", "worse")
    post(repo, f"{MODEL_PATH}/rollback", version="v0", reason="again")
    assert len(entries(repo, "model.rolled_back")) == 1
    accepted(repo, [3])
    post(repo, f"{MODEL_PATH}/rounds/open/close", at="2026-06-03T00:00:00Z")
    assert last(repo, "round.scheduled").data == {"to": "2026-06-03T00:00:00Z"}
    post(repo, f"{MODEL_PATH}/rounds/open/close")
    closed = last(repo, "round.closed")
    post(repo, f"{MODEL_PATH}/rounds/{closed.subject}/cancel", reason="no")
    cancelled = last(repo, "round.cancelled")
    assert (cancelled.subject, cancelled.reason) == (closed.subject, "no")
    signing.sign_again(repo.ctx)
    assert last(repo, "key.signed_again").subject == repo.ctx.signing_key.public.id


@only_sqlite
def test_scores_that_a_gate_may_decide_by_are_noted_once(repo: Repository) -> None:
    token = repo.token("eva", "evaluator")
    given = {"suite": "s", "protocol": "frozen", "scores": {"a": 5.0}}
    for _ in range(2):
        answer = repo.client(token).post(f"{MODEL_PATH}/bases/v0/evaluations", json=given)
        assert answer.status_code in (200, 201), answer.text
    (posted,) = entries(repo, "evaluation.posted")
    assert (posted.by, posted.token, posted.subject) == ("eva", token.split("_")[1], "v0")
    assert posted.data == {"suite": "s", "protocol": "frozen", "average": 5.0}


@only_sqlite
def test_what_is_decided_on_contributions_is_noted(strict: Repository) -> None:  # noqa: F811
    repo = strict
    first, second = held(repo), held(repo, 10)
    for _ in range(2):
        assert decide(repo, "release", first).status_code == 200
    assert decide(repo, "reject", second, "a copy").status_code == 200
    released, rejected = (last(repo, f"contribution.{w}") for w in ("released", "rejected"))
    assert (released.subject, released.by, released.reason) == (first, "max", "a new language")
    assert (rejected.subject, rejected.model, rejected.reason) == (second, MODEL, "a copy")
    assert rejected.data == {"contributor": "odd"}
    assert len(entries(repo, "contribution.released")) == 1
    post(repo, f"/v1/contributions/{first}/withdraw", reason="poison")
    post(repo, f"/v1/contributions/{first}/withdraw", reason="poison", erase=True)
    post(repo, f"/v1/contributions/{first}/withdraw", reason="poison", erase=True)
    gone = entries(repo, "contribution.withdrawn")
    assert [(e.data["before"], e.data["erased"]) for e in gone] == [
        ("accepted", False), ("withdrawn", True)]  # fmt: skip
    assert gone[0].reason == "poison"


def test_who_waits_for_wrong_tokens_is_noted_once(tmp_path: Path) -> None:
    with limited(tmp_path, wrong_tokens=3) as repo:
        for n in range(9):
            asked(repo, f"cf_{n:016}_{'A' * 43}", ONE)
        (refused,) = entries(repo, "login.refused")
        assert (refused.by, refused.token, refused.subject) == ("visitor", None, f"{2:016}")
        assert refused.data == {"address": ONE, "untold_before": 0}


def test_an_hour_has_only_so_many_refusals(tmp_path: Path) -> None:
    time = Time()
    with repository(tmp_path / "data") as repo:
        refusals = Refusals(repo.ctx, time)
        for n in range(MOST + 7):
            refusals.tell(f"192.0.2.{n}", None)
        assert len(entries(repo, "login.refused")) == MOST
        time.now += 3601
        refusals.tell(ONE, None)
        assert last(repo, "login.refused").data == {"address": ONE, "untold_before": 7}


@only_sqlite
def test_uploads_are_not_in_it(repo: Repository) -> None:
    before = len(entries(repo))
    accepted(repo, [1])
    assert {e.action for e in entries(repo)[before:]} == {"token.created"}


@only_sqlite
def test_numbers_that_json_lacks_are_noted_as_words(repo: Repository) -> None:
    note(repo, limit=float("inf"))
    assert entries(repo)[-1].data == {"limit": "Infinity"}
    auditing.verify(repo.ctx, None)


# That it is only added to.


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE audit SET reason = 'other' WHERE number = 2",
        "DELETE FROM audit WHERE number = 2",
        "DELETE FROM audit",
        "INSERT INTO audit SELECT * FROM audit WHERE number = 2",
    ],
)
def test_the_database_refuses_changes(repo: Repository, change: str) -> None:
    note(repo, 3)
    before = entries(repo)
    with (
        pytest.raises((DatabaseUnavailable, IntegrityError)) as caught,
        repo.ctx.database.write() as session,
    ):
        session.execute(text(change))
    if not change.startswith("INSERT"):
        assert "only added to" in str(caught.value)
    assert entries(repo) == before


def test_the_database_refuses_its_own_short_cuts(repo: Repository) -> None:
    note(repo, 3)
    sqlite = repo.ctx.database.is_sqlite
    change = (
        "REPLACE INTO audit SELECT * FROM audit WHERE number = 2" if sqlite else "TRUNCATE audit"
    )
    with (
        pytest.raises((DatabaseUnavailable, IntegrityError), match="only added to"),
        repo.ctx.database.write() as session,
    ):
        session.execute(text(change))


def test_entries_of_many_at_once_are_one_chain(repo: Repository) -> None:
    before, barrier = len(entries(repo)), Barrier(8)

    def write(_: int) -> None:
        barrier.wait()
        note(repo, 3)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert auditing.verify(repo.ctx, None).number == before + 24


def test_an_entry_is_kept_with_what_it_tells_and_its_head_is_logged(
    repo: Repository, capture: LogCapture
) -> None:
    note(repo)
    head = auditing.verify(repo.ctx, None)
    assert capture.entries[-1]["head"] == str(head)
    with pytest.raises(RuntimeError), repo.ctx.database.write() as session:
        audit.note(session, repo.ctx.now(), "ann", "never")
        raise RuntimeError
    assert auditing.verify(repo.ctx, head) == head
    assert [entry["action"] for entry in capture.entries if entry["event"] == "audit"] == ["test"]


@pytest.fixture
def capture() -> Iterator[LogCapture]:
    found = LogCapture()
    structlog.configure(processors=[found], cache_logger_on_first_use=False)
    yield found


# What is done to it.


@pytest.fixture
def unguarded(repo: Repository) -> Repository:
    """A Repository with four further entries, whose owner has switched the triggers off."""
    note(repo, 4, a=[1, 2.5, None], b={"ä": "\0"})
    with repo.ctx.database.write() as session:
        if repo.ctx.database.is_sqlite:
            for name in ("update", "delete", "insert"):
                session.execute(text(f"DROP TRIGGER audit_{name}"))
        else:
            session.execute(text("ALTER TABLE audit DISABLE TRIGGER USER"))
    return repo


def test_a_changed_or_removed_row_is_found(unguarded: Repository) -> None:
    repo = unguarded
    head = auditing.verify(repo.ctx, None)
    for change, found in (
        ("UPDATE audit SET reason = 'other' WHERE number = 3", "Entry 3 .* changed"),
        ("DELETE FROM audit WHERE number = 2", "Entry 2 .* removed"),
    ):
        _do(repo, change)
        with pytest.raises(AuditBroken, match=found):
            auditing.verify(repo.ctx, None)
    _do(repo, "DELETE FROM audit WHERE number < 4")
    with pytest.raises(AuditBroken, match="Entry 1 .* removed"):
        auditing.verify(repo.ctx, None)
    _do(repo, "DELETE FROM audit")
    assert auditing.verify(repo.ctx, None) == chain.START
    with pytest.raises(
        AuditBroken, match=f"ends with entry 0, and went up to entry {head.number} "
    ):
        auditing.verify(repo.ctx, head)


def _do(repo: Repository, change: str) -> None:
    with repo.ctx.database.write() as session:
        session.execute(text(change))


@only_sqlite
@pytest.mark.parametrize(
    "change",
    [
        "at = '2026-06-01T12:00:00.000001Z'", "\"by\" = 'eve'", "token = '0000000000000000'",
        "action = 'tests'", "model = 'a/b'", "subject = 'x'", "reason = NULL", "reason = 'ä'",
        "reason = x'c3a40a'", "data = '{}'", "data = replace(data, '2.5', '2.50')",
        "data = ' ' || data", "data = 'no JSON'", "data = '[]'", "data = replace(data, '1', 'NaN')",
        "data = '{\"a\": 0,' || substr(data, 2)", "previous = sha256", "sha256 = previous",
        "sha256 = upper(sha256)", "reason = 5", "at = ''",
    ],
)  # fmt: skip
def test_a_change_of_any_column_is_found(unguarded: Repository, change: str) -> None:
    _do(unguarded, f"UPDATE audit SET {change} WHERE number = 3")
    with pytest.raises(AuditBroken, match="Entry 3 "):
        auditing.verify(unguarded.ctx, None)


# Saved and brought back, shown, checked from the command line.


def test_a_backup_keeps_it(repo: Repository, backend: Backend, tmp_path: Path) -> None:
    note(repo, 3)
    head = auditing.verify(repo.ctx, None)
    backup(repo.ctx.database, tmp_path / "file", lambda done, total: None)
    with backend.database() as url:
        other = Database(url or f"sqlite:///{tmp_path / 'other.db'}")
        restore(other, tmp_path / "file", lambda done, total: None)
        with other.read() as session:
            assert chain.check(audit.entries(session), head) == head
        with pytest.raises((DatabaseUnavailable, IntegrityError)), other.write() as session:
            session.execute(text("DELETE FROM audit"))
        other.close()


@only_sqlite
def test_admins_read_it_page_by_page(repo: Repository) -> None:
    note(repo, 5)
    token = repo.token("ada", "admin")
    total = len(entries(repo))
    numbers, cursor = [], ""
    while cursor is not None:
        page = repo.get(f"/v1/audit?limit=2{cursor and f'&cursor={cursor}'}", token)
        numbers += [entry["number"] for entry in page["items"]]
        cursor = page["next_cursor"]
    assert numbers == list(range(total, 0, -1))
    found = repo.get("/v1/audit?action=test", token)["items"]
    assert len(found) == 5 and found[0]["reason"] == "ä\n"
    assert [e["action"] for e in repo.get(f"/v1/audit?model={MODEL}", token)["items"]] == [
        "model.created"]  # fmt: skip
    assert repo.get("/v1/audit?action=%00", token)["items"] == []
    limited_to_a_model = repo.token("max", "maintainer", [MODEL])
    assert repo.client(limited_to_a_model).get("/v1/audit").status_code == 403


@only_sqlite
def test_the_commands(run: Run, unguarded: Repository, tmp_path: Path) -> None:  # noqa: F811
    head = run("audit", "verify").out.strip()
    count = int(head.split(":")[0])
    assert run("audit", "verify", "--json").json() == {"entries": count, "head": head}
    rows = run("audit", "list", "--action", "test", "--limit", "2").out.splitlines()
    assert len(rows) == 3 and rows[1].split()[0] == str(count)
    assert "2026-06-01 12:00" in rows[1] and "ann" in rows[1]
    assert "Nothing of that kind" in run("audit", "list", "--model", "no/model").out
    exported = tmp_path / "audit.jsonl"
    exported.write_text(run("audit", "export").out, encoding="utf-8")
    assert run("audit", "verify", "--file", exported, "--head", head).out.strip() == head
    note(unguarded)
    newer = run("audit", "verify", "--head", head)
    assert newer.code == 0 and newer.out.startswith(f"{count + 1}:")
    failed(run("audit", "verify", "--file", exported, "--head", newer.out.strip()), "cut off")
    failed(run("audit", "verify", "--head", "7"), "no head")
    failed(run("audit", "verify", "--file", tmp_path / "none"), "cannot be read")
    lines = exported.read_text(encoding="utf-8").splitlines(keepends=True)
    for changed in (lines[1].replace('"by"', '"by":"eve","by"'), " " + lines[1], lines[1].rstrip(),
                    lines[1][:20], "", "\n"):  # fmt: skip
        exported.write_text("".join([lines[0], changed, *lines[2:]]), encoding="utf-8")
        failed(run("audit", "verify", "--file", exported), "Entry 2" if not changed else "Line 2")
    _do(unguarded, "DELETE FROM audit WHERE number = 2")
    failed(run("audit", "verify"), "Entry 2 ", "removed")


@only_sqlite
def test_the_exported_digests_are_those_of_the_documented_form(repo: Repository) -> None:
    note(repo, 2, ä=1, b=[True, None, "\u2028"])
    for line in auditing.lines(repo.ctx):
        entry = json.loads(line)
        told = entry.pop("sha256")
        form = json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert hashlib.sha256(form.encode()).hexdigest() == told


@only_sqlite
def test_standard_output_of_a_command_that_decides_is_its_own(repo: Repository) -> None:
    """A command has no log: what it prints is the token alone."""
    from tests.server.test_backup import PROGRAM

    order: list[str | Path] = [
        PROGRAM,
        "token",
        "create",
        "ann",
        "--role",
        "reader",
        "--data-dir",
        repo.folder,
    ]
    done = subprocess.run(order, capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.startswith("cf_") and len(done.stdout.split()) == 1
    assert last(repo, "token.created").data["name"] == "ann"
