"""A contribution's way and a base's, on every store: all look the same to the client."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from coldfusion_server.services import closing, contributions
from coldfusion_server.services.models import set_policy
from coldfusion_server.storage.s3.store import S3Store
from coldfusion_shared.errors import StorageUnavailable
from coldfusion_shared.schemas.models import Policy
from tests.s3.stores import Case, local_case, s3_case
from tests.server.repository import (
    MODEL,
    Json,
    Repository,
    body_file,
    declaration,
    repository,
)

WEIGHTS = "model.safetensors"


@pytest.fixture(params=["local", "moto", "rgw"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    if request.param == "local":
        return local_case(tmp_path / "store")
    return s3_case(request.getfixturevalue(request.param))


@pytest.fixture
def repo(case: Case, tmp_path: Path) -> Iterator[Repository]:
    with repository(tmp_path / "data", store=case.store) as opened:
        opened.model(min_contributions=2)
        yield opened


def fetched(repo: Repository, path: str, **headers: str) -> httpx.Response:
    """Return a file of the newest base as a client gets it, from wherever it is."""
    url = f"/v1/models/{MODEL}/bases/latest/files/{path}"
    answer = repo.client().get(url, headers=headers, follow_redirects=False)
    if answer.status_code == 307:
        return httpx.get(answer.headers["Location"], headers=headers, timeout=120)
    return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


def finish_round(repo: Repository) -> None:
    """Screen what waits, close the round, and fuse it."""
    repo.work()
    closing.close_due(repo.ctx)
    repo.work()


def receipt_of(repo: Repository, contribution: str) -> Json:
    return repo.get(f"/v1/contributions/{contribution}", repo.token("anyone", "reader"))


def base_files(repo: Repository) -> dict[str, Json]:
    manifest = repo.get(f"/v1/models/{MODEL}/bases/latest")["manifest"]
    return {file["path"]: file for file in manifest["files"]}


def test_a_whole_round_is_fused_from_the_store_into_the_store(
    repo: Repository, case: Case, tmp_path: Path
) -> None:
    for number, name in enumerate(("ann", "bob")):
        identity = repo.contributor(name).contribute(body_file(number + 1))
        assert receipt_of(repo, identity)["uploaded_bytes"] == len(body_file(number + 1))
        repo.work()
        assert receipt_of(repo, identity)["state"] in ("accepted", "fused"), receipt_of(
            repo, identity
        )
    finish_round(repo)
    contributions.sweep_uploads(repo.ctx)
    assert repo.get(f"/v1/models/{MODEL}")["current"] == "v1"
    for path, file in base_files(repo).items():
        raw = fetched(repo, path).content
        assert (len(raw), hashlib.sha256(raw).hexdigest()) == (file["size"], file["sha256"])
    # Nothing but objects is left, whatever was on its way meanwhile.
    rest = [name for name in case.everything() if not name.startswith("objects/")]
    assert rest == []
    if isinstance(case.store, S3Store):
        models = [path for path in (tmp_path / "data").rglob("*") if path.name == WEIGHTS]
        assert [path.parent.name.split("-")[0] for path in models] == ["source"]


def test_what_has_arrived_is_shown_and_not_asked_for_again(repo: Repository) -> None:
    raw, ann = body_file(), repo.contributor()
    declared = ann.declare(raw, key="the same key").json()
    identity = declared["contribution"]["id"]
    assert declared["contribution"]["uploaded_bytes"] == 0
    ann.upload(declared["upload"], raw)
    assert receipt_of(repo, identity)["uploaded_bytes"] == len(raw)
    listed = repo.get(f"/v1/models/{MODEL}/contributions")["items"]
    assert [item["uploaded_bytes"] for item in listed] == [len(raw)]
    again = ann.declare(raw, key="the same key")
    assert again.status_code == 200
    (part,) = again.json()["upload"]["files"][0]["parts"]
    assert (part["uploaded"], part["url"]) == (True, None)
    assert again.json()["contribution"]["uploaded_bytes"] == len(raw)


def test_what_has_not_arrived_is_named(repo: Repository) -> None:
    ann = repo.contributor()
    identity = ann.declare(body_file()).json()["contribution"]["id"]
    answer = ann.complete(identity)
    assert answer.json()["code"] == "upload_incomplete"
    assert f"1 of 1 parts of {WEIGHTS}" in answer.json()["detail"]


def test_other_bytes_than_declared_are_rejected_and_may_be_sent_again(repo: Repository) -> None:
    raw, ann = body_file(), repo.contributor()
    declared = ann.declare(raw, key="one and the same").json()
    ann.upload(declared["upload"], raw[:-1] + b"!")
    identity = declared["contribution"]["id"]
    ann.complete(identity)
    repo.work()
    receipt = receipt_of(repo, identity)
    assert (receipt["state"], receipt["findings"][0]["check"]) == ("rejected", "digest")
    again = ann.declare(raw, key="one and the same")
    assert again.status_code == 201
    ann.upload(again.json()["upload"], raw)
    identity = again.json()["contribution"]["id"]
    ann.complete(identity)
    repo.work()
    assert receipt_of(repo, identity)["state"] == "accepted"


def test_files_that_the_base_has_are_not_sent_again(repo: Repository) -> None:
    raw, ann, own = body_file(), repo.contributor(), b'{"mine": true}'
    files = base_files(repo)
    body = declaration(raw)
    body["files"] += [
        {key: files["vocab.txt"][key] for key in ("path", "size", "sha256")},
        {"path": "config.json", "size": len(own), "sha256": hashlib.sha256(own).hexdigest()},
    ]
    url = f"/v1/models/{MODEL}/contributions"
    declared = ann.client.post(url, json=body, headers={"Idempotency-Key": "a" * 16}).json()
    plans = {file["path"]: file for file in declared["upload"]["files"]}
    assert [part["uploaded"] for part in plans["vocab.txt"]["parts"]] == [True]
    assert declared["contribution"]["uploaded_bytes"] == files["vocab.txt"]["size"]
    for path, content in ((WEIGHTS, raw), ("config.json", own)):
        ann.upload({"files": [plans[path]]}, content)
    identity = declared["contribution"]["id"]
    assert receipt_of(repo, identity)["uploaded_bytes"] == receipt_of(repo, identity)["total_bytes"]
    assert ann.complete(identity).status_code == 200
    repo.work()
    assert receipt_of(repo, identity)["state"] == "accepted"
    assert repo.ctx.store.size(hashlib.sha256(own).hexdigest()) == len(own)
    repo.contributor("bob").contribute(body_file(2))
    finish_round(repo)
    # The base's own files stay what they are; the manifest names the weights alone.
    assert base_files(repo)["config.json"] == files["config.json"]
    manifest = repo.get(f"/v1/models/{MODEL}/bases/v1")["manifest"]
    named = [[file["path"] for file in item["files"]] for item in manifest["contributions"]]
    assert named == [[WEIGHTS], [WEIGHTS]]


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ([{"path": "evil.py", "size": 1, "sha256": "0" * 64}], "invalid_request"),
        ([{"path": "config.json", "size": 1, "sha256": "0" * 64}] * 2, "invalid_request"),
        ([{"path": WEIGHTS, "size": 1, "sha256": "0" * 64}], "invalid_request"),
        ([{"path": "config.json", "size": 2**40, "sha256": "0" * 64}], "too_large"),
    ],
)
def test_other_files_are_refused_before_the_first_byte(
    repo: Repository, more: list[Json], code: str
) -> None:
    body = declaration(body_file())
    body["files"] += more
    answer = repo.contributor().client.post(
        f"/v1/models/{MODEL}/contributions", json=body, headers={"Idempotency-Key": "a" * 16}
    )
    assert answer.json()["code"] == code
    assert repo.ctx.store.pending_uploads() == []


def test_weights_that_equal_a_file_of_the_base_are_sent_all_the_same(repo: Repository) -> None:
    weights = base_files(repo)[WEIGHTS]
    body = {"base": "v0", "files": [{k: weights[k] for k in ("path", "size", "sha256")}]}
    declared = repo.contributor().client.post(
        f"/v1/models/{MODEL}/contributions", json=body, headers={"Idempotency-Key": "a" * 16}
    )
    (part,) = declared.json()["upload"]["files"][0]["parts"]
    assert not part["uploaded"]


def test_a_base_is_had_whole_in_part_and_by_its_head(repo: Repository) -> None:
    file = base_files(repo)[WEIGHTS]
    whole = fetched(repo, WEIGHTS).content
    part = fetched(repo, WEIGHTS, Range="bytes=10-19")
    assert (part.status_code, part.content) == (206, whole[10:20])
    url = f"/v1/models/{MODEL}/bases/latest/files/{WEIGHTS}"
    head = repo.client().head(url)
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["Content-Length"]) == file["size"] == len(whole)
    assert head.headers["ETag"] == f'"{file["sha256"]}"'
    assert head.headers["Accept-Ranges"] == "bytes"
    known = repo.client().get(url, headers={"If-None-Match": head.headers["ETag"]})
    assert known.status_code == 304


def test_a_private_base_is_not_had_from_the_store_either(repo: Repository) -> None:
    repo.model("lab/secret", public=False)
    url = f"/v1/models/lab/secret/bases/v0/files/{WEIGHTS}"
    answer = repo.client().get(url, follow_redirects=False)
    assert answer.status_code in (401, 404)
    assert "Location" not in answer.headers
    granted = repo.client(repo.token("reader", "reader")).get(url, follow_redirects=False)
    assert granted.status_code in (200, 307)


def test_a_closed_round_takes_no_bytes_and_keeps_none(repo: Repository, case: Case) -> None:
    set_policy(
        repo.ctx, MODEL, Policy(min_contributions=2, max_staleness=0),
        repo.principal("max", "maintainer"),
    )  # fmt: skip
    late = repo.contributor("late")
    raw = body_file(9)
    identity = late.sent(raw)
    for number, name in enumerate(("ann", "bob")):
        repo.contributor(name).contribute(body_file(number + 1))
    finish_round(repo)
    assert late.complete(identity).json()["state"] == "rejected"
    contributions.sweep_uploads(repo.ctx)
    assert repo.ctx.store.pending_uploads() == []
    assert [name for name in case.everything() if not name.startswith("objects/")] == []


def test_an_upload_that_is_never_finished_is_given_up_and_freed(repo: Repository) -> None:
    identity = repo.contributor().sent(body_file())
    repo.clock.advance(hours=25)
    assert contributions.expire_uploads(repo.ctx) == 1
    assert receipt_of(repo, identity)["state"] == "expired"
    assert repo.ctx.store.pending_uploads() == []


def test_whose_digest_is_known_has_to_send_the_bytes_all_the_same(repo: Repository) -> None:
    repo.model("lab/other")
    manifest = repo.get("/v1/models/lab/other/bases/v0")["manifest"]
    known = next(file for file in manifest["files"] if file["path"] == WEIGHTS)
    eve = repo.contributor("eve")
    body = {"base": "v0", "files": [{key: known[key] for key in ("path", "size", "sha256")}]}
    url = f"/v1/models/{MODEL}/contributions"
    declared = eve.client.post(url, json=body, headers={"Idempotency-Key": "a" * 16}).json()
    eve.upload(declared["upload"], bytes(known["size"]))
    identity = declared["contribution"]["id"]
    assert eve.complete(identity).status_code == 200
    repo.work()
    receipt = receipt_of(repo, identity)
    assert (receipt["state"], receipt["findings"][0]["check"]) == ("rejected", "digest")
    assert repo.ctx.store.exists(known["sha256"])


def test_an_upload_that_the_store_has_lost_is_to_be_sent_again(repo: Repository) -> None:
    identity = repo.contributor().contribute(body_file())
    for upload in repo.ctx.store.pending_uploads():
        repo.ctx.store.discard_upload(upload)
    repo.work()
    receipt = receipt_of(repo, identity)
    assert (receipt["state"], "again" in receipt["hint"]) == ("rejected", True)


def test_a_store_that_is_away_fails_no_contribution(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = repo.contributor().contribute(body_file())

    def away(*_: object, **__: object) -> None:
        raise StorageUnavailable("The store is away.")

    with monkeypatch.context() as patched:
        patched.setattr(repo.ctx.store, "adopt", away)
        repo.work()
        assert receipt_of(repo, identity)["state"] == "completed"
    repo.work()
    assert receipt_of(repo, identity)["state"] == "accepted"
