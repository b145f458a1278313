"""Clocks that are 20 minutes off: the server's against its store, the client's against both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from coldfusion_client.cli.errors import exit_code
from coldfusion_server.storage.s3.connection import S3Options
from tests.faults.clock import Clock
from tests.faults.stage import MODEL, Stage, clean_end, stage
from tests.faults.test_permissions import refused_start


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path)


@pytest.mark.parametrize("minutes", [20, -20])
def test_a_server_whose_clock_is_off_says_so_at_its_start(
    rgw: S3Options, clock: Clock, tmp_path: Path, minutes: int
) -> None:
    clock.set(minutes)
    said = refused_start(tmp_path, rgw, **clock.environment)
    assert "clock" in said and "RequestTimeTooSkewed" in said


@pytest.fixture
def drifting(middling: Path, rgw: S3Options, clock: Clock, tmp_path: Path) -> Iterator[Stage]:
    """A server whose clock the test sets."""
    with stage(
        tmp_path, middling, rgw, settings={"COLDFUSION_URL_MINUTES": "10", **clock.environment}
    ) as made:
        yield made


def test_a_clock_that_is_set_wrong_later_is_named_to_everybody(
    drifting: Stage, clock: Clock
) -> None:
    on = drifting
    client = on.client()
    push = ("push", MODEL, str(on.finetuned()), "--base", "v0", "--json")
    pull = ("pull", MODEL, "--out", "base")
    for minutes in (20, -20):
        clock.set(minutes)
        refused = on.declare()
        assert refused.status_code == 503
        problem = refused.json()
        assert "RequestTimeTooSkewed" in problem["detail"] and "clock" in problem["hint"]
    # By the store's clock, its URLs have expired before they are used.
    said = clean_end(client.run(*pull), exit_code("storage_unavailable"))
    assert "20 minutes ago" in said and "clock" in said, said
    clock.set(0)
    clean_end(client.run(*pull))
    done = client.run(*push)
    clean_end(done)
    on.accepted(json.loads(done.stdout)["id"])


@pytest.mark.parametrize("minutes", [20, -20])
def test_the_clock_of_a_client_does_not_matter(on: Stage, clock: Clock, minutes: int) -> None:
    clock.set(minutes)
    client = on.client(**clock.environment)
    done = client.run("push", MODEL, str(on.finetuned()), "--base", "v0", "--json")
    clean_end(done)
    on.accepted(json.loads(done.stdout)["id"])
