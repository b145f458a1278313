"""Pushes through the hub door where databases differ: at once, over quotas, and after a death."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from coldfusion_server.db.tables import HubUploadRow
from coldfusion_server.services import contributions, pulls, staging, tokens
from coldfusion_server.services.closing import close_by_hand
from coldfusion_server.services.garbage import collect
from coldfusion_shared.errors import ColdFusionError
from tests.hub.pusher import WEIGHTS, Pusher, digest, weights
from tests.server.backends import both_databases
from tests.server.repository import MODEL, Repository, body_file
from tests.server.test_encodings import adapter
from tests.server.test_quotas import limit, mine

pytestmark = both_databases

RAW = body_file(1)


def errors(answer: Any) -> list[str]:
    return [item["error"]["message"] for item in answer.json()["objects"] if "error" in item]


def test_what_one_commits_ten_times_at_once_is_one_contribution(repo: Repository) -> None:
    ann = Pusher(repo)
    ann.send(RAW)
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: ann.commit(weights()), range(10)))
    assert {answer.status_code for answer in answers} == {200}, [a.text for a in answers]
    assert len({answer.json()["pullRequestUrl"] for answer in answers}) == 1
    assert len(ann.contributions()) == 1
    repo.work()
    assert ann.contributions()[0]["state"] == "accepted"


def test_a_commit_happens_wholly_or_not_at_all(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, dies = Pusher(repo), ["pull.committing", "pull.committed"]

    def die(settings: Any, name: str) -> None:
        if dies and name == dies[0]:
            raise OSError(dies.pop(0))

    monkeypatch.setattr(pulls, "fault_point", die)
    ann.send(RAW)
    assert ann.commit(weights()).status_code == 500
    assert ann.contributions() == []
    # The bytes are there still; this time only the answer is lost.
    assert ann.commit(weights()).status_code == 500
    assert ann.commit(weights()).json()["pullRequestUrl"].endswith("/1")
    repo.work()
    assert [made["state"] for made in ann.contributions()] == ["accepted"]


def test_what_ten_push_at_once_is_taken_from_one(repo: Repository) -> None:
    people = [Pusher(repo, f"c{number}") for number in range(10)]
    for person in people:
        person.send(RAW)
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda person: person.commit(weights()), people))
    taken = [answer for answer in answers if answer.status_code == 200]
    assert len(taken) == 1
    assert {answer.status_code for answer in answers} == {200, 409}
    assert all("before" in a.json()["error"] for a in answers if a.status_code == 409)


def test_numbers_of_pull_requests_have_no_gap_and_no_twin(repo: Repository) -> None:
    people = [Pusher(repo, f"c{number}") for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda n: people[n].push(weights(n)), range(8)))
    assert sorted(numbers) == list(range(1, 9))


def test_one_file_asked_for_ten_times_at_once_is_one_upload(repo: Repository) -> None:
    ann = Pusher(repo)
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: ann.batch(RAW), range(10)))
    hrefs = {a.json()["objects"][0]["actions"]["upload"]["href"].split("?")[0] for a in answers}
    assert len(hrefs) == 1
    with repo.ctx.database.read() as session:
        assert session.query(HubUploadRow).count() == 1


def test_a_file_that_expires_while_it_is_committed_ends_in_one_state(repo: Repository) -> None:
    ann = Pusher(repo)
    files = [weights(seed) for seed in range(6)]
    for file in files:
        ann.send(file[WEIGHTS])
    repo.clock.advance(hours=25)
    with ThreadPoolExecutor(7) as pool:
        expired = pool.submit(staging.expire, repo.ctx)
        answers = list(pool.map(ann.commit, files))
        expired.result()
    assert {answer.status_code for answer in answers} <= {200, 409}, [a.text for a in answers]
    staging.expire(repo.ctx)
    repo.work()
    done = sum(answer.status_code == 200 for answer in answers)
    assert [made["state"] for made in ann.contributions()] == ["accepted"] * done
    assert repo.ctx.store.pending_uploads() == []


def test_quotas_hold_before_the_first_byte(repo: Repository) -> None:
    # Too small to be weights elsewhere; here they are weights.
    limit(repo, quota_bytes=len(RAW))
    ann = Pusher(repo)
    (message,) = errors(ann.batch(RAW, body_file(2)))
    assert f"of {len(RAW)} in use" in message
    assert mine(repo)["unfinished_bytes"] == len(RAW)
    ann.send(RAW)
    # What was sent ahead counts once: it is declared with the quota full.
    assert ann.commit(weights()).status_code == 200
    usage = mine(repo)
    assert (usage["unfinished_bytes"], usage["kept_bytes"]) == (0, len(RAW))
    limit(repo, quota_bytes=None, quota_day=1)
    (message,) = errors(ann.batch(body_file(3)))
    assert "in the last 24 hours" in message
    limit(repo, quota_day=None, quota_round=1)
    (message,) = errors(ann.batch(body_file(3)))
    assert "in round 1" in message


def test_weights_sent_ahead_are_unfinished_uploads(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coldfusion_server.services.usage.COUNTED_BYTES", 1000)
    limit(repo, quota_uploads=1)
    ann = Pusher(repo)
    settings = adapter()["adapter_config.json"]
    assert errors(ann.batch(RAW, settings)) == []
    assert mine(repo)["uploads"] == 1
    (message,) = errors(ann.batch(body_file(2)))
    assert "1 unfinished uploads" in message
    assert repo.contributor("ann").declare(body_file(2)).status_code == 403
    ann.send(RAW)
    assert ann.commit(weights()).status_code == 200
    assert errors(ann.batch(body_file(2))) == []


def test_nobody_holds_any_number_of_files(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "MAX_FILES", 3)
    ann = Pusher(repo)
    told = errors(ann.batch(*(b"%d" % number for number in range(5))))
    assert len(told) == 2 and all("belong to no contribution yet" in message for message in told)


def test_garbage_collection_keeps_what_waits_for_its_declaration(repo: Repository) -> None:
    ann = Pusher(repo)
    files = adapter()
    stored = {path: repo.ctx.store.put([raw]) for path, raw in files.items()}
    who = repo.principal("ann")
    for item in stored.values():
        staging.note_stored(repo.ctx, MODEL, who, item.sha256, item.size)
        staging.note_stored(repo.ctx, MODEL, who, item.sha256, item.size)
    object.__setattr__(repo.settings, "gc_grace_hours", 0)
    repo.clock.advance(hours=1)
    collect(repo.ctx, "tests")
    assert all(repo.ctx.store.exists(item.sha256) for item in stored.values())
    # They are objects already: nothing is sent, and nothing is adopted.
    assert all("actions" not in item for item in ann.batch(*files.values()).json()["objects"])
    assert ann.commit(files).status_code == 200
    collect(repo.ctx, "tests")
    repo.work()
    assert ann.contributions()[0]["state"] == "accepted"
    close_by_hand(repo.ctx, MODEL, "open", repo.principal("max", "maintainer"))
    repo.work()
    assert ann.contributions()[0]["result"] == "v1"


def test_an_object_that_is_gone_is_not_noted(repo: Repository) -> None:
    with pytest.raises(ColdFusionError, match="gone again"):
        staging.note_stored(repo.ctx, MODEL, repo.principal("ann"), digest(RAW), len(RAW))
    assert mine(repo)["unfinished_bytes"] == 0


def test_an_object_that_goes_before_its_screening_is_sent_again(repo: Repository) -> None:
    ann = Pusher(repo)
    stored = repo.ctx.store.put([RAW])
    staging.note_stored(repo.ctx, MODEL, repo.principal("ann"), stored.sha256, stored.size)
    assert ann.commit(weights()).status_code == 200
    repo.ctx.store.delete(stored.sha256)
    repo.work()
    assert ann.contributions()[0]["state"] == "rejected"
    ann.push(weights())
    repo.work()
    assert ann.contributions()[0]["state"] == "accepted"


def test_bytes_taken_over_are_not_swept_before_their_screening(repo: Repository) -> None:
    ann = Pusher(repo)
    ann.send(RAW, body_file(2))
    assert ann.commit(weights()).status_code == 200
    assert contributions.sweep_uploads(repo.ctx) == 0
    repo.work()
    assert ann.contributions()[0]["state"] == "accepted"
    assert len(repo.ctx.store.pending_uploads()) == 1
    repo.clock.advance(hours=25)
    assert staging.expire(repo.ctx) == 1
    assert repo.ctx.store.pending_uploads() == []


def test_a_withdrawn_push_leaves_nothing(repo: Repository) -> None:
    ann = Pusher(repo)
    ann.push(weights())
    (made,) = ann.contributions()
    done = ann.post(f"/v1/contributions/{made['id']}/withdraw", json={})
    assert done.status_code == 200
    contributions.sweep_uploads(repo.ctx)
    assert repo.ctx.store.pending_uploads() == []
    # Who changes his mind pushes again.
    assert ann.push(weights()) == 2


def test_a_revoked_token_pushes_nothing(repo: Repository) -> None:
    ann = Pusher(repo)
    ann.send(RAW)
    tokens.revoke_token(repo.ctx, "ann")
    assert ann.commit(weights()).status_code == 401


def test_nobody_opens_any_number_of_drafts(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulls, "MAX_DRAFTS", 2)
    ann = Pusher(repo)
    opened = {"title": "Mine", "pullRequest": True}
    address = f"/api/models/{MODEL}/discussions"
    assert [ann.post(address, json=opened).status_code for _ in range(3)] == [201, 201, 403]
    # One of them becomes a contribution, and makes room for another.
    ann.send(RAW)
    assert ann.commit(weights(), "refs/pr/2", query="").status_code == 200
    assert ann.post(address, json=opened).status_code == 201
    assert ann.post(address, json=opened).status_code == 403
    repo.clock.advance(hours=25)
    assert ann.post(address, json=opened).json()["num"] == 4


def test_what_comes_inside_of_a_commit_counts_before_it_is_stored(repo: Repository) -> None:
    files = adapter()
    limit(repo, quota_bytes=10)
    answer = Pusher(repo).commit({}, inline=files)
    assert answer.status_code == 403 and "in use" in answer.json()["error"]
    assert not any(repo.ctx.store.exists(digest(raw)) for raw in files.values())
