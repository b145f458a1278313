"""Each of a Repository's processes kills itself at named points; the others and the next go on."""

from __future__ import annotations

import secrets
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import pytest

from coldfusion_server.settings import load_settings
from coldfusion_shared.errors import ConfigurationError
from tests.faults.fleet import PEOPLE, Fleet, fleet
from tests.faults.outcome import check_outcome
from tests.faults.people import Contributor
from tests.faults.stage import wait_for
from tests.server.repository import body_file, declaration

# In the order of a round's life.
ROUND = [
    "round.begun",
    "round.fusing",
    "round.fused",
    "round.evaluating",
    "round.gating",
    "round.publishing",
    "round.ended",
]
SCREENING = ["screening.begun", "screening.stored", "screening.deciding", "screening.decided"]
GATE = {"kind": "norm", "max_relative_norm": 1e-9}


@contextmanager
def started(folder: Path, people: int, **wanted: Any) -> Iterator[tuple[Fleet, list[Contributor]]]:
    """Run the API of a Repository, and nothing else of it."""
    with ExitStack() as stack:
        made = stack.enter_context(fleet(folder, min_contributions=2, **wanted))
        made.api.start()
        made.await_api()
        some = [Contributor(made, name, seed=0) for name in PEOPLE[:people]]
        for one in some:
            stack.callback(one.close)
        yield made, some


def contributed(people: list[Contributor]) -> ExitStack:
    """Let all of them contribute while the block lasts; behind it all was decided."""
    stack = ExitStack()
    pool = stack.enter_context(ThreadPoolExecutor(len(people)))
    for future in [pool.submit(one.contribute) for one in people]:
        stack.callback(future.result)
    return stack


def published(made: Fleet, version: str) -> None:
    wait_for(lambda: made.get(made.model())["current"] == version, version)


def test_a_contribution_survives_who_takes_and_who_screens_it(tmp_path: Path) -> None:
    with started(tmp_path, people=1) as (made, (ann,)):
        made.api.kill()
        with contributed([ann]):
            made.die_at(made.api, "contribution.declared", "contribution.completing")
            made.api.start()
            made.die_at(made.workers[0], *SCREENING)
        (one,) = made.listed(made.model("/contributions"))
        assert (one["id"], one["state"]) == (ann.told[0], "accepted")
        made.api.kill()
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(ann.withdraw, one["id"])
            made.die_at(made.api, "contribution.withdrawing", "contribution.withdrawn")
            made.api.start()
            done.result()
        # What the one that died behind its verdict had no time to clear away.
        uploads = made.data / "uploads"
        assert list(uploads.iterdir())
        made.scheduler.start()
        wait_for(lambda: not list(uploads.iterdir()), "the end of the upload's bytes")
        check_outcome(made, ann.told)


def test_a_round_survives_who_closes_and_who_fuses_it(tmp_path: Path) -> None:
    with started(tmp_path, people=2) as (made, people):
        worker, whole = made.workers[0], made.program("whole", "up", "--port", "0")
        with contributed(people):
            made.die_at(worker, "round.closing")
        made.die_at(made.scheduler, "round.closing", "round.closed")
        for point, program in zip(ROUND, cycle([worker, whole]), strict=False):
            # Each goes on with the round from its last durable step, and dies further on.
            made.die_at(program, point)
            half = list((made.data / "tmp").iterdir())
            assert half or point != "round.fusing"
        worker.start()
        published(made, "v1")
        first = made.get(made.model("/rounds/1"))
        assert (first["state"], first["result"], first["reason"]) == ("published", "v1", None)
        for shown in made.listed(made.model("/contributions")):
            assert (shown["state"], shown["result"], shown["weight"]) == ("fused", "v1", 0.5)
        # And it goes on.
        with contributed(people):
            pass
        published(made, "v2")
        check_outcome(made, [*people[0].told, *people[1].told])


