"""Two processes serve the API, on one PostgreSQL and one bucket."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from coldfusion_server.storage.s3.connection import S3Options
from tests.e2e.programs import Server
from tests.faults.proxy import proxy
from tests.faults.stage import MIB, MODEL, Stage, clean_end, end, stage, wait_for
from tests.server import postgres as databases


@pytest.fixture
def pair(middling: Path, rgw: S3Options, postgres: str, tmp_path: Path) -> Iterator[Stage]:
    """A stage whose clients reach two servers in turn, request by request."""
    names = ("COLDFUSION_SECRET", "COLDFUSION_SIGNING_SECRET")
    secret = {name: secrets.token_hex(16) for name in names}
    with (
        databases.database(postgres) as url,
        stage(tmp_path, middling, rgw, database_url=url, settings=secret) as made,
    ):
        (tmp_path / "other").mkdir()
        other = Server(
            tmp_path / "other" / "data", made.server.store, url, settings=made.server.settings
        )
        other.start()
        try:
            with proxy(made.server.url, other.url) as front:
                made.front = front
                yield made
        finally:
            end(other)


def test_requests_that_go_to_two_servers_in_turn(pair: Stage) -> None:
    on, model = pair, pair.finetuned()
    assert on.front
    push = ("push", MODEL, str(model), "--base", "v0", "--json")
    one, two = (on.client(COLDFUSION_SERVER=on.front.url) for _ in range(2))
    for client in (one, two):
        clean_end(client.run("pull", MODEL))

    # Both begin the same upload at once, from two machines with the same token.
    on.wire.sent.allow(3 * MIB)
    both = [client.start(*push) for client in (one, two)]
    wait_for(on.wire.sent.closed.is_set, "the uploads")
    on.wire.sent.allow(None)
    ended = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    identities = {json.loads(out)["id"] for out, _ in ended}
    assert len(identities) == 1
    on.accepted(identities.pop())
    assert len(on.contributions()) == 1

    # Once more is no second contribution.
    again = one.run(*push)
    clean_end(again)
    assert len(on.contributions()) == 1
    upstreams = {asked.upstream for asked in on.front.asked}
    assert upstreams == {0, 1}
    with on.store() as store:
        wait_for(lambda: store.pending_uploads() == [], "the end of all uploads")
    assert on.temporary() == []
