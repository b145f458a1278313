"""The hub's real clients as they are, which is by Xet: what they push is fused."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from coldfusion_server.db.tables import ContributionFileRow, HubUploadRow, HubXorbRow
from coldfusion_server.services import staging, xorbs
from coldfusion_server.storage.s3.connection import S3Options
from coldfusion_server.storage.s3.store import S3Store
from tests.faults.proxy import Asked, Fault, proxy
from tests.hub.clients import NEWEST, ONE, HubClient, door
from tests.hub.test_push_clients import SCRIPTS, fill, finetuned, fused
from tests.server.repository import MODEL, Repository, repository

SETTINGS = {"OMP_NUM_THREADS": "1", "HF_XET_CLIENT_RETRY_BASE_DELAY": "100ms"}


@pytest.fixture(scope="module")
def near(tmp_path_factory: pytest.TempPathFactory, pretrained: Path) -> Iterator[Repository]:
    """A Repository on a disk."""
    with repository(tmp_path_factory.mktemp("near") / "data") as repo:
        yield fill(by_the_clock(repo), pretrained)


@pytest.fixture(scope="module")
def far(
    tmp_path_factory: pytest.TempPathFactory, pretrained: Path, rgw: S3Options
) -> Iterator[Repository]:
    """The same with its objects in a bucket."""
    store = S3Store(replace(rgw, prefix=f"{secrets.token_hex(8)}/"))
    with repository(tmp_path_factory.mktemp("far") / "data", store=store) as repo:
        yield fill(by_the_clock(repo), pretrained)


def by_the_clock(repo: Repository) -> Repository:
    """Set the clock to the clients', who look when a token ends."""
    repo.clock.now = datetime.now(UTC)
    return repo


def by_xet(repo: Repository) -> list[bool]:
    """Return of each file that was pushed whether it came by Xet; nothing else is left of that."""
    with repo.ctx.database.read() as session:
        assert session.scalars(select(HubXorbRow)).all() == []
        assert session.scalars(select(HubUploadRow)).all() == []
        return list(session.scalars(select(ContributionFileRow.stored)))


@pytest.mark.parametrize(("place", "version"), [("near", NEWEST), ("near", ONE), ("far", NEWEST)])
def test_what_a_hub_client_pushes_as_it_is_is_fused(
    place: str, version: str, pretrained: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    repo: Repository = request.getfixturevalue(place)
    name = f"client-{version}"
    seed = int(1000 * float(version))
    folders = [finetuned(tmp_path / str(n), pretrained, seed + n) for n in range(3)]
    (folders[2] / "training_args.bin").write_bytes(b"\x80\x02}")
    with door(repo) as url:
        client = HubClient(url, tmp_path / "home", version, repo.token(name), SETTINGS)
        found = client.script(SCRIPTS / "push_all.py", MODEL, *folders)
    assert found["version"].startswith(version)
    # The same weights at once are the same pull request.
    assert found["failures"]["again"] == "none"
    assert "create_pr=True" in found["failures"]["main"]
    assert "pickle" in found["failures"]["pickle"]
    assert len(fused(repo, name)) == 2 and all(by_xet(repo))


def test_transformers_and_peft_push_by_xet(near: Repository, tmp_path: Path) -> None:
    with door(near) as url:
        client = HubClient(url, tmp_path, token=near.token("tim"), settings=SETTINGS)
        client.script(SCRIPTS / "push_finetuned.py", MODEL, "v0")
    assert {item["encoding"] for item in fused(near, "tim")} == {"full", "lora"}
    assert all(by_xet(near))


def sizes(repo: Repository) -> list[int]:
    """Return the size of each xorb that is here, in bytes, the oldest first."""
    with repo.ctx.database.read() as session:
        return list(session.scalars(select(HubXorbRow.size).order_by(HubXorbRow.id)))


def test_what_a_client_remembers_it_sends_once_and_never_for_others(
    pretrained: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(7)
    values = rng.integers(0, 256, 2_000_000, dtype=np.uint8)
    files = [tmp_path / str(n) for n in range(3)]
    for number, file in enumerate(files):
        values[: number * 1000] += 1
        file.write_bytes(values.tobytes())
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    with repository(tmp_path / "data") as repo, door(fill(by_the_clock(repo), pretrained)) as url:
        home = tmp_path / "home"
        ann, bob = (HubClient(url, home, token=repo.token(n), settings=SETTINGS) for n in "ab")
        script = SCRIPTS / "xet_send.py"
        assert ann.script(script, MODEL, *files[:2]) == digests[:2]
        assert ann.script(script, MODEL, files[2], files[0]) == [digests[2], digests[0]]
        # Of the others a piece or two, and the one that it knew nothing.
        first, *others = sizes(repo)
        assert first > 2_000_000 and len(others) == 2 and max(others) < 300_000
        assert bob.script(script, MODEL, files[2]) == digests[2:]
        assert sizes(repo)[3] > 2_000_000
        # Nothing of it is here any more, which the client cannot know.
        repo.clock.advance(hours=25)
        assert xorbs.expire(repo.ctx) == 4 and staging.expire(repo.ctx) == 4
        assert ann.script(script, MODEL, files[1]) == digests[1:2]
        assert sizes(repo)[0] > 2_000_000


def test_a_xorb_that_is_cut_on_its_way_is_sent_again(pretrained: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(np.random.default_rng(8).bytes(1_500_000))

    def rule(asked: Asked) -> Fault | None:
        if "/v1/xorbs/" in asked.target and asked.number not in cut and len(cut) < 2:
            cut.append(asked.number)
            return Fault(cut_sent=700_000, reset=len(cut) == 2)
        return None

    cut: list[int] = []
    with repository(tmp_path / "data") as repo, door(fill(by_the_clock(repo), pretrained)) as url:
        with proxy(url) as between:
            between.rule = rule
            client = HubClient(between.url, tmp_path, token=repo.token(), settings=SETTINGS)
            sent = client.script(SCRIPTS / "xet_send.py", MODEL, file)
        assert sent == [hashlib.sha256(file.read_bytes()).hexdigest()]
        assert len(cut) == 2 and len(sizes(repo)) == 1
