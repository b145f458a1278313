"""
Processes of a Repository are killed at random while many contribute; it comes to rest by itself.

`make soak` kills more: COLDFUSION_KILLS says how many. COLDFUSION_KILL_SEED repeats a run that
failed, as far as threads and processes can be repeated.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coldfusion_server.storage.s3.connection import S3Options
from tests.faults.fleet import PEOPLE, Fleet, fleet
from tests.faults.killer import (
    Killer,
    Outage,
    with_silent_store,
    without,
)
from tests.faults.outcome import check_outcome
from tests.faults.people import Contributor, Crowd
from tests.faults.stage import wait_for
from tests.s3.rgw import S3Server
from tests.server import postgres as databases

KILLS = int(os.environ.get("COLDFUSION_KILLS", "10"))
POLICY: dict[str, Any] = {"min_contributions": 2, "max_staleness": 2}
REST_SECONDS = 300
# Else nothing was under way that a kill could have harmed; so many more are killed until it was.
LEAST_PUBLISHED = 3
MORE_KILLS = 30


@pytest.fixture
def seed() -> int:
    """What decides who is killed and when; a test that fails tells it."""
    drawn = int(os.environ.get("COLDFUSION_KILL_SEED") or secrets.randbelow(2**32))
    sys.stdout.write(f"COLDFUSION_KILL_SEED={drawn}\n")
    return drawn


@pytest.fixture
def durable_postgres() -> Iterator[databases.PostgresServer]:
    """A server of the test's own, which keeps what it has committed when it is killed."""
    with databases.running() as server:
        yield server


def test_kills_on_one_machine(tmp_path: Path, seed: int) -> None:
    with fleet(tmp_path, **POLICY) as made:
        _survive(made, Killer(made, seed), seed)


def test_kills_on_postgresql_and_s3(
    tmp_path: Path,
    seed: int,
    durable_postgres: databases.PostgresServer,
    rgw: S3Options,
    ceph_server: S3Server,
) -> None:
    outages: list[tuple[str, Outage]] = [
        ("database killed", without(durable_postgres)),
        ("store killed", without(ceph_server.gateway)),
        ("store silent", with_silent_store(ceph_server.gateway)),
    ]
    bucket = replace(rgw, prefix=f"{secrets.token_hex(6)}/")
    # The server is thrown away with all that is in it.
    url = f"{durable_postgres.url}/postgres"
    with fleet(tmp_path, url, bucket, **POLICY) as made:
        _survive(made, Killer(made, seed, outages), seed)


def _survive(made: Fleet, killer: Killer, seed: int) -> None:
    made.recover()
    people = [Contributor(made, name, seed, 0.2 * (name == "cem")) for name in PEOPLE]
    with ExitStack() as stack:
        for person in people:
            stack.callback(person.close)
        with Crowd(people) as crowd:
            killer.run(KILLS)
            for _ in range(MORE_KILLS):
                if crowd.faults or _published(made) >= LEAST_PUBLISHED:
                    break
                killer.run(1)
            # What was started while the database was away has ended by itself.
            crowd.finish(made.mend)
        crowd.check()
        _come_to_rest(made, people[0])
    counted = check_outcome(made, [one for person in people for one in person.told])
    assert counted["rounds published"] >= LEAST_PUBLISHED
    refused = sum(person.refused for person in people)
    figures = {**killer.kills, **killer.others, **counted, "refused as too late": refused}
    told = ", ".join(f"{what} {count}" for what, count in figures.items())
    sys.stdout.write(f"{killer.kills.total()} kills survived: {told}\n")


def _published(made: Fleet) -> int:
    made.recover()
    return [one["state"] for one in made.listed(made.model("/rounds"))].count("published")


def _come_to_rest(made: Fleet, last: Contributor) -> None:
    """Wait until nothing is under way; what waits for company in the open round gets it."""
    while True:
        wait_for(lambda: _rests(made), "rest", REST_SECONDS)
        if not any(one["state"] == "accepted" for one in made.listed(made.model("/contributions"))):
            return
        last.contribute()


def _rests(made: Fleet) -> bool:
    made.recover()
    newest = made.get(made.model("/rounds"), limit=1)["items"][0]
    waiting = [one["state"] for one in made.listed(made.model("/contributions"))]
    if newest["state"] != "open" or {"declared", "completed"} & set(waiting):
        return False
    return bool(waiting.count("accepted") < POLICY["min_contributions"])
