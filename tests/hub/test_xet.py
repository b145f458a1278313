"""Uploading by Xet, request by request: who may, what is kept, what is refused, what goes again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from coldfusion_server.api.session import COOKIE, make_session
from coldfusion_server.db.tables import HubUploadRow, HubXorbRow
from coldfusion_server.services import staging, xorbs
from coldfusion_server.services.blocking import block
from coldfusion_server.services.garbage import collect
from coldfusion_server.services.tokens import revoke_token
from coldfusion_server.xet.xorb import MAX_XORB_BYTES
from coldfusion_shared.schemas.contributors import Block
from tests.hub.clients import door
from tests.hub.pusher import WEIGHTS as WEIGHTS_FILE
from tests.hub.pusher import Pusher
from tests.hub.xets import GROUPED, LZ4, RAW, File, piece, shard, xorb_name
from tests.server.asgi import request
from tests.server.backends import Backend, both_databases, only_sqlite
from tests.server.repository import MODEL, Repository, body_file, repository

pytestmark = only_sqlite

WEIGHTS = body_file()
# Where the weights are cut, and how the pieces are sent.
CUTS = [(0, 400, LZ4), (400, 401, RAW), (401, 900, GROUPED), (900, len(WEIGHTS), GROUPED)]
OTHER = "demo/other"


@pytest.fixture
def repo(tmp_path: Path, backend: Backend) -> Iterator[Repository]:
    with backend.database() as url, repository(tmp_path / "data", url) as opened:
        opened.model()
        yield opened


@dataclass
class Sender:
    """Somebody's hf_xet, for one model."""

    repo: Repository
    token: str
    model: str = MODEL

    def __post_init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Ask for a token and an address."""
        path = f"/api/models/{self.model}/xet-write-token/None?create_pr=1"
        told = self.repo.get(path, self.token)
        self.client = self.repo.client(told["accessToken"])
        self.access, self.cas = (
            told["accessToken"],
            told["casUrl"].removeprefix("http://testserver"),
        )
        self.ends = told["exp"]

    def xorb(self, name: str, *pieces: bytes) -> Any:
        return self.client.post(
            f"{self.cas}/v1/xorbs/default/{xorb_name(name)}", content=b"".join(pieces)
        )

    def shard(self, *files: File) -> Any:
        return self.client.post(f"{self.cas}/v1/shards", content=shard(files))

    def send(self, data: bytes = WEIGHTS) -> str:
        """Send the weights in two xorbs and return their digest."""
        cut = [piece(data[start:end], kind) for start, end, kind in CUTS]
        assert self.xorb("a", *cut[2:], cut[0]).json() == {"was_inserted": True}
        assert self.xorb("b", cut[1]).json() == {"was_inserted": True}
        answer = self.shard(file_of(data))
        assert (answer.status_code, answer.json()) == (200, {"result": 1}), answer.text
        return hashlib.sha256(data).hexdigest()


def file_of(data: bytes, **changes: Any) -> File:
    """Return what is said of a file that `Sender.send` has sent."""
    ranges = [("a", 2, 3, 400), ("b", 0, 1, 1), ("a", 0, 2, len(data) - 401)]
    named = [(xorb_name(name), *rest) for name, *rest in ranges]
    return File(named, **{"sha256": hashlib.sha256(data).hexdigest(), **changes})  # type: ignore[arg-type]


def held(repo: Repository, table: Any) -> list[Any]:
    with repo.ctx.database.read() as session:
        return list(session.scalars(select(table).order_by(table.id)))


def objects(repo: Repository) -> set[str]:
    return {listed.sha256 for listed in repo.ctx.store.objects()}


@both_databases
def test_a_file_is_put_together_contributed_and_its_pieces_go(repo: Repository) -> None:
    before = objects(repo)
    ann = Sender(repo, repo.token())
    digest = ann.send()
    (staged,) = held(repo, HubUploadRow)
    assert (staged.sha256, staged.size, staged.stored) == (digest, len(WEIGHTS), True)
    source = repo.ctx.store.source(digest)
    raw = bytearray(source.size)
    source.read_into(0, memoryview(raw))
    source.close()
    assert bytes(raw) == WEIGHTS
    # Once more is harmless.
    assert ann.xorb("b", piece(b"?")).json() == {"was_inserted": False}
    assert ann.shard(file_of(WEIGHTS)).json() == {"result": 1}
    pieces = {row.sha256 for row in held(repo, HubXorbRow)}
    assert objects(repo) == before | {digest} | pieces and len(pieces) == 2

    pusher = Pusher(repo)
    answer = pusher.commit({WEIGHTS_FILE: WEIGHTS})
    assert answer.status_code == 200, answer.text
    assert held(repo, HubXorbRow) == [] and objects(repo) == before | {digest}
    repo.work()
    assert [item["state"] for item in pusher.contributions()] == ["accepted"]
    # What clients remember of an address whose pieces are gone is of no use any more.
    old = ann.cas
    ann.renew()
    assert ann.cas != old
    # The same push again is the same contribution.
    ann.send()
    assert pusher.commit({WEIGHTS_FILE: WEIGHTS}).json() == answer.json()
    assert held(repo, HubXorbRow) == [] and objects(repo) == before | {digest}
    # Somebody else's is refused in the end, where clients show why.
    Sender(repo, repo.token("bob")).send()
    refused = Pusher(repo, "bob").commit({WEIGHTS_FILE: WEIGHTS})
    assert refused.status_code == 409 and "contributed before" in refused.json()["error"]


def test_what_is_not_there_is_told_as_clients_know_it(repo: Repository) -> None:
    ann = Sender(repo, repo.token())
    name = xorb_name("a")
    assert ann.client.get(f"{ann.cas}/v1/chunks/default/{name}").status_code == 404
    for path in (f"/v1/xorb-grants/default/{name}", "/v2/shards", "/v3/something/new"):
        assert ann.client.post(ann.cas + path, content=b"{}").status_code == 404
    # Wherever the address lies, clients tell of their uploads at the server's root, with the token:
    # that is no try at a token of somebody's.
    for _ in range(2 * repo.settings.wrong_tokens):
        assert ann.client.post("/v1/telemetry", content=b"{}").status_code == 404
    assert repo.client(ann.token).get("/api/whoami-v2").status_code == 200


def test_addresses_of_older_clients_are_good_too(repo: Repository) -> None:
    ann = Sender(repo, repo.token())
    for name, put, join in (("a", "xorbs", "shards"), ("b", "xorb", "shard/default/" + "0" * 64)):
        path = f"{ann.cas}/{put}/default/{xorb_name(name)}"
        assert ann.client.post(path, content=piece(b"abc")).json() == {"was_inserted": True}
        content = shard([File([(xorb_name(name), 0, 1, 3)])])
        assert ann.client.post(f"{ann.cas}/{join}", content=content).json() == {"result": 1}


def test_who_may_contribute_gets_a_token_for_an_hour(repo: Repository) -> None:
    path = f"/api/models/{MODEL}/xet-write-token/main"
    repo.model(OTHER, public=False)
    reader, other = repo.token("rea", "reader"), repo.token("oth", models=[OTHER])
    for token, status in ((None, 401), (reader, 403), (other, 403), ("cf_wrong", 401)):
        assert repo.client(token).get(path).status_code == status
    answer = repo.client(repo.token()).get("/api/models/demo/none/xet-write-token/main")
    assert answer.headers["x-error-code"] == "RepoNotFound"
    # A browser's cookie is no right to write.
    cookie = make_session(repo.ctx, repo.principal().token_id)
    assert repo.client().get(path, headers={"Cookie": f"{COOKIE}={cookie}"}).status_code == 401
    ann = Sender(repo, repo.token())
    assert ann.ends == repo.clock().timestamp() + 3600
    answer = repo.client(ann.token).get(path)
    # Older clients read headers.
    assert answer.headers["x-xet-cas-url"] == answer.json()["casUrl"]
    assert answer.headers["x-xet-access-token"] == answer.json()["accessToken"]
    assert answer.headers["x-xet-token-expiration"] == str(answer.json()["exp"])


def test_the_token_is_good_for_uploads_alone(repo: Repository) -> None:
    ann = Sender(repo, repo.token())
    for path in ("/api/whoami-v2", f"/v1/models/{MODEL}", f"/api/models/{MODEL}"):
        assert ann.client.get(path).status_code == 401
    assert ann.client.post(f"/api/models/{MODEL}/preupload/main", json={}).status_code == 401
    said, signature = ann.access.removeprefix("cfx_").split(".")
    wrong = [
        ann.token,
        "cfx_",
        "cfx_.",
        f"cfx_{said}.{signature[:-1]}{'0' if signature[-1] != '0' else '1'}",
        f"cfx_{said[:-1]}A.{signature}",
        f"{ann.access}é",
        ann.access + "0" * 3000,
    ]
    for token in wrong:
        answer = request(
            repo.app,
            "POST",
            f"{ann.cas}/v1/xorbs/default/{xorb_name('a')}",
            [(b"authorization", f"Bearer {token}".encode())],
            [b"x"],
        )
        assert (answer.status, answer.read) == (401, 0)
    assert held(repo, HubXorbRow) == []


def test_the_token_ends_with_time_and_with_what_it_stands_on(repo: Repository) -> None:
    def refused(sender: Sender) -> str:
        answer = sender.xorb("a", piece(b"abc"))
        assert answer.status_code in (401, 403), answer.text
        return str(answer.json()["error"])

    ann = Sender(repo, repo.token())
    bob, cid = (Sender(repo, repo.token(name)) for name in ("bob", "cid"))
    assert revoke_token(repo.ctx, bob.token.split("_")[1]) == 1
    assert "revoked" in refused(bob)
    block(repo.ctx, "cid", Block(reason="because"), repo.principal("boss", "admin"))
    assert "blocked" in refused(cid)
    repo.clock.advance(minutes=59)
    assert ann.xorb("a", piece(b"abc")).status_code == 200
    repo.clock.advance(minutes=1)
    assert "expired" in refused(ann)


@both_databases
def test_nobody_names_or_finds_what_somebody_else_has_sent(repo: Repository) -> None:
    repo.model(OTHER)
    ann, bob = Sender(repo, repo.token()), Sender(repo, repo.token("bob"))
    elsewhere = Sender(repo, ann.token, OTHER)
    assert len({ann.cas, bob.cas, elsewhere.cas}) == 3
    ann.send()
    for stranger in (bob, elsewhere):
        answer = stranger.shard(file_of(WEIGHTS))
        missing = stranger.shard(File([(xorb_name("none"), 0, 1, 5)]))
        assert answer.status_code == missing.status_code == 404
        # By its own address, and by somebody else's: the token counts.
        stranger.cas = ann.cas
        assert stranger.shard(file_of(WEIGHTS)).status_code == 404
        # It has to be sent, whoever has it, and stays apart.
        assert stranger.xorb("a", piece(b"mine")).json() == {"was_inserted": True}
        assert stranger.shard(File([(xorb_name("a"), 0, 1, 4)])).json() == {"result": 1}
    assert [row.sha256 for row in held(repo, HubUploadRow) if row.size == 4] == [
        hashlib.sha256(b"mine").hexdigest()
    ] * 2
    assert ann.shard(file_of(WEIGHTS)).json() == {"result": 1}


@both_databases
def test_the_same_at_once_is_kept_once(repo: Repository) -> None:
    ann = Sender(repo, repo.token())
    headers = {"Authorization": f"Bearer {ann.access}"}
    file = File([(xorb_name("a"), 0, 1, 4)], hashlib.sha256(b"mine").hexdigest())
    with door(repo) as url, ThreadPoolExecutor(6) as pool:

        def posted(path: str, content: bytes) -> list[httpx.Response]:
            address = f"{url}{ann.cas}/v1/{path}"
            send = partial(
                httpx.post, content=content, headers=headers, timeout=240, trust_env=False
            )
            return list(pool.map(send, [address] * 6))

        sent = posted(f"xorbs/default/{xorb_name('a')}", piece(b"mine"))
        made = posted("shards", shard([file]))
    assert {answer.status_code for answer in sent} == {200}
    assert [answer.json() for answer in made] == [{"result": 1}] * 6
    assert len(held(repo, HubXorbRow)) == len(held(repo, HubUploadRow)) == 1


LIES = {
    "too many pieces": File([(xorb_name("a"), 0, 4, len(WEIGHTS))]),
    "too many bytes": File([(xorb_name("a"), 2, 3, 401)]),
    "too few bytes": File([(xorb_name("a"), 2, 3, 399)]),
    "another file": file_of(WEIGHTS, sha256="0" * 64),
    "another order": file_of(WEIGHTS[::-1]),
    "a piece that is broken": File([(xorb_name("broken"), 0, 1, 150)]),
    "many times the same": File([(xorb_name("b"), 0, 1, 1)] * 100),
}


@pytest.mark.parametrize("file", LIES.values(), ids=LIES)
def test_shards_that_lie_are_refused_and_leave_nothing(repo: Repository, file: File) -> None:
    ann = Sender(repo, repo.token())
    ann.send()
    broken = bytearray(piece(b"abc" * 50, LZ4))
    broken[-6:] = b"\xff" * 6
    ann.xorb("broken", bytes(broken))
    before = objects(repo)
    answer = ann.shard(file)
    assert answer.status_code in (400, 413, 422), answer.text
    assert objects(repo) == before and len(held(repo, HubUploadRow)) == 1


@pytest.mark.parametrize("raw", [b"", b"no xorb at all", piece(b"abc") + b"\0"])
def test_what_is_no_xorb_is_refused_and_leaves_nothing(repo: Repository, raw: bytes) -> None:
    ann, before = Sender(repo, repo.token()), objects(repo)
    assert ann.xorb("a", raw).status_code == 400
    assert ann.client.post(f"{ann.cas}/v1/shards", content=raw).status_code == 400
    path = f"{ann.cas}/v1/xorbs/default/{'A' * 64}"
    assert ann.client.post(path, content=piece(b"abc")).status_code == 400
    assert held(repo, HubXorbRow) == [] and objects(repo) == before
    # The next try is none the worse.
    assert ann.xorb("a", piece(b"abc")).json() == {"was_inserted": True}


def test_what_is_too_large_is_refused_before_it_is_read(repo: Repository) -> None:
    ann = Sender(repo, repo.token())
    for path, size in (("xorbs/default/" + xorb_name("a"), MAX_XORB_BYTES), ("shards", 2**26)):
        headers = [
            (b"authorization", f"Bearer {ann.access}".encode()),
            (b"content-length", str(size + 1).encode()),
        ]
        answer = request(repo.app, "POST", f"{ann.cas}/v1/{path}", headers, [b"x"])
        assert (answer.status, answer.read) == (413, 0)
    assert held(repo, HubXorbRow) == []


def test_a_sender_who_hangs_up_leaves_nothing(repo: Repository) -> None:
    ann, before = Sender(repo, repo.token()), objects(repo)
    headers = [(b"authorization", f"Bearer {ann.access}".encode())]
    path = f"{ann.cas}/v1/xorbs/default/{xorb_name('a')}"
    request(repo.app, "POST", path, headers, [piece(b"abc")], hang_up=True)
    assert held(repo, HubXorbRow) == [] and objects(repo) == before


def test_a_file_of_which_nothing_was_said_is_named_by_its_bytes(repo: Repository) -> None:
    ann = Sender(repo, repo.token())
    ann.xorb("a", piece(b"ab", RAW), piece(b"cd", RAW))
    ranges = [(xorb_name("a"), 1, 2, 2), (xorb_name("a"), 0, 1, 2)]
    assert ann.shard(File(ranges, hashes=False), File()).json() == {"result": 1}
    staged = {row.sha256 for row in held(repo, HubUploadRow)}
    assert staged == {hashlib.sha256(data).hexdigest() for data in (b"cdab", b"")}


@both_databases
def test_pieces_that_are_gone_are_sent_again(repo: Repository) -> None:
    ann = Sender(repo, repo.token())
    ann.send()
    assert xorbs.expire(repo.ctx) == 0
    # An address is given out for half a day, and what was sent there stays for a day.
    old = ann.cas
    repo.clock.advance(hours=11.9)
    ann.renew()
    assert ann.cas == old
    repo.clock.advance(hours=0.1)
    ann.renew()
    assert ann.cas != old
    assert ann.shard(file_of(WEIGHTS)).json() == {"result": 1}
    repo.clock.advance(hours=11.9)
    ann.renew()
    assert ann.shard(file_of(WEIGHTS)).json() == {"result": 1}
    repo.clock.advance(hours=0.1)
    before = ann.cas
    assert ann.shard(file_of(WEIGHTS)).status_code == 404
    ann.renew()
    assert ann.cas != before
    assert (xorbs.expire(repo.ctx), xorbs.expire(repo.ctx)) == (2, 0)
    ann.send()


def test_garbage_collection_keeps_what_may_be_named(tmp_path: Path) -> None:
    with repository(tmp_path / "data", gc_grace_hours=1) as repo:
        repo.model()
        # The disk's clock, by which objects grow old.
        repo.clock.now = datetime.now(UTC)
        before, ann = objects(repo), Sender(repo, repo.token())
        ann.send()
        sent = objects(repo)
        repo.clock.advance(hours=23.9)
        collect(repo.ctx, "tests")
        assert objects(repo) == sent
        repo.clock.advance(hours=0.1)
        assert (xorbs.expire(repo.ctx), staging.expire(repo.ctx)) == (2, 1)
        assert objects(repo) == before


def test_pieces_count_against_the_quota(tmp_path: Path) -> None:
    with repository(tmp_path / "data", quota_bytes=1000) as repo:
        repo.model()
        ann = Sender(repo, repo.token())
        assert ann.xorb("a", piece(b"x" * 900)).status_code == 200
        answer = ann.xorb("b", piece(b"y" * 900))
        assert answer.status_code == 403 and "1000 bytes" in answer.json()["error"]
        assert len(held(repo, HubXorbRow)) == 1
        assert Sender(repo, repo.token("bob")).xorb("b", piece(b"y" * 900)).status_code == 200
        # A file made of the same piece again and again.
        ranges = [(xorb_name("a"), 0, 1, 900)] * 3
        before = objects(repo)
        assert ann.shard(File(ranges)).status_code == 403
        # Where clients show why, they are told so; before, it is not even put together.
        data = b"x" * 2700
        assert ann.shard(File(ranges, hashlib.sha256(data).hexdigest())).json() == {"result": 1}
        refused = Pusher(repo).commit({WEIGHTS_FILE: data})
        assert refused.status_code == 403 and "2700 bytes" in refused.json()["error"]
        early = Pusher(repo).preupload({WEIGHTS_FILE: WEIGHTS})
        assert early.status_code == 403
        assert f"This upload has {len(WEIGHTS)} bytes" in early.json()["error"]
        assert objects(repo) == before and held(repo, HubUploadRow) == []


def test_what_waits_for_its_commit_counts_beside_the_pieces(tmp_path: Path) -> None:
    with repository(tmp_path / "data", quota_bytes=1000) as repo:
        repo.model()
        ann = Sender(repo, repo.token())
        assert ann.xorb("a", piece(b"x" * 400)).status_code == 200
        assert ann.shard(File([(xorb_name("a"), 0, 1, 400)])).json() == {"result": 1}
        assert ann.xorb("b", piece(b"y" * 300)).status_code == 403
        assert ann.xorb("c", piece(b"z" * 100)).status_code == 200
