"""How the Repository is doing, in numbers: for whom, what, and that looking changes nothing."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from coldfusion_server.db.tables import (
    BaseRow,
    ContributionRow,
    EvaluationTryRow,
    LeaseRow,
    ReplayRow,
    RoundRow,
)
from coldfusion_server.events import outbox
from coldfusion_server.services import leases, screening
from coldfusion_server.services.evaluation_tries import DIED, MAX_TRIES
from coldfusion_server.services.garbage import collect
from coldfusion_server.services.health_failures import BROKE
from coldfusion_server.services.health_leases import LATEST, SLACK
from coldfusion_server.services.heartbeat import Heartbeat, Part, heartbeat_file
from coldfusion_server.services.probes import patience
from coldfusion_shared import __version__
from coldfusion_shared.replays import ReplayState
from coldfusion_shared.rounds import RoundState
from tests.server.backends import both_databases, only_sqlite
from tests.server.gated import fused, gated
from tests.server.repository import MODEL, Json, Repository, body_file, repository


def numbers(repo: Repository) -> Json:
    return repo.get("/v1/health", repo.token("max", "maintainer"))


def queue(repo: Repository, kind: str) -> Json:
    (found,) = [one for one in numbers(repo)["work"]["queues"] if one["kind"] == kind]
    return found


def change(repo: Repository, **values: Any) -> int:
    """Change the only round; return its id."""
    with repo.ctx.database.write() as session:
        row = session.scalars(select(RoundRow)).one()
        for name, value in values.items():
            setattr(row, name, value)
        return row.id


def hold(repo: Repository, key: str, until: timedelta, fencing: int = 1) -> None:
    with repo.ctx.database.write() as session:
        at = repo.clock.now + until
        session.add(LeaseRow(key=key, holder="host:1:ab", fencing=fencing, expires_at=at))


@pytest.mark.parametrize(
    ("role", "models", "status"),
    [
        (None, None, 401),
        ("reader", None, 403),
        ("contributor", None, 403),
        ("evaluator", None, 403),
        ("maintainer", [MODEL], 403),
        ("maintainer", None, 200),
        ("admin", None, 200),
    ],
)
def test_numbers_of_the_whole_server_are_for_those_who_look_after_all_of_it(
    repo: Repository, role: str | None, models: list[str] | None, status: int
) -> None:
    token = None if role is None else repo.token("who", role, models)
    answer = repo.client(token).get("/v1/health")
    assert answer.status_code == status, answer.text


@both_databases
def test_a_repository_at_rest(repo: Repository) -> None:
    found = numbers(repo)
    assert found["version"] == __version__
    assert [one["kind"] for one in found["work"]["queues"]] == [
        "uploading", "screening", "fusing", "gates", "replays", "webhooks",
    ]  # fmt: skip
    assert all(one["waiting"] == 0 and one["oldest"] is None for one in found["work"]["queues"])
    assert found["work"]["leases"] == [] and found["work"]["failures"] == []
    storage = found["storage"]
    assert storage["total_bytes"] == storage["models"][0]["base_bytes"] > 0
    assert storage["free_bytes"] > 0 and storage["collected_at"] is None
    database = found["database"]
    assert database["kind"] == repo.ctx.database.engine.dialect.name
    assert database["bytes"] > 0 and database["revision"] == database["newest_revision"]
    assert {one["subject"] for one in found["looks"]} == {"database", "disk", "clock"}
    # The tests' clock stands in another month than PostgreSQL's.
    assert all(one["ok"] for one in found["looks"] if one["subject"] != "clock")


@both_databases
def test_queues_tell_how_long_the_oldest_waits(repo: Repository) -> None:
    ann, began = repo.contributor("ann"), repo.clock.now
    ann.declare(body_file(1))
    repo.clock.advance(minutes=5)
    first = ann.contribute(body_file(2))
    repo.clock.advance(minutes=5)
    ann.contribute(body_file(3))
    assert queue(repo, "uploading") | {"kind": ""} == {
        "kind": "", "waiting": 1, "in_work": 0, "later": 0,
        "oldest": began.isoformat().replace("+00:00", "Z"),
    }  # fmt: skip
    hold(repo, f"contribution:{first}", timedelta(minutes=1))
    with repo.ctx.database.write() as session:
        query = select(ContributionRow).where(ContributionRow.id == first)
        session.scalars(query).one().retry_at = repo.clock.now + timedelta(hours=1)
    waits = queue(repo, "screening")
    assert (waits["waiting"], waits["in_work"], waits["later"]) == (2, 1, 1)
    assert waits["oldest"] == "2026-06-01T12:05:00Z"


def test_rounds_wait_for_a_fuse_and_then_for_their_gate(repo: Repository) -> None:
    gated(repo)
    fused(repo)
    assert (queue(repo, "fusing")["waiting"], queue(repo, "gates")["waiting"]) == (0, 1)
    change_of = {"state": RoundState.FAILED, "evaluating_at": None}
    with repo.ctx.database.write() as session:
        row = session.scalars(select(RoundRow).where(RoundRow.number == 1)).one()
        for name, value in change_of.items():
            setattr(row, name, value)
    assert (queue(repo, "fusing")["waiting"], queue(repo, "gates")["waiting"]) == (1, 0)


@both_databases
def test_leases_tell_who_works_on_what(repo: Repository) -> None:
    number = change(repo, state=RoundState.FUSING, closed_at=repo.clock.now)
    with repo.ctx.database.read() as session:
        base = session.scalars(select(BaseRow.id)).one()
    lease = leases.acquire(repo.ctx, f"round:{number}", "host:7:cd")
    assert lease is not None
    hold(repo, f"evaluation:{base}:frozen:{'0' * 64}", timedelta(seconds=5), fencing=3)
    hold(repo, "strange", timedelta(seconds=-5))
    held = {one["kind"]: one for one in numbers(repo)["work"]["leases"]}
    assert held["fusing"]["subject"] == f"round 1 of {MODEL}"
    assert held["fusing"]["address"] == f"/models/{MODEL}/rounds/1"
    assert held["fusing"]["holder"] == "host:7:cd" and held["fusing"]["live"]
    assert held["evaluation"]["subject"] == f"v0 of {MODEL}" and held["evaluation"]["fencing"] == 3
    assert (held["other"]["subject"], held["other"]["live"]) == ("strange", False)


def test_a_lease_that_ran_out_beside_work_is_stuck(repo: Repository) -> None:
    number = change(repo, state=RoundState.FUSING, closed_at=repo.clock.now)
    hold(repo, f"round:{number}", timedelta(seconds=10))
    for one in range(LATEST + 5):
        hold(repo, f"contribution:{one}", timedelta(seconds=20))
    repo.clock.advance(seconds=SLACK.total_seconds())
    assert not any(one["stuck"] for one in numbers(repo)["work"]["leases"])
    repo.clock.advance(seconds=10)
    first, *others = numbers(repo)["work"]["leases"]
    # It comes before later ones, of which some are left out.
    assert first["stuck"] and first["kind"] == "fusing" and not first["live"]
    assert len(others) == LATEST and not any(one["stuck"] for one in others)
    change(repo, state=RoundState.PUBLISHED)
    assert not any(one["stuck"] for one in numbers(repo)["work"]["leases"])


def test_what_waits_for_its_next_try_is_not_stuck(repo: Repository) -> None:
    later = repo.clock.now + timedelta(hours=2)
    number = change(repo, state=RoundState.FAILED, closed_at=repo.clock.now, retry_at=later)
    hold(repo, f"round:{number}", timedelta(0))
    repo.clock.advance(hours=1)
    assert [one["stuck"] for one in numbers(repo)["work"]["leases"]] == [False]


def test_a_round_that_failed_is_among_the_failures(repo: Repository) -> None:
    again = repo.clock.now + timedelta(minutes=5)
    change(
        repo, state=RoundState.FAILED, closed_at=repo.clock.now, attempts=2, retry_at=again,
        reason="The disk is full.",
    )  # fmt: skip
    with repo.ctx.database.write() as session:
        data = {"round": 1, "state": "failed", "reason": "The disk is full."}
        outbox.append(session, repo.clock.now, "round.failed", MODEL, data)
    (found,) = numbers(repo)["work"]["failures"]
    assert found == {
        "what": f"round 1 of {MODEL}", "model": MODEL, "address": f"/models/{MODEL}/rounds/1",
        "reason": "The disk is full.", "tries": 2, "at": "2026-06-01T12:00:00Z",
        "again_at": "2026-06-01T12:05:00Z",
    }  # fmt: skip


def test_a_screening_that_breaks_is_among_the_failures(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(screening, "_screen", breaks)
    contribution = repo.contributor("ann").contribute(body_file(1))
    repo.work()
    (found,) = numbers(repo)["work"]["failures"]
    assert (found["what"], found["reason"]) == (f"screening of {contribution}", BROKE)
    assert found["tries"] == 1 and found["again_at"] == "2026-06-01T12:00:10Z"


def test_replays_and_evaluations_that_fail_are_among_the_failures(repo: Repository) -> None:
    with repo.ctx.database.write() as session:
        base = session.scalars(select(BaseRow)).one()
        tries = {"suite_digest": "0" * 64, "protocol": "frozen", "attempts": MAX_TRIES + 1}
        session.add(EvaluationTryRow(subject=str(base.id), **tries))
        session.add(
            ReplayRow(
                id="ab" * 8,
                model_id=base.model_id,
                state=ReplayState.FAILED,
                without=[],
                from_number=0,
                head_number=0,
                failure="The store is away.",
                attempts=1,
                created_at=repo.clock.now,
            )  # fmt: skip
        )
    found = {one["what"]: one for one in numbers(repo)["work"]["failures"]}
    measured = found[f"evaluation of v0 of {MODEL}, frozen"]
    assert (measured["reason"], measured["again_at"]) == (DIED, None)
    assert found[f"replay {'ab' * 8} of {MODEL}"]["reason"] == "The store is away."


def test_signs_of_life_are_told_where_they_are_seen(tmp_path: Path) -> None:
    with repository(tmp_path / "blind") as blind:
        assert {one["well"] for one in numbers(blind)["work"]["parts"]} == {None}
        assert not any(one["seen"] for one in numbers(blind)["work"]["parts"])
    with repository(tmp_path / "data", run_dir=tmp_path / "run") as opened:
        file = heartbeat_file(opened.settings, Part.WORKER)
        assert file is not None
        file.parent.mkdir()
        file.touch()
        parts = {one["part"]: one for one in numbers(opened)["work"]["parts"]}
    assert (
        parts["worker"]["well"] is True and "last sign of life" in parts["worker"]["told"].lower()
    )
    # Where there is none it may run on another machine: that is not known.
    assert parts["scheduler"]["seen"] and parts["scheduler"]["well"] is None


def test_the_parts_of_this_very_process_are_seen_without_files(tmp_path: Path) -> None:
    with repository(tmp_path) as opened:
        beats = opened.ctx.beats
        with Heartbeat(opened.settings, Part.WORKER, threading.Event(), beats) as beat:
            beat()
            seen = worker_of(opened)
            assert seen["well"] is True and "In this process" in seen["told"]
            beats[Part.WORKER] -= patience(opened.settings, Part.WORKER) + 1
            hung = worker_of(opened)
            assert hung["seen"] and hung["well"] is False
        assert worker_of(opened)["well"] is None


def worker_of(repo: Repository) -> dict[str, Any]:
    (found,) = [one for one in numbers(repo)["work"]["parts"] if one["part"] == "worker"]
    return dict(found)


def test_a_collection_of_garbage_leaves_its_time(repo: Repository) -> None:
    collect(repo.ctx, "gc")
    repo.clock.advance(hours=1)
    found = numbers(repo)
    assert found["storage"]["collected_at"] == "2026-06-01T12:00:00Z"
    assert found["work"]["parts"][0]["worked_at"] == "2026-06-01T12:00:00Z"


def test_too_little_room_is_seen(tmp_path: Path) -> None:
    with repository(tmp_path, min_free_bytes=2**60) as opened:
        (disk,) = [one for one in numbers(opened)["looks"] if one["subject"] == "disk"]
    assert not disk["ok"] and disk["hint"]


@only_sqlite
def test_to_look_writes_nothing(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    token = repo.token("max", "maintainer")

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a page writes")

    monkeypatch.setattr(type(repo.ctx.database), "write", forbidden)
    monkeypatch.setattr(type(repo.ctx.store), "check", forbidden)
    monkeypatch.setattr(type(repo.ctx.store), "put", forbidden)
    assert repo.get("/v1/health", token)["database"]["kind"] == "sqlite"


def test_the_stream_tells_how_far_behind_it_is(repo: Repository) -> None:
    with repo.client(repo.token("max", "maintainer")) as client:
        found = client.get("/v1/health").json()["work"]["stream"]
    assert found["watchers"] == 0 and found["newest"] > 0
    assert 0 <= found["behind"] <= found["newest"]
