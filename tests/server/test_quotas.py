"""Quotas before the first byte, and who uses how much of the store."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from coldfusion_server.services.closing import close_by_hand
from coldfusion_server.services.contributions import expire_uploads
from coldfusion_server.services.garbage import collect
from tests.server.backends import Backend, both_databases
from tests.server.repository import MODEL, Repository, body_file, declaration, repository
from tests.server.test_garbage import broken_file, keep

pytestmark = both_databases

RAW = body_file()
SIZE = len(RAW)


def refused(answer: Any, *words: str) -> None:
    """Check that a declaration was refused for the quota, and that trying again is not asked."""
    assert answer.status_code == 403, answer.text
    problem = answer.json()
    assert problem["code"] == "quota_exceeded"
    assert "retry_after" not in problem and "Retry-After" not in answer.headers
    assert problem["hint"]
    for word in words:
        assert word in problem["detail"], problem


def limit(repo: Repository, **quotas: int | None) -> None:
    """Set quotas in the Repository under way."""
    for name, value in quotas.items():
        object.__setattr__(repo.settings, name, value)


def mine(repo: Repository, name: str = "ann") -> Any:
    return repo.get("/v1/usage/me", repo.token(name))


def test_unfinished_uploads_have_a_limit_over_all_models(repo: Repository) -> None:
    limit(repo, quota_uploads=2)
    repo.model("demo/other")
    ann = repo.contributor()
    first = ann.sent(body_file(1))
    assert ann.declare(body_file(2), model="demo/other").status_code == 201
    refused(ann.declare(body_file(3)), "2 unfinished uploads", "allows 2")
    assert repo.contributor("bob").declare(body_file(4)).status_code == 201
    assert ann.complete(first).status_code == 200
    assert ann.declare(body_file(3)).status_code == 201
    refused(ann.declare(body_file(5)))
    repo.clock.advance(hours=25)
    expire_uploads(repo.ctx)
    assert ann.declare(body_file(6)).status_code == 201


def test_the_same_declaration_again_is_no_second_upload(repo: Repository) -> None:
    limit(repo, quota_uploads=1, quota_bytes=SIZE)
    ann = repo.contributor()
    assert ann.declare(RAW, key="the same key").status_code == 201
    assert ann.declare(RAW, key="the same key").status_code == 200


def test_bytes_have_a_limit_and_what_is_given_up_is_free_at_once(repo: Repository) -> None:
    limit(repo, quota_bytes=2 * SIZE + 100)
    ann = repo.contributor()
    ann.contribute(body_file(1))
    rejected = ann.contribute(broken_file())
    refused(ann.declare(body_file(3)), f"has {SIZE} bytes", f"you have {2 * SIZE} of")
    repo.work()
    # It lies in the store until garbage is collected, but it is none of ann's.
    assert ann.receipt(rejected)["state"] == "rejected"
    assert mine(repo)["kept_bytes"] == SIZE
    assert ann.declare(body_file(3)).status_code == 201
    refused(ann.declare(body_file(4)))
    repo.clock.advance(hours=25)
    expire_uploads(repo.ctx)
    assert ann.declare(body_file(4)).status_code == 201


def test_what_the_base_has_counts_for_nothing(repo: Repository) -> None:
    limit(repo, quota_bytes=SIZE)
    ann = repo.contributor()
    config = repo.client().get(f"/v1/models/{MODEL}/bases/v0/files/config.json").content
    body = declaration(RAW)
    body["files"].append({**declaration(config)["files"][0], "path": "config.json"})
    path = f"/v1/models/{MODEL}/contributions"
    answer = ann.client.post(path, json=body, headers={"Idempotency-Key": "12345678"})
    assert answer.status_code == 201, answer.text
    assert mine(repo)["unfinished_bytes"] == SIZE


def test_what_retention_gives_up_is_free_before_it_is_collected(repo: Repository) -> None:
    limit(repo, quota_bytes=SIZE)
    ann, bob = repo.contributor(), repo.contributor("bob")
    ann.contribute(body_file(1))
    bob.contribute(body_file(2))
    repo.work()
    close_by_hand(repo.ctx, MODEL, "open", repo.principal("max", "maintainer"))
    repo.work()
    refused(ann.declare(body_file(3), base="v1"))
    keep(repo, 0)
    assert mine(repo)["kept_bytes"] == 0
    assert ann.declare(body_file(3), base="v1").status_code == 201


def test_no_limit_is_no_limit(repo: Repository) -> None:
    limit(repo, quota_bytes=None, quota_uploads=None)
    ann = repo.contributor()
    for seed in range(25):
        assert ann.declare(body_file(seed)).status_code == 201


@pytest.mark.parametrize("quotas", [{"quota_uploads": 3}, {"quota_bytes": 3 * SIZE + 1}])
def test_of_many_declarations_at_once_no_more_slip_through(
    quotas: dict[str, int], repo: Repository
) -> None:
    limit(repo, **quotas)
    models = [MODEL, *(repo.model(f"demo/m{place}") for place in range(3))]
    ann = repo.contributor()

    def declare(place: int) -> int:
        answer = ann.declare(body_file(place), model=models[place % len(models)])
        return int(answer.status_code)

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(declare, range(16)))
    assert sorted(statuses) == [201] * 3 + [403] * 13


# What the numbers are.


def test_usage_by_model_and_contributor(repo: Repository) -> None:
    repo.model("demo/other")
    ann, bob = repo.contributor(), repo.contributor("bob")
    ann.contribute(body_file(1))
    ann.contribute(body_file(1), model="demo/other")
    bob.contribute(body_file(2))
    bob.contribute(broken_file())
    repo.work()
    bob.declare(body_file(3))
    shown = repo.get(f"/v1/models/{MODEL}/usage")
    stored = repo.get(f"/v1/models/{MODEL}/bases/v0")["manifest"]["files"]
    assert (shown["bases"], shown["base_bytes"]) == (1, sum(file["size"] for file in stored))
    assert (shown["contributions"], shown["kept_bytes"]) == (2, 2 * SIZE)
    assert (shown["uploads"], shown["unfinished_bytes"]) == (1, SIZE)
    assert shown["contributors"] == [
        {"contributor": "bob", "contributions": 1, "kept_bytes": SIZE, "uploads": 1,
         "unfinished_bytes": SIZE},
        {"contributor": "ann", "contributions": 1, "kept_bytes": SIZE, "uploads": 0,
         "unfinished_bytes": 0},
    ]  # fmt: skip
    whole = repo.get("/v1/usage", repo.token("op", "maintainer"))
    # The two models' v0 differ in the card alone, and ann's file is one object.
    other = repo.get("/v1/models/demo/other/bases/v0")["manifest"]["files"]
    based = {file["sha256"]: file["size"] for file in [*stored, *other]}
    assert whole["total_bytes"] == sum(based.values()) + 3 * SIZE
    assert [model["model"] for model in whole["models"]] == ["demo/other", MODEL]
    own = {person["contributor"]: person["kept_bytes"] for person in whole["contributors"]}
    assert own == {"ann": SIZE, "bob": SIZE}
    quotas = {"quota_bytes": None, "quota_uploads": 20, "quota_round": None, "quota_day": 1000}
    shown_to_bob = {**shown["contributors"][0], **quotas, "day_contributions": 3}
    assert shown_to_bob.items() <= mine(repo, "bob").items()
    assert mine(repo, "new")["kept_bytes"] == 0


def test_what_was_collected_counts_no_more(repo: Repository) -> None:
    for seed, name in ((1, "ann"), (2, "bob")):
        repo.contributor(name).contribute(body_file(seed))
    repo.work()
    close_by_hand(repo.ctx, MODEL, "open", repo.principal("max", "maintainer"))
    repo.work()
    assert repo.get(f"/v1/models/{MODEL}/usage")["kept_bytes"] == 2 * SIZE
    keep(repo, 0)
    repo.clock.now = datetime.now(UTC) + timedelta(hours=25)
    collect(repo.ctx, "gc")
    keep(repo, None)
    shown = repo.get(f"/v1/models/{MODEL}/usage")
    assert (shown["contributions"], shown["kept_bytes"], shown["contributors"]) == (0, 0, [])


def test_the_use_of_a_private_model_is_its_readers_business(
    tmp_path: Path, backend: Backend
) -> None:
    with backend.database() as url, repository(tmp_path, url) as repo:
        repo.model("demo/private", public=False)
        assert repo.client().get("/v1/models/demo/private/usage").status_code == 404
        assert repo.client(repo.token()).get("/v1/models/demo/private/usage").status_code == 200


# By the round and by the day.


def test_a_round_takes_so_many_of_one_and_what_is_gone_counts_no_more(repo: Repository) -> None:
    limit(repo, quota_round=2)
    repo.model("demo/other")
    ann = repo.contributor()
    first = ann.sent(body_file(1))
    broken = ann.contribute(broken_file())
    refused(ann.declare(body_file(3)), "2 contributions in round 1", "allows 2")
    assert ann.declare(body_file(3), model="demo/other").status_code == 201
    assert repo.contributor("bob").declare(body_file(4)).status_code == 201
    repo.work()
    assert ann.receipt(broken)["state"] == "rejected"
    assert ann.declare(body_file(3)).status_code == 201
    refused(ann.declare(body_file(5)))
    assert ann.client.post(f"/v1/contributions/{first}/withdraw", json={}).status_code == 200
    assert ann.declare(body_file(5)).status_code == 201


def test_a_day_takes_so_many_of_one_whatever_becomes_of_them(repo: Repository) -> None:
    limit(repo, quota_day=3)
    ann = repo.contributor()
    ann.contribute(broken_file())
    repo.work()
    repo.clock.advance(hours=10)
    assert ann.declare(body_file(1), key="the same key").status_code == 201
    assert ann.declare(body_file(2)).status_code == 201
    assert ann.declare(body_file(1), key="the same key").status_code == 200
    answer = ann.declare(body_file(3))
    refused(answer, "3 contributions in the last 24 hours", "allows 3")
    assert "2026-06-02 12:00 UTC" in answer.json()["hint"]
    assert mine(repo)["day_contributions"] == 3
    repo.clock.advance(hours=13, minutes=59)
    refused(ann.declare(body_file(3)))
    repo.clock.advance(minutes=1)
    assert ann.declare(body_file(3)).status_code == 201
    refused(ann.declare(body_file(4)))


def test_a_day_takes_so_many_bytes_of_one(repo: Repository) -> None:
    limit(repo, quota_day_bytes=2 * SIZE + 100)
    ann = repo.contributor()
    assert ann.declare(body_file(1)).status_code == 201
    repo.clock.advance(hours=1)
    assert ann.declare(body_file(2)).status_code == 201
    answer = ann.declare(body_file(3))
    refused(answer, f"has {SIZE} bytes", f"{2 * SIZE} of {2 * SIZE + 100}")
    assert "2026-06-02 12:00 UTC" in answer.json()["hint"]
    shown = mine(repo)
    assert (shown["day_bytes"], shown["quota_day_bytes"]) == (2 * SIZE, 2 * SIZE + 100)
    limit(repo, quota_day_bytes=SIZE - 1)
    hint = repo.contributor("bob").declare(body_file(4)).json()["hint"]
    assert "UTC" not in hint, "no waiting helps"
