"""Events reach webhooks: signed, at least once, by one deliverer or several."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from standardwebhooks.webhooks import Webhook as Oracle
from standardwebhooks.webhooks import WebhookVerificationError

from coldfusion_server import deliverer as deliverer_module
from coldfusion_server.db.tables import WebhookRow
from coldfusion_server.events.webhooks import messages
from coldfusion_server.events.webhooks.posting import Answer, Letter, Poster
from coldfusion_server.services import fan_out as fan_out_module
from coldfusion_server.services.delivering import claim, letter_of, record
from coldfusion_server.services.fan_out import fan_out
from coldfusion_server.settings import EVERYWHERE
from coldfusion_shared.schemas.webhooks import WebhookFormat
from tests.server.conftest import Prepared
from tests.server.hooks import deliveries, delivering, eventually, happen, make, settled
from tests.server.receiver import PATIENCE_SECONDS, Posted, Receiver, receiver, status
from tests.server.repository import MODEL, Repository, repository


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliverer_module, "PAUSE_SECONDS", 0.02)


@pytest.fixture
def repo(tmp_path: Path, prepared: Prepared, database_url: str | None) -> Iterator[Repository]:
    shutil.copytree(prepared.folder / "repo", tmp_path / "data")
    data = tmp_path / "data"
    with repository(data, database_url, copied=True, webhook_private="true") as opened:
        yield opened


@pytest.fixture
def ci() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


def checked(posted: Posted, secret: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what was posted, once the specification's own library has found it genuine."""
    # It compares with the time, and the tests' clock stands still in a time of its own.
    monkeypatch.setattr(Oracle, "_Webhook__verify_timestamp", _timestamp, raising=True)
    found: dict[str, Any] = Oracle(secret).verify(posted.body, posted.headers)
    return found


def _timestamp(self: Any, header: str) -> Any:
    return datetime.fromtimestamp(float(header), tz=UTC)


