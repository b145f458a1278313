"""A contribution's way: declared, uploaded, completed, screened, decided."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import func, select

from coldfusion_server.db.tables import ContributionRow
from coldfusion_server.services import closing, contributions
from coldfusion_server.worker import work_once
from tests.server.backends import both_databases
from tests.server.repository import (
    MODEL,
    Repository,
    body_file,
    body_of,
    declaration,
    repository,
    tiny_tensors,
)
from tests.shared.checkpoints import Array, file_bytes


def big_tensors() -> dict[str, Array]:
    """Return a model whose body takes several parts."""
    return {**tiny_tensors(), "encoder.layer.1.weight": np.ones((200, 256), np.float32)}


def uploads_left(repo: Repository) -> list[str]:
    return sorted(path.name for path in (repo.folder / "uploads").iterdir())


def objects_kept(repo: Repository) -> set[str]:
    return {path.name for path in (repo.folder / "objects").rglob("*") if path.is_file()}


@both_databases
def test_the_whole_way_of_a_good_contribution(repo: Repository) -> None:
    ann, raw = repo.contributor(), body_file()
    answer = ann.declare(raw)
    assert answer.status_code == 201
    declared = answer.json()
    receipt, plan = declared["contribution"], declared["upload"]
    assert (receipt["state"], receipt["base"], receipt["round"]) == ("declared", "v0", 1)
    assert (receipt["uploaded_bytes"], receipt["total_bytes"]) == (0, len(raw))
    (part,) = plan["files"][0]["parts"]
    assert (part["number"], part["size"], part["uploaded"]) == (1, len(raw), False)

    put = repo.client().put(part["url"], content=raw)
    assert put.status_code == 200
    assert put.headers["etag"] == f'"{hashlib.md5(raw).hexdigest()}"'
    assert ann.receipt(receipt["id"])["uploaded_bytes"] == len(raw)

    completed = ann.complete(receipt["id"]).json()
    assert (completed["state"], completed["uploaded_bytes"]) == ("completed", len(raw))
    assert completed["completed_at"] is not None
    assert ann.complete(receipt["id"]).json() == completed

    assert repo.work() == 1
    accepted = ann.receipt(receipt["id"])
    assert accepted["state"] == "accepted"
    assert accepted["reason"] is None
    assert {finding["verdict"] for finding in accepted["findings"]} == {"pass"}
    checks = {finding["check"] for finding in accepted["findings"]}
    assert {"format", "schema", "finite", "changed", "duplicate"} <= checks
    assert uploads_left(repo) == []
    assert hashlib.sha256(raw).hexdigest() in objects_kept(repo)
    shown = repo.get(f"/v1/models/{MODEL}/rounds/open")
    assert (shown["accepted"], shown["missing"], shown["waiting"]) == (1, 1, 0)


def with_value(value: float) -> bytes:
    tensors = body_of(tiny_tensors(), 1)
    tensors["encoder.layer.0.dense.bias"][3] = value
    return file_bytes(tensors)


def renamed(old: str, new: str | None) -> bytes:
    tensors = body_of(tiny_tensors(), 1)
    array = tensors.pop(old)
    return file_bytes(tensors if new is None else {**tensors, new: array})


@pytest.mark.parametrize(
    ("raw", "check", "reason"),
    [
        (b"", "format", "too short"),
        (b"\x80\x04pickled by mistake, and long enough", "format", "header claims"),
        (body_file()[:-4], "format", "bytes"),
        (body_file() + b"\0", "format", "after its last tensor"),
        (renamed("pooler.dense.weight", "other.weight"), "schema", "other.weight"),
        (renamed("encoder.layer.0.dense.weight", None), "schema", "missing"),
        (with_value(np.nan), "finite", "encoder.layer.0.dense.bias"),
        (with_value(-np.inf), "finite", "encoder.layer.0.dense.bias"),
        (file_bytes(body_of(tiny_tensors(), 1, scale=0)), "changed", "identical"),
    ],
    ids=["empty", "pickle", "cut", "longer", "renamed", "missing", "nan", "inf", "unchanged"],
)
def test_a_bad_contribution_is_rejected_with_its_reason(
    raw: bytes, check: str, reason: str, repo: Repository
) -> None:
    ann = repo.contributor()
    contribution = ann.contribute(raw)
    repo.work()
    receipt = ann.receipt(contribution)
    assert receipt["state"] == "rejected"
    assert reason in receipt["reason"]
    verdicts = {finding["check"]: finding["verdict"] for finding in receipt["findings"]}
    assert verdicts[check] == "reject"
    assert receipt["decided_at"] is not None
    assert uploads_left(repo) == []
    assert repo.get(f"/v1/models/{MODEL}/rounds/open")["accepted"] == 0


def test_the_bases_own_file_sent_back_is_rejected_and_stays_the_base(repo: Repository) -> None:
    raw = (next(repo.folder.glob("source-*")) / "model.safetensors").read_bytes()
    contribution = repo.contributor().contribute(raw)
    repo.work()
    assert repo.contributor().receipt(contribution)["state"] == "rejected"
    assert hashlib.sha256(raw).hexdigest() in objects_kept(repo)
    assert repo.client().get(f"/v1/models/{MODEL}/bases/v0/files/model.safetensors").content == raw


def test_other_bytes_than_declared_are_rejected_and_may_be_sent_again(repo: Repository) -> None:
    ann, raw = repo.contributor(), body_file()
    answer = ann.declare(raw, key="the same key")
    ann.upload(answer.json()["upload"], bytes(len(raw)))
    first = answer.json()["contribution"]["id"]
    assert ann.complete(first).status_code == 200
    before = objects_kept(repo)
    repo.work()
    receipt = ann.receipt(first)
    assert receipt["state"] == "rejected"
    assert "SHA-256" in receipt["reason"] and "again" in receipt["hint"]
    assert objects_kept(repo) == before
    again = ann.declare(raw, key="the same key")
    assert again.status_code == 201
    second = again.json()["contribution"]["id"]
    assert second != first
    ann.upload(again.json()["upload"], raw)
    ann.complete(second)
    repo.work()
    assert ann.receipt(second)["state"] == "accepted"


@pytest.mark.parametrize("stage", ["completed", "accepted", "fused"])
def test_the_same_file_again_is_refused_before_a_byte_is_sent(stage: str, repo: Repository) -> None:
    ann, bob, raw = repo.contributor(), repo.contributor("bob"), body_file()
    contribution = ann.sent(raw)
    ann.complete(contribution)
    if stage in ("accepted", "fused"):
        repo.work()
    if stage == "fused":
        closing.close_by_hand(repo.ctx, MODEL, "open", repo.principal("max", "maintainer"))
        repo.work()
    assert ann.receipt(contribution)["state"] == stage
    answer = bob.declare(raw, base="v1" if stage == "fused" else "v0")
    assert answer.status_code == 409
    assert answer.json()["code"] == "already_contributed"
    assert contribution in answer.json()["detail"]


@both_databases
def test_of_two_who_declare_the_same_the_first_one_s_bytes_count(repo: Repository) -> None:
    ann, bob, raw = repo.contributor(), repo.contributor("bob"), body_file()
    first, second = ann.sent(raw), bob.sent(raw)
    for who, contribution in ((bob, second), (ann, first)):
        assert who.complete(contribution).status_code == 200
        repo.work()
    assert bob.receipt(second)["state"] == "accepted"
    assert "contributed before" in ann.receipt(first)["reason"]
    # What the accepted one is made of stays.
    assert repo.ctx.store.exists(hashlib.sha256(raw).hexdigest())


def test_an_upload_goes_on_whatever_key_the_next_client_sends(repo: Repository) -> None:
    ann, raw = repo.contributor(), body_file()
    first = ann.declare(raw, key="of one version")
    again = ann.declare(raw, key="of another version")
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["contribution"]["id"] == again.json()["contribution"]["id"]


def test_rejected_bytes_go_at_once_unless_something_needs_them(repo: Repository) -> None:
    ann, raw = repo.contributor(), with_value(np.nan)
    contribution = ann.contribute(raw)
    repo.work()
    assert ann.receipt(contribution)["state"] == "rejected"
    assert not repo.ctx.store.exists(hashlib.sha256(raw).hexdigest())
    assert ann.receipt(contribution)["erased_at"] is not None


def test_a_rejected_file_may_be_tried_again(repo: Repository) -> None:
    ann, raw = repo.contributor(), with_value(np.nan)
    ann.contribute(raw)
    repo.work()
    assert ann.declare(raw).status_code == 201


@both_databases
def test_the_same_tensors_in_another_order_by_another_are_rejected(repo: Repository) -> None:
    ann, bob = repo.contributor(), repo.contributor("bob")
    tensors = body_of(tiny_tensors(), 1)
    first = ann.contribute(file_bytes(tensors))
    other = {"classifier.weight": np.zeros((2, 8), np.float32)}
    shuffled = file_bytes({**other, **dict(reversed(tensors.items()))}, {"format": "np"})
    second = bob.contribute(shuffled)
    repo.work()
    assert ann.receipt(first)["state"] == "accepted"
    receipt = bob.receipt(second)
    assert receipt["state"] == "rejected"
    assert first in receipt["reason"]
    findings = {finding["check"]: finding["verdict"] for finding in receipt["findings"]}
    assert findings["duplicate"] == "reject"


def test_equal_tensors_in_two_models_are_two_contributions(repo: Repository) -> None:
    repo.model("demo/other")
    ann, raw = repo.contributor(), body_file()
    ids = [ann.contribute(raw), ann.contribute(raw, model="demo/other")]
    repo.work()
    assert [ann.receipt(i)["state"] for i in ids] == ["accepted", "accepted"]


# Declaring.


def test_the_same_key_gives_the_same_answer(repo: Repository) -> None:
    ann, raw = repo.contributor(), body_file()
    first = ann.declare(raw, key="12345678")
    again = ann.declare(raw, key="12345678")
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json()["contribution"] == first.json()["contribution"]
    ann.upload(first.json()["upload"], raw)
    ann.complete(first.json()["contribution"]["id"])
    repo.work()
    late = ann.declare(raw, key="12345678")
    assert late.status_code == 200
    assert late.json()["contribution"]["state"] == "accepted"
    assert all(part["uploaded"] for part in late.json()["upload"]["files"][0]["parts"])


@pytest.mark.parametrize("change", [{"sha256": "0" * 64}, {"size": 7}])
def test_the_same_key_with_another_declaration_is_a_conflict(
    change: dict[str, Any], repo: Repository
) -> None:
    ann, raw = repo.contributor(), body_file()
    assert ann.declare(raw, key="12345678").status_code == 201
    answer = ann.declare(raw, key="12345678", **change)
    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_mismatch")


def test_keys_of_two_contributors_are_apart(repo: Repository) -> None:
    ann, bob = repo.contributor(), repo.contributor("bob")
    first, second = body_file(1), body_file(2)
    assert ann.declare(first, key="12345678").status_code == 201
    assert bob.declare(second, key="12345678").status_code == 201


@pytest.mark.parametrize("key", ["short", "x" * 129, "käse-käse", "tab\tinside", ""])
def test_a_bad_key_is_refused(key: str, repo: Repository) -> None:
    answer = repo.contributor().client.post(
        f"/v1/models/{MODEL}/contributions",
        json=declaration(body_file()),
        headers={b"Idempotency-Key": key.encode("latin-1")},
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


@both_databases
def test_a_freed_key_is_one_that_nobody_can_send(repo: Repository) -> None:
    ann, raw = repo.contributor(), body_file()
    first = ann.declare(raw, key="12345678").json()["contribution"]["id"]
    repo.clock.advance(hours=25)
    contributions.expire_uploads(repo.ctx)
    with repo.ctx.database.read() as session:
        freed = session.scalars(select(ContributionRow.idempotency_key)).one()
    assert "\n" in freed
    assert ann.declare(raw, key=freed).status_code == 422
    assert ann.declare(raw, key="12345678").json()["contribution"]["id"] != first


@both_databases
def test_twenty_equal_declarations_at_once_are_one_row(repo: Repository) -> None:
    ann, raw = repo.contributor(), body_file()
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: ann.declare(raw, key="12345678"), range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [201]
    assert len({answer.json()["contribution"]["id"] for answer in answers}) == 1
    with repo.ctx.database.read() as session:
        assert session.scalar(select(func.count()).select_from(ContributionRow)) == 1


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"path": "pytorch_model.bin"}, 422, "invalid_request"),
        ({"path": "../model.safetensors"}, 422, "invalid_request"),
        ({"size": 2**40}, 413, "too_large"),
        ({"size": -1}, 422, "invalid_request"),
        ({"sha256": "F" * 64}, 422, "invalid_request"),
        ({"more": 1}, 422, "invalid_request"),
    ],
)
def test_what_cannot_be_taken_is_refused_at_once(
    changes: dict[str, Any], status: int, code: str, repo: Repository
) -> None:
    answer = repo.contributor().declare(body_file(), **changes)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_an_unknown_base_is_said(repo: Repository) -> None:
    answer = repo.contributor().declare(body_file(), base="v7")
    assert (answer.status_code, answer.json()["code"]) == (404, "base_not_found")


def test_no_room_is_said_before_a_byte_is_sent(tmp_path: Path) -> None:
    with repository(tmp_path / "data", min_free_bytes=2**60) as repo:
        repo.model()
        answer = repo.contributor().declare(body_file())
    assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")
    assert answer.json()["hint"]


# Uploading.


def test_an_interrupted_upload_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with repository(tmp_path / "data") as repo:
        repo.model(tensors=big_tensors())
        ann, raw = repo.contributor(), body_file(base=big_tensors())
        answer = ann.declare(raw).json()
        contribution, (file,) = answer["contribution"]["id"], answer["upload"]["files"]
        assert len(file["parts"]) == 4
        size = file["part_size"]
        for number in (3, 1):
            url = file["parts"][number - 1]["url"]
            part = raw[(number - 1) * size : number * size]
            assert repo.client().put(url, content=part).status_code == 200
        assert ann.receipt(contribution)["uploaded_bytes"] == 2 * size

        incomplete = ann.complete(contribution)
        assert (incomplete.status_code, incomplete.json()["code"]) == (409, "upload_incomplete")
        assert "2 of 4 parts" in incomplete.json()["detail"]

        plan = ann.client.get(f"/v1/contributions/{contribution}/upload").json()
        parts = plan["files"][0]["parts"]
        assert [part["uploaded"] for part in parts] == [True, False, True, False]
        assert parts[0]["etag"] == hashlib.md5(raw[:size]).hexdigest()
        assert parts[0]["url"] is None
        ann.upload(plan, raw)
        assert ann.complete(contribution).status_code == 200
        repo.work()
        assert ann.receipt(contribution)["state"] == "accepted"


def test_a_part_sent_twice_counts_once_and_the_last_one_holds(repo: Repository) -> None:
    ann, raw = repo.contributor(), body_file()
    answer = ann.declare(raw).json()
    url = answer["upload"]["files"][0]["parts"][0]["url"]
    for content in (bytes(len(raw)), raw, raw):
        assert repo.client().put(url, content=content).status_code == 200
    contribution = answer["contribution"]["id"]
    assert ann.receipt(contribution)["uploaded_bytes"] == len(raw)
    ann.complete(contribution)
    repo.work()
    assert ann.receipt(contribution)["state"] == "accepted"


def test_a_completed_upload_takes_no_more_bytes(repo: Repository) -> None:
    ann, raw = repo.contributor(), body_file()
    answer = ann.declare(raw).json()
    ann.upload(answer["upload"], raw)
    ann.complete(answer["contribution"]["id"])
    put = repo.client().put(answer["upload"]["files"][0]["parts"][0]["url"], content=raw)
    assert (put.status_code, put.json()["code"]) == (409, "state_conflict")


@both_databases
def test_an_upload_that_never_ends_expires_and_can_begin_anew(repo: Repository) -> None:
    ann, raw = repo.contributor(), body_file()
    contribution = ann.sent(raw, key="12345678")
    repo.clock.advance(hours=23)
    assert contributions.expire_uploads(repo.ctx) == 0
    repo.clock.advance(hours=2)
    assert contributions.expire_uploads(repo.ctx) == 1
    receipt = ann.receipt(contribution)
    assert receipt["state"] == "expired"
    assert receipt["reason"] and receipt["hint"]
    assert uploads_left(repo) == []
    assert contributions.expire_uploads(repo.ctx) == 0
    assert ann.complete(contribution).json()["state"] == "expired"
    again = ann.contribute(raw, key="12345678")
    repo.work()
    assert again != contribution
    assert ann.receipt(again)["state"] == "accepted"


def test_asking_for_the_plan_keeps_an_upload_alive(repo: Repository) -> None:
    ann, raw = repo.contributor(), body_file()
    contribution = ann.sent(raw)
    repo.clock.advance(hours=23)
    assert ann.client.get(f"/v1/contributions/{contribution}/upload").status_code == 200
    repo.clock.advance(hours=2)
    assert contributions.expire_uploads(repo.ctx) == 0


# Late.


def close(repo: Repository) -> None:
    closing.close_by_hand(repo.ctx, MODEL, "open", repo.principal("max", "maintainer"))


@pytest.fixture
def strict(empty: Repository) -> Repository:
    """A Repository that takes only what was made from the newest base."""
    empty.model(max_staleness=0)
    return empty


def test_a_completion_after_the_close_is_outdated_and_rejected(strict: Repository) -> None:
    repo = strict
    ann, bob = repo.contributor(), repo.contributor("bob")
    late = bob.sent(body_file(2))
    ann.contribute(body_file(1))
    repo.work()
    close(repo)
    answer = bob.complete(late)
    assert (answer.status_code, answer.json()["code"]) == (409, "base_outdated")
    assert "--onto latest" in answer.json()["hint"]
    receipt = bob.receipt(late)
    assert receipt["state"] == "rejected"
    assert receipt["reason"] == answer.json()["detail"]
    again = bob.complete(late)
    assert (again.status_code, again.json()["state"]) == (200, "rejected")
    assert uploads_left(repo) == []
    repo.work()
    base = repo.get(f"/v1/models/{MODEL}/bases/v1")
    assert [c["contributor"] for c in base["manifest"]["contributions"]] == ["ann"]


def test_a_declaration_after_the_close_says_what_comes_next(strict: Repository) -> None:
    repo = strict
    ann, bob = repo.contributor(), repo.contributor("bob")
    ann.contribute(body_file(1))
    repo.work()
    close(repo)
    early = bob.declare(body_file(2))
    assert (early.status_code, early.json()["code"]) == (409, "base_outdated")
    repo.work()
    late = bob.declare(body_file(2))
    assert (late.status_code, late.json()["code"]) == (409, "base_outdated")
    assert "v1 is the newest" in late.json()["detail"]
    assert bob.declare(body_file(2), base="v1").status_code == 201


def test_what_was_being_screened_at_the_close_is_told_so(strict: Repository) -> None:
    repo = strict
    ann, bob = repo.contributor(), repo.contributor("bob")
    ann.contribute(body_file(1))
    repo.work()
    waiting = bob.contribute(body_file(2))
    close(repo)
    repo.work()
    receipt = bob.receipt(waiting)
    assert receipt["state"] == "rejected"
    assert "v1 is the newest base" in receipt["reason"]
    assert "--onto latest" in receipt["hint"]
    assert repo.get(f"/v1/models/{MODEL}/rounds/1")["accepted"] == 1


def test_an_upload_left_behind_by_a_published_round_is_told_and_freed(
    strict: Repository,
) -> None:
    repo = strict
    ann, bob = repo.contributor(), repo.contributor("bob")
    behind = bob.sent(body_file(2))
    ann.contribute(body_file(1))
    repo.work()
    close(repo)
    repo.work()
    receipt = bob.receipt(behind)
    assert receipt["state"] == "rejected"
    assert "--onto latest" in receipt["hint"]
    assert contributions.sweep_uploads(repo.ctx) == 1
    assert uploads_left(repo) == []


# Trouble.


def test_a_model_whose_base_is_lost_holds_up_no_other_model(repo: Repository) -> None:
    repo.model("demo/other", tiny_tensors(5))
    ann = repo.contributor()
    stuck = ann.contribute(body_file(1))
    fine = ann.contribute(body_file(2, tiny_tensors(5)), model="demo/other")
    base = repo.get(f"/v1/models/{MODEL}/bases/v0")["manifest"]["files"]
    lost = next(file for file in base if file["path"] == "model.safetensors")["sha256"]
    path = repo.ctx.store.local_path(lost)
    assert path is not None
    path.rename(repo.folder / "lost")
    for _ in range(3):
        work_once(repo.ctx, "worker")
    assert ann.receipt(fine)["state"] == "accepted"
    assert ann.receipt(stuck)["state"] == "completed"
    (repo.folder / "lost").rename(path)
    repo.clock.advance(minutes=11)
    repo.work()
    assert ann.receipt(stuck)["state"] == "accepted"


def test_a_receipt_can_be_read_while_parts_come_and_go(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, raw = repo.contributor(), body_file()
    contribution = ann.sent(raw)
    listed = type(repo.ctx.store)._part_files  # type: ignore[attr-defined]

    def gone(store: Any, upload: str) -> Any:
        found = listed(store, upload)
        for _, path in found:
            path.unlink()
        return found

    monkeypatch.setattr(type(repo.ctx.store), "_part_files", gone)
    answer = repo.client().get(f"/v1/contributions/{contribution}")
    assert answer.status_code == 200
    assert answer.json()["uploaded_bytes"] == 0
