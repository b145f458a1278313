"""Pushes that want more of the server than they bring."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from coldfusion_server.db.tables import BaseRow, HubXorbRow
from coldfusion_server.services import rebuilding, staging
from coldfusion_server.services.lookup import manifest_of
from coldfusion_server.xet.shard import MAX_SHARD_BYTES, ShardReader
from coldfusion_shared.errors import TooLarge
from coldfusion_shared.schemas.bases import Manifest
from tests.hub.clients import door
from tests.hub.pusher import Pusher
from tests.hub.test_xet import Sender
from tests.hub.xets import LZ4, File, piece, shard, xorb_name
from tests.server.backends import only_sqlite
from tests.server.repository import MODEL, Repository, repository

pytestmark = only_sqlite

PIECES, PIECE_BYTES = 256, 2**17


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    with repository(tmp_path / "data") as opened:
        opened.model()
        yield opened


def test_a_small_shard_does_not_become_a_large_file(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = Sender(repo, repo.token())
    ann.xorb("zeros", piece(bytes(PIECE_BYTES), LZ4) * PIECES)
    before = [listed.sha256 for listed in repo.ctx.store.objects()]
    written = list[bytes]()

    def put(blocks: Any, **how: Any) -> None:
        written.extend(blocks)
        raise AssertionError("nothing of it is stored")

    monkeypatch.setattr(repo.ctx.store, "put", put)
    # Nothing is said of its digest, as older clients say nothing.
    large = File([(xorb_name("zeros"), 0, PIECES, PIECES * PIECE_BYTES)] * 8, hashes=False)
    assert len(shard([large])) < 1000
    answer = ann.shard(large)
    assert answer.status_code == 413 and "are the most" in answer.json()["error"]
    assert written == []
    assert [listed.sha256 for listed in repo.ctx.store.objects()] == before


def test_nobodys_shards_keep_others_waiting(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go, begun, of_ann = Event(), Event(), list[str]()
    rebuild = rebuilding.rebuild

    def slow(ctx: Any, ticket: Any, files: Any) -> None:
        if ticket.who.name == "ann":
            of_ann.append("begun")
            begun.set()
            assert let_go.wait(240)
        rebuild(ctx, ticket, files)

    monkeypatch.setattr(rebuilding, "rebuild", slow)
    ann, bob = Sender(repo, repo.token()), Sender(repo, repo.token("bob"))
    empty = shard([File()])
    with door(repo) as url, ThreadPoolExecutor(6) as pool:
        sent = [pool.submit(_post, f"{url}{ann.cas}", ann.access, empty) for _ in range(5)]
        assert begun.wait(240)
        assert _post(f"{url}{bob.cas}", bob.access, empty) == 200
        assert of_ann == ["begun"]
        let_go.set()
        assert [item.result() for item in sent] == [200] * 5
    assert of_ann == ["begun"] * 5


def _post(cas: str, token: str, content: bytes) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.post(f"{cas}/v1/shards", content=content, headers=headers, timeout=240).status_code


def test_a_batch_reads_the_manifest_once_and_has_an_end(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = list[int]()

    def counted(row: BaseRow) -> Manifest:
        reads.append(row.number)
        return manifest_of(row)

    monkeypatch.setattr(staging, "manifest_of", counted)
    ann = Pusher(repo)
    raws = [b"%d" % number for number in range(staging.MAX_FILES + 1)]
    assert ann.batch(*raws).status_code == 400 and reads == []
    told = ann.batch(*raws[:-1]).json()["objects"]
    assert all("actions" in item for item in told) and len(reads) == 1


def test_refusals_name_what_a_hub_client_can_do(repo: Repository) -> None:
    stranger, ann = repo.client(), repo.client(repo.token())
    path = f"/api/models/{MODEL}/preupload/main?create_pr=1"
    told = stranger.post(path, json={"files": []})
    assert told.status_code == 401 and "hf auth login, or set HF_TOKEN." in told.json()["error"]
    told = stranger.get(f"/api/models/{MODEL}/xet-write-token/main")
    assert told.status_code == 401 and "hf auth login" in told.json()["error"]
    told = ann.get("/api/models/demo/absent")
    assert told.status_code == 404 and told.json()["error"].endswith("hf models ls")
    told = ann.post("/api/repos/create", json={"name": "absent", "organization": "demo"})
    assert told.status_code == 403
    assert told.json()["error"].startswith("There is no model 'demo/absent' here")
    for answer in (told, stranger.post(path, json={"files": []})):
        assert "coldfusion-client" not in answer.text


@pytest.mark.parametrize("head", [shard([File()]), shard([])[:96]], ids=["over", "of no file"])
def test_a_shard_has_an_end_whatever_its_sender_says_of_it(head: bytes) -> None:
    reader = ShardReader()
    reader.feed(head)
    block = bytes(2**20)
    with pytest.raises(TooLarge):
        for _ in range(MAX_SHARD_BYTES // len(block)):
            reader.feed(block)


def test_operators_see_whose_pieces_take_room(repo: Repository) -> None:
    op = repo.token("op", "maintainer")
    before = repo.get("/v1/usage", op)["total_bytes"]
    ann = Sender(repo, repo.token())
    ann.xorb("a", piece(b"x" * 900))
    with repo.ctx.database.read() as session:
        size = session.scalars(select(HubXorbRow.size)).one()
    whole = repo.get("/v1/usage", op)
    assert whole["total_bytes"] == before + size
    expected = [{"contributor": "ann", "uploads": 0, "unfinished_bytes": size}]
    for told in (whole["contributors"], whole["models"][0]["contributors"]):
        assert [{key: item[key] for key in expected[0]} for item in told] == expected