def test_an_event_arrives_signed_and_as_the_list_tells_it(
    repo: Repository, ci: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = make(repo, ci.url + "?token=t0psecret", authorization="Bearer x")
    (number,) = happen(repo, "base.published", version="v1", text="ä „quoted“")
    with delivering(repo):
        (posted,) = ci.wait(1)
        (one,) = settled(repo, hook["id"], 1, "delivered")
    (told,) = repo.get(f"/v1/events?after={number - 1}")
    assert checked(posted, hook["secret"], monkeypatch) == told
    assert posted.path == "/hook?token=t0psecret"
    assert posted.headers["authorization"] == "Bearer x"
    assert posted.headers["content-type"] == "application/json"
    assert posted.id == one["id"]
    assert (one["event"], one["type"], one["attempts"]) == (number, "base.published", 1)
    assert (one["status"], one["error"]) == (204, None)
    wrong = Oracle(messages.new_secret())
    with pytest.raises(WebhookVerificationError):
        wrong.verify(posted.body, posted.headers)
    with pytest.raises(WebhookVerificationError):
        Oracle(hook["secret"]).verify(posted.body + b" ", posted.headers)


def test_the_specification_refuses_what_is_older_than_five_minutes() -> None:
    secret, body = messages.new_secret(), b"{}"
    for minutes, good in ((0, True), (6, False)):
        now = datetime.now(UTC) - timedelta(minutes=minutes)
        headers = messages.headers_of("m", now, body, [secret], WebhookFormat.COLDFUSION, None)
        lower = {name.lower(): value for name, value in headers.items()}
        if good:
            assert Oracle(secret).verify(body, lower) == {}
        else:
            with pytest.raises(WebhookVerificationError):
                Oracle(secret).verify(body, lower)


def test_patterns_choose(repo: Repository, ci: Receiver) -> None:
    hook = make(repo, ci.url, events=["base.*", "round.rejected"])
    kinds = "base.published", "round.closed", "base.measured", "round.rejected", "model.policy"
    happen(repo, *kinds)
    with delivering(repo):
        settled(repo, hook["id"], 3, "delivered")
    told = [one["type"] for one in reversed(deliveries(repo, hook["id"]))]
    assert told == ["base.published", "base.measured", "round.rejected"]


def test_github_gets_a_repository_dispatch(repo: Repository, ci: Receiver) -> None:
    url = f"http://127.0.0.1:{ci.port}/repos/lab/model/dispatches"
    hook = make(repo, url, format="github", authorization="Bearer github_pat_x")
    happen(repo, "base.published", version="v1")
    with delivering(repo):
        (posted,) = ci.wait(1)
    body = json.loads(posted.body)
    assert (set(body), body["event_type"]) == ({"event_type", "client_payload"}, "base.published")
    assert body["client_payload"]["data"] == {"version": "v1"}
    # GitHub takes ten at most.
    assert len(body["client_payload"]) <= 10
    assert posted.headers["accept"] == "application/vnd.github+json"
    assert posted.headers["authorization"] == "Bearer github_pat_x"
    assert posted.headers["user-agent"].startswith("coldfusion-server/")
    assert hook["has_authorization"] and "github_pat_x" not in json.dumps(hook)


def test_private_models_tell_their_own_webhooks_alone(repo: Repository, ci: Receiver) -> None:
    private = "demo/private"
    repo.model(private, public=False)
    admin = repo.token("ada", "admin")
    every = make(repo, ci.url + "/every", admin, model=None)
    own = make(repo, ci.url + "/own", admin, model=private)
    other = make(repo, ci.url + "/other", admin)
    happen(repo, "base.published", model=private)
    happen(repo, "suite.registered", model=None)
    happen(repo, "base.published")
    with delivering(repo):
        settled(repo, own["id"], 1, "delivered")
        settled(repo, other["id"], 1, "delivered")
        posted = ci.wait(4)
    told = {(one.path, json.loads(one.body)["model"]) for one in posted}
    assert told == {
        ("/hook/every", None), ("/hook/every", MODEL), ("/hook/own", private),
        ("/hook/other", MODEL),
    }  # fmt: skip
    assert every["model"] is None


def test_what_failed_is_tried_again_with_the_same_id_and_later_each_time(
    repo: Repository, ci: Receiver
) -> None:
    ci.behave = status(500)
    hook = make(repo, ci.url)
    happen(repo, "base.published")
    with delivering(repo):
        for tries in range(1, 4):
            (one,) = settled(repo, hook["id"], 1, "failed")
            assert (one["attempts"], one["status"]) == (tries, 500)
            assert one["error"] == "It answered with status 500."
            if tries == 3:
                ci.behave = status(200)
            repo.clock.advance(hours=1)
            ci.wait(tries + 1)
            if tries < 3:
                _await(repo, hook["id"], tries + 1)
        (one,) = settled(repo, hook["id"], 1, "delivered")
    assert (one["attempts"], one["error"], one["next_try_at"]) == (4, None, None)
    assert len({posted.id for posted in ci.posted}) == 1
    assert len({posted.body for posted in ci.posted}) == 1
    assert len({posted.headers["webhook-timestamp"] for posted in ci.posted}) == 4


def _await(repo: Repository, hook: str, tries: int) -> None:
    """Wait until the hook's one delivery, which there need not be yet, was tried so often."""
    eventually(lambda: [one for one in deliveries(repo, hook) if one["attempts"] >= tries])


def test_retry_after_is_respected(repo: Repository, ci: Receiver) -> None:
    ci.behave = status(503, Retry_After="3600")
    hook = make(repo, ci.url)
    happen(repo, "base.published")
    with delivering(repo):
        (one,) = settled(repo, hook["id"], 1, "failed")
    wait = _time(one["next_try_at"]) - repo.clock()
    assert wait.total_seconds() == 3600


def _time(text: str) -> Any:
    return datetime.fromisoformat(text)


def test_it_is_given_up_after_a_day_and_sent_once_more_when_asked(
    repo: Repository, ci: Receiver
) -> None:
    ci.behave = status(404)
    hook = make(repo, ci.url)
    happen(repo, "base.published")
    begun = repo.clock()
    with delivering(repo):
        for tries in range(1, 11):
            _await(repo, hook["id"], tries)
            (one,) = deliveries(repo, hook["id"])
            if one["state"] == "given_up":
                break
            repo.clock.now = _time(one["next_try_at"])
        assert (one["state"], one["attempts"], one["next_try_at"]) == ("given_up", 10, None)
        hours = (repo.clock() - begun).total_seconds() / 3600
        assert 22 < hours < 29
        ci.behave = status(200)
        client = repo.client(repo.token("mia", "maintainer"))
        path = f"/v1/webhooks/{hook['id']}/deliveries/{one['id']}"
        assert client.post(f"{path}/redeliver").status_code == 202
        (again,) = settled(repo, hook["id"], 1, "delivered")
        assert (again["id"], again["attempts"]) == (one["id"], 1)
        assert client.post(f"{path}/redeliver").status_code == 202
        ci.wait(12)
    assert len({posted.id for posted in ci.posted}) == 1
    entries = repo.get("/v1/audit", repo.token("ada", "admin"))["items"]
    assert [e["action"] for e in entries].count("webhook.redelivered") == 2


def test_a_webhook_that_fails_for_days_is_paused(repo: Repository, ci: Receiver) -> None:
    ci.behave = status(500)
    hook = make(repo, ci.url)
    token = repo.token("mia", "maintainer")
    happen(repo, "base.published")
    with delivering(repo):
        for day in range(1, 6):
            _await_total(repo, hook["id"], day)
            repo.clock.advance(days=1)
            happen(repo, "base.published")
        eventually(lambda: not repo.get(f"/v1/webhooks/{hook['id']}", token)["active"])
        shown = repo.get(f"/v1/webhooks/{hook['id']}", token)
        assert shown["paused_at"] is not None and shown["failures"] >= 5
        (event,) = [
            e for e in repo.get("/v1/events?limit=500", token) if e["type"] == "webhook.paused"
        ]
        assert event["data"]["webhook"] == hook["id"]
        assert event["data"]["error"] == "It answered with status 500."
        # Maintainers alone are told.
        for other in (None, repo.token("c", "contributor"), repo.token("e", "evaluator")):
            told = {e["type"] for e in repo.get("/v1/events?limit=500", other)}
            assert "webhook.paused" not in told
        before = len(ci.posted)
        happen(repo, "base.measured")
        ci.behave = status(200)
        repo.clock.advance(days=1)
        change = repo.client(token).patch(f"/v1/webhooks/{hook['id']}", json={"active": True})
        assert (change.json()["active"], change.json()["failures"]) == (True, 0)
        eventually(lambda: not repo.get(f"/v1/webhooks/{hook['id']}", token)["waiting"])
    # What had waited was sent, what happened meanwhile was not.
    late = [json.loads(one.body)["type"] for one in ci.posted[before:]]
    assert late and "base.measured" not in late


def _await_total(repo: Repository, hook: str, tries: int) -> None:
    eventually(lambda: sum(one["attempts"] for one in deliveries(repo, hook)) >= tries)


def test_a_receiver_that_says_gone_is_paused_at_once(repo: Repository, ci: Receiver) -> None:
    ci.behave = status(410)
    hook = make(repo, ci.url)
    happen(repo, "base.published")
    with delivering(repo):
        settled(repo, hook["id"], 1, "given_up")
    shown = repo.get(f"/v1/webhooks/{hook['id']}", repo.token("mia", "maintainer"))
    assert (shown["active"], shown["failures"]) == (False, 1)


def test_both_secrets_sign_for_a_day_after_one_is_replaced(
    repo: Repository, ci: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = make(repo, ci.url)
    client = repo.client(repo.token("mia", "maintainer"))
    new = client.post(f"/v1/webhooks/{hook['id']}/rotate").json()["secret"]
    assert new != hook["secret"]
    happen(repo, "base.published")
    with delivering(repo):
        (posted,) = ci.wait(1)
        for secret in (new, hook["secret"]):
            assert checked(posted, secret, monkeypatch)["type"] == "base.published"
        repo.clock.advance(hours=25)
        happen(repo, "base.published")
        posted = ci.wait(2)[1]
    assert checked(posted, new, monkeypatch)
    with pytest.raises(WebhookVerificationError):
        checked(posted, hook["secret"], monkeypatch)


def test_a_ping_reaches_also_what_is_not_active_and_is_tried_once(
    repo: Repository, ci: Receiver
) -> None:
    ci.behave = status(500)
    hook = make(repo, ci.url, events=["base.published"])
    client = repo.client(repo.token("mia", "maintainer"))
    client.patch(f"/v1/webhooks/{hook['id']}", json={"active": False})
    answer = client.post(f"/v1/webhooks/{hook['id']}/ping")
    assert (answer.status_code, answer.json()["state"]) == (202, "waiting")
    with delivering(repo):
        (one,) = settled(repo, hook["id"], 1, "given_up")
    body = json.loads(ci.posted[0].body)
    assert (body["id"], body["type"]) == (None, "webhook.ping")
    assert body["data"] == {"webhook": hook["id"]}
    assert (one["event"], one["attempts"]) == (None, 1)
    for _ in range(10):
        assert client.post(f"/v1/webhooks/{hook['id']}/ping").status_code == 202
    answer = client.post(f"/v1/webhooks/{hook['id']}/ping")
    assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")


# Several webhooks, several deliverers.


def test_slow_receivers_hold_nobody_up(repo: Repository, ci: Receiver) -> None:
    over = threading.Event()
    began = threading.Semaphore(0)
    real = Poster(EVERYWHERE, seconds=PATIENCE_SECONDS).post

    def post(letter: Letter) -> Answer:
        if "slow" in letter.url:
            began.release()
            over.wait()
            return Answer(None, "It did not answer.", 10.0)
        # How long the machine takes is not the receiver's doing.
        return replace(real(letter), seconds=0.1)

    slow = [make(repo, f"{ci.url}/slow")["id"] for _ in range(12)]
    quick = make(repo, ci.url)
    # Their last try failed, as it does with those that are slow again and again.
    with repo.ctx.database.write() as session:
        for row in session.scalars(select(WebhookRow).where(WebhookRow.id.in_(slow))):
            row.failures = 1
    happen(repo, *["base.published"] * 3)
    with delivering(repo, post):
        try:
            for _ in range(deliverer_module.FAILING_AT_A_TIME):
                assert began.acquire(timeout=120)
            settled(repo, quick["id"], 3, "delivered")
            happen(repo, "base.measured")
            settled(repo, quick["id"], 4, "delivered")
            # And of those that fail some are always left for later.
            assert not began.acquire(blocking=False)
        finally:
            over.set()
    assert len(ci.posted) == 4


def test_receivers_that_take_all_their_time_hold_nobody_up(repo: Repository, ci: Receiver) -> None:
    over = threading.Event()
    began = threading.Semaphore(0)
    go_on = threading.Semaphore(0)
    real = Poster(EVERYWHERE, seconds=PATIENCE_SECONDS).post

    def post(letter: Letter) -> Answer:
        if "slow" not in letter.url:
            return replace(real(letter), seconds=0.1)
        began.release()
        while not (go_on.acquire(timeout=0.05) or over.is_set()):
            pass
        # It goes well, always at the last moment.
        return Answer(200, None, 9.9)

    number = deliverer_module.AT_A_TIME
    slow = [make(repo, f"{ci.url}/slow")["id"] for _ in range(number)]
    happen(repo, *["base.published"] * 3)
    quick = make(repo, ci.url)
    with delivering(repo, post):
        try:
            for _ in range(number):
                assert began.acquire(timeout=120)
            # What they have waiting is older than this, and yet it does not wait for all of it.
            happen(repo, "base.measured")
            for _ in range(number):
                go_on.release()
            settled(repo, quick["id"], 1, "delivered")
            sent = sum(len(deliveries(repo, hook, "state=delivered")) for hook in slow)
            assert sent <= number
        finally:
            over.set()


@pytest.mark.databases("sqlite", "postgresql")
def test_two_deliverers_send_each_event_once(repo: Repository, ci: Receiver) -> None:
    hooks = [make(repo, f"{ci.url}/{n}")["id"] for n in range(3)]
    with delivering(repo), delivering(repo):
        for n in range(10):
            happen(repo, "base.published", n=n)
        for hook in hooks:
            settled(repo, hook, 10, "delivered")
    assert len(ci.posted) == 30
    assert len({posted.id for posted in ci.posted}) == 30


@pytest.mark.databases("sqlite", "postgresql")
def test_who_has_lost_a_delivery_writes_nothing(repo: Repository) -> None:
    hook = make(repo, "http://127.0.0.1:9999/")
    happen(repo, "base.published")
    assert fan_out(repo.ctx) and not fan_out(repo.ctx)
    (first,) = claim(repo.ctx, (), 16, 8)
    assert claim(repo.ctx, (), 16, 8) == []
    repo.clock.advance(minutes=2)
    (second,) = claim(repo.ctx, (), 16, 8)
    assert (first.number, first.held_by != second.held_by) == (second.number, True)
    record(repo.ctx, first, Answer(500, "It failed.", 1.0))
    assert letter_of(repo.ctx, first) is None
    (one,) = deliveries(repo, hook["id"])
    assert (one["attempts"], one["state"]) == (0, "waiting")
    record(repo.ctx, second, Answer(204, None, 1.0))
    record(repo.ctx, second, Answer(500, "It failed.", 1.0))
    (one,) = deliveries(repo, hook["id"])
    assert (one["attempts"], one["state"]) == (1, "delivered")
    # A webhook may be deleted while somebody sends.
    happen(repo, "base.published")
    assert fan_out(repo.ctx)
    (third,) = claim(repo.ctx, (), 16, 8)
    client = repo.client(repo.token("mia", "maintainer"))
    assert client.delete(f"/v1/webhooks/{hook['id']}").status_code == 204
    assert letter_of(repo.ctx, third) is None
    record(repo.ctx, third, Answer(204, None, 1.0))


def test_a_clock_that_is_set_back_leaves_nothing_lying(repo: Repository) -> None:
    make(repo, "http://127.0.0.1:9999/a")
    make(repo, "http://127.0.0.1:9999/b")
    repo.clock.advance(days=400)
    happen(repo, "base.published")
    assert fan_out(repo.ctx)
    repo.clock.advance(minutes=5)
    first, second = claim(repo.ctx, (), 16, 8)
    record(repo.ctx, first, Answer(503, "It failed.", 1.0, retry_after="99999"))
    # What is tried again in some hours, and what somebody holds, is left alone by a clock that goes
    # a little back,
    repo.clock.advance(seconds=-20)
    assert claim(repo.ctx, (), 16, 8) == []
    # and by none, if it was ahead by so much.
    repo.clock.advance(days=-400)
    assert {one.number for one in claim(repo.ctx, (), 16, 8)} == {first.number, second.number}


def test_no_transaction_makes_more_than_so_many_deliveries(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With SQLite nobody else writes meanwhile, and a round is not to wait for webhooks."""
    monkeypatch.setattr(fan_out_module, "MOST_DELIVERIES", 10)
    hooks = [make(repo, f"http://127.0.0.1:9999/{n}")["id"] for n in range(3)]
    ids = happen(repo, *["base.published"] * 20)
    made = [0]
    while fan_out(repo.ctx):
        made.append(sum(len(deliveries(repo, hook)) for hook in hooks))
    assert made[-1] == 60
    assert max(now - before for before, now in pairwise(made)) < 10 + len(hooks)
    for hook in hooks:
        assert [one["event"] for one in reversed(deliveries(repo, hook))] == ids


def test_what_cannot_be_decrypted_is_told_and_not_sent(repo: Repository, ci: Receiver) -> None:
    hook = make(repo, ci.url)
    happen(repo, "base.published")
    repo.ctx = replace(repo.ctx, secret=b"another secret of the Repository")
    with delivering(repo):
        (one,) = settled(repo, hook["id"], 1, "failed")
    assert one["error"].startswith("It cannot be read any more")
    assert ci.posted == []


def test_a_fault_of_our_own_does_not_end_the_deliverer(repo: Repository, ci: Receiver) -> None:
    real = Poster(EVERYWHERE, seconds=PATIENCE_SECONDS).post
    broken = [True]

    def post(letter: Letter) -> Answer:
        if broken:
            broken.pop()
            raise RuntimeError("a fault of ours")
        return real(letter)

    hook = make(repo, ci.url)
    happen(repo, "base.published")
    with delivering(repo, post):
        (one,) = settled(repo, hook["id"], 1, "failed")
        # It counts, so that one that is always in the way is given up.
        assert one["attempts"] == 1 and "a fault of the Repository's own" in one["error"]
        repo.clock.advance(minutes=2)
        settled(repo, hook["id"], 1, "delivered")
