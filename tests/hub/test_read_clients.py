"""The hub's real clients read from the hub door: from a disk and from a real S3 store."""

from __future__ import annotations

import hashlib
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from coldfusion_server.services import models
from coldfusion_server.storage.s3.connection import S3Options
from coldfusion_server.storage.s3.store import S3Store
from coldfusion_shared.schemas.models import Policy
from tests.faults.proxy import Asked, Fault, proxy
from tests.hub.clients import NEWEST, OLD, ONE, ROOT, HubClient, door
from tests.hub.conftest import PRIVATE, Library, fill
from tests.server.repository import MODEL, Repository, repository, tiny_folder

SCRIPTS = ROOT / "tests" / "hub"
# In which the clients write what they get, and from where they go on.
CHUNK = 10 * 2**20
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def far(
    tmp_path_factory: pytest.TempPathFactory, pretrained: Path, rgw: S3Options
) -> Iterator[Library]:
    """The same Repository with its objects in a bucket."""
    store = S3Store(replace(rgw, prefix=f"{secrets.token_hex(8)}/"))
    with repository(tmp_path_factory.mktemp("far") / "data", store=store) as repo:
        yield fill(repo, pretrained)


def read_all(library: Library, host: str, version: str, home: Path) -> None:
    """Read everything, and compare it with what the Repository says itself."""
    with door(library.repo, host) as url:
        client = HubClient(url, home, version, library.token)
        found = client.script(SCRIPTS / "read_all.py", MODEL, PRIVATE)
    old, new = library.versions
    first, head = (library.commit(name) for name in ("v0", "v1"))
    assert found["version"].startswith(version)
    assert found["siblings"] == found["tree"] == found["by_main"] == new
    assert found["by_commit"] == found["offline"] == new and found["by_tag"] == old
    # A file is stored once, under its content's address, in however many versions it is.
    assert found["blobs"] == sorted({*old.values(), *new.values()})
    assert found["commit"] == found["snapshot"] == head
    assert found["branches"] == {"main": head} and found["tags"] == {"v0": first, "v1": head}
    assert found["commits"] == [head, first] and found["pulls"] == []
    assert found["titles"] == ["v1: 1 contribution fused onto v0", "v0: the pretrained model"]
    assert found["paths"] == [WEIGHTS, "config.json"] and found["exists"] == [True, False]
    assert found["revisions"] == [True, True, False, True]
    assert found["listed"] == [MODEL] and found["who"] == "rea"
    assert found["private"] == [True, "config.json"] and found["may_read"] is None
    assert sorted(new) == found["folder"] and "pooler.dense.weight" in found["tensors"]
    assert bytes.fromhex(found["piece"]).startswith(b'{"')
    assert (found["base_model"], found["license"]) == ("lab/tiny-bert", "apache-2.0")
    assert found["card"]["coldfusion"]["parent_commit"] == first
    entry = "EntryNotFoundError" if version == OLD else "RemoteEntryNotFoundError"
    assert found["failures"] == {
        "model": "RepositoryNotFoundError",
        "word": "RepositoryNotFoundError",
        "private": "RepositoryNotFoundError",
        "revision": "RevisionNotFoundError",
        "file": entry,
        "folder": entry,
        "token": "HfHubHTTPError",
        "branch": "HfHubHTTPError",
    }


@pytest.mark.parametrize("version", [NEWEST, ONE, OLD])
def test_every_client_reads_all_there_is(library: Library, version: str, tmp_path: Path) -> None:
    read_all(library, "127.0.0.1", version, tmp_path)


@pytest.mark.parametrize("version", [NEWEST, ONE, OLD])
def test_every_client_is_sent_on_to_a_store_of_another_name(
    far: Library, version: str, tmp_path: Path
) -> None:
    read_all(far, "localhost", version, tmp_path)


def test_a_store_of_our_own_name_is_read_through_us(far: Library, tmp_path: Path) -> None:
    # This version would show its token to it, and be refused.
    read_all(far, "127.0.0.1", ONE, tmp_path)


@pytest.mark.parametrize(("host", "status"), [("localhost", 302), ("127.0.0.1", 206)])
def test_bytes_come_from_here_or_from_the_store(far: Library, host: str, status: int) -> None:
    files = far.repo.get(f"/v1/models/{MODEL}/bases/v1")["manifest"]["files"]
    size = next(file["size"] for file in files if file["path"] == "config.json")
    with door(far.repo, host) as url, httpx.Client(trust_env=False, timeout=120) as http:
        address = f"{url}/{MODEL}/resolve/v1/config.json"
        told = http.head(address)
        answer = http.get(address, headers={"Range": "bytes=5-9"})
        beyond = http.get(address, headers={"Range": f"bytes={size}-"})
        location = answer.headers.get("location")
        there = answer if location is None else http.get(location, headers={"Range": "bytes=5-9"})
    # Whoever asks by HEAD stays here: no signed URL is good for that.
    assert told.status_code == 200 and int(told.headers["content-length"]) == size
    assert answer.status_code == status and beyond.status_code == 416
    for headers in (told.headers, answer.headers):
        assert headers["x-repo-commit"] == far.commit("v1")
        assert headers["x-linked-etag"] == f'"{far.versions[1]["config.json"]}"'
        assert int(headers["x-linked-size"]) == size
    assert there.status_code == 206 and len(there.content) == 5
    assert there.headers["content-range"] == f"bytes 5-9/{size}"


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ({"Range": "bytes=0-"}, 0, None),
        ({"Range": "bytes=-3"}, -3, None),
        ({"Range": "bytes=7-99999"}, 7, None),
        ({"Range": "bytes=7-7"}, 7, 8),
        ({"Range": "bytes=7-3"}, None, None),
        ({"Range": "bytes=0-1,4-5"}, None, None),
        ({"Range": "bytes=7-9", "If-Range": '"another"'}, None, None),
    ],
)
def test_ranges_of_what_is_read_through_us(
    far: Library, asked: dict[str, str], start: int | None, stop: int | None
) -> None:
    with door(far.repo) as url, httpx.Client(trust_env=False, timeout=120) as http:
        address = f"{url}/{MODEL}/resolve/v1/config.json"
        whole = http.get(address)
        answer = http.get(address, headers=asked)
    assert whole.status_code == 200 and len(whole.content) > 100
    assert answer.content == whole.content[start:stop]
    assert answer.status_code == (200 if start is None else 206)
    assert int(answer.headers["content-length"]) == len(answer.content)