def test_a_rejected_round_survives_too(tmp_path: Path) -> None:
    with started(tmp_path, people=2, gate=GATE) as (made, people):
        worker = made.workers[0]
        with contributed(people):
            made.die_at(worker, "round.closed")
        made.die_at(worker, "round.rejecting", "round.ended")
        assert made.get(made.model("/rounds/1"))["state"] == "rejected"
        states = [one["state"] for one in made.listed(made.model("/contributions"))]
        assert states == ["set_aside", "set_aside"]
        check_outcome(made, [*people[0].told, *people[1].told])


def test_a_failed_round_survives_too(tmp_path: Path) -> None:
    with started(tmp_path, people=2) as (made, people):
        worker = made.workers[0]
        with contributed(people):
            made.die_at(worker, "round.closed")
        # An object is away for a while.
        (file,) = made.get(f"/contributions/{people[0].told[0]}")["files"]
        lost = made.data / "objects" / "sha256" / file["sha256"][:2] / file["sha256"]
        lost.rename(tmp_path / "kept")
        made.die_at(worker, "round.failed")
        assert made.get(made.model("/rounds/1"))["state"] == "failed"
        (tmp_path / "kept").rename(lost)
        worker.start()
        published(made, "v1")
        check_outcome(made, [*people[0].told, *people[1].told])


def test_an_upload_that_expires_leaves_nothing(tmp_path: Path) -> None:
    soon = {"upload_hours": "0.0001"}
    with started(tmp_path, people=1, settings=soon) as (made, (ann,)):
        raw = body_file()
        key = {"Idempotency-Key": secrets.token_hex(8)}
        path = made.model("/contributions")
        answer = made.ask("POST", path, ann.name, json=declaration(raw), headers=key)
        (file,) = answer.json()["upload"]["files"]
        httpx.put(
            file["parts"][0]["url"], content=raw, trust_env=False, timeout=120
        ).raise_for_status()
        uploads = made.data / "uploads"
        assert len(list(uploads.iterdir())) == 1
        made.die_at(made.scheduler, "contribution.expired")
        assert made.listed(path)[0]["state"] == "expired"
        made.scheduler.start()
        wait_for(lambda: not list(uploads.iterdir()), "the end of the upload's bytes")
        check_outcome(made, [])


def test_a_replay_survives_who_fuses_and_who_publishes_it(tmp_path: Path) -> None:
    with started(tmp_path, people=2) as (made, people):
        worker = made.workers[0]
        worker.start()
        for version in ("v1", "v2"):
            with contributed(people):
                pass
            published(made, version)
        worker.kill()
        wanted = {"without": [people[0].told[0]]}
        asked = made.ask("POST", made.model("/replays"), json=wanted).raise_for_status().json()
        path = made.model(f"/replays/{asked['id']}")
        # Two bases: the first is kept, and is not fused again.
        for point in ("replay.begun", "replay.fused", "replay.kept"):
            made.die_at(worker, point)
        worker.start()
        wait_for(lambda: made.get(path)["state"] == "ready", "the replay")
        for point, current in (("replay.publishing", "v2"), ("replay.published", "v4")):
            made.api.kill()
            made.api.start(point)
            made.await_api()
            with suppress(httpx.TransportError):
                made.ask("POST", f"{path}/publish")
            assert made.api.ended() == -signal.SIGKILL, point
            made.api.start()
            made.await_api()
            assert made.get(made.model())["current"] == current
        assert made.ask("POST", f"{path}/publish").json()["code"] == "state_conflict"
        check_outcome(made, [*people[0].told, *people[1].told])


def test_points_are_refused_outside_of_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLDFUSION_UNDER_TEST", raising=False)
    with pytest.raises(ConfigurationError, match="for tests alone"):
        load_settings(fault_point="round.begun")
    monkeypatch.setenv("COLDFUSION_FAULT_POINT", "round.begun")
    with pytest.raises(ConfigurationError, match="for tests alone"):
        load_settings()
    monkeypatch.setenv("COLDFUSION_UNDER_TEST", "1")
    assert load_settings().fault_point == "round.begun"