def test_transformers_load_a_base_and_later_without_us(library: Library, tmp_path: Path) -> None:
    with door(library.repo) as url:
        client = HubClient(url, tmp_path, settings={"OMP_NUM_THREADS": "1"})
        found = client.script(SCRIPTS / "from_pretrained.py", MODEL, "v1")
    assert found["online"] == found["offline"] and found["kind"] == "feature-extraction"


def test_what_hf_downloads_it_finds_to_be_right(library: Library, tmp_path: Path) -> None:
    with door(library.repo) as url:
        client = HubClient(url, tmp_path / "home")
        got = client.hf("download", MODEL, "--revision", "v0")
        assert got.returncode == 0, got.stderr
        checked = client.hf("cache", "verify", MODEL, "--revision", "v0")
        assert checked.returncode == 0, checked.stdout + checked.stderr
        blobs = tmp_path / "home" / "hub" / "models--demo--tiny" / "blobs"
        assert {path.name for path in blobs.iterdir()} == set(library.versions[0].values())
        weights = blobs / library.versions[0][WEIGHTS]
        weights.write_bytes(b"\0" + weights.read_bytes()[1:])
        spoilt = client.hf("cache", "verify", MODEL, "--revision", "v0")
    assert spoilt.returncode != 0 and WEIGHTS in spoilt.stdout + spoilt.stderr


def test_curl_goes_on_where_it_was_cut(library: Library, tmp_path: Path) -> None:
    name, digest = WEIGHTS, library.versions[1][WEIGHTS]
    with door(library.repo) as url:
        address = f"{url}/{MODEL}/resolve/main/{name}"
        for more in (["-r", "0-999"], ["-C", "-"]):
            command = ["curl", "-sSfL", *more, "-o", str(tmp_path / name), address]
            subprocess.run(command, check=True, timeout=120)
    assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == digest


def test_ten_downloads_at_once_are_all_whole(library: Library, tmp_path: Path) -> None:
    with door(library.repo) as url:
        client = HubClient(url, tmp_path / "home")
        found = client.script(SCRIPTS / "read_often.py", MODEL, tmp_path)
    names = sorted(f"{path} {digest}" for path, digest in library.versions[1].items())
    assert found == [names] * 10


def long_model(repo: Repository) -> tuple[str, bytes]:
    """Make a model with a file that clients write in more than one piece."""
    folder = tiny_folder(repo.folder / "long")
    content = secrets.token_bytes(CHUNK + 2**20)
    (folder / "LICENSE").write_bytes(content)
    models.create_model(repo.ctx, "demo/long", folder, "tests", Policy(), public=True)
    return "demo/long", content


def test_a_download_that_is_cut_goes_on(tmp_path: Path) -> None:
    def cut(asked: Asked) -> Fault | None:
        first = asked.method == "GET" and "range" not in asked.headers
        is_long = first and asked.target.endswith("/LICENSE")
        return Fault(cut_answer=CHUNK + 2**19) if is_long else None

    with repository(tmp_path / "data") as repo:
        model, content = long_model(repo)
        with door(repo) as url, proxy(url) as way:
            way.rule = cut
            client = HubClient(way.url, tmp_path / "home")
            done = client.hf("download", model, "LICENSE", "--local-dir", tmp_path / "got")
            assert done.returncode == 0, done.stderr
            ranges = [asked.headers.get("range") for asked in way.asked if asked.method == "GET"]
    assert (tmp_path / "got" / "LICENSE").read_bytes() == content
    assert f"bytes={CHUNK}-" in ranges


def test_what_was_got_is_there_while_the_server_is_down(library: Library, tmp_path: Path) -> None:
    code = f"from huggingface_hub import snapshot_download; print(snapshot_download({MODEL!r}))"
    client = HubClient("", tmp_path)
    with door(library.repo) as client.endpoint:
        before = client.run(sys.executable, "-c", code)
    after = client.run(sys.executable, "-c", code)
    assert before.returncode == after.returncode == 0, before.stderr + after.stderr
    assert before.stdout == after.stdout
