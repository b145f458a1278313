"""Late contributions: told at their declaration, carried along, discounted, or too old."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from coldfusion_server.db.tables import EventRow
from coldfusion_server.services import contributions, publishing
from coldfusion_server.services.closing import close_by_hand, close_due
from coldfusion_server.services.screening import screen_next
from coldfusion_server.worker import work_once
from coldfusion_shared.rounds.lateness import factor
from coldfusion_shared.schemas.gates import Gate
from tests.server import gated
from tests.server.repository import MODEL, Repository, body_file, body_of, tiny_tensors
from tests.shared.checkpoints import Array, file_bytes, read_file

Json = Any


def weights_of(repo: Repository, version: str) -> dict[str, Array]:
    answer = repo.client().get(f"/v1/models/{MODEL}/bases/{version}/files/model.safetensors")
    assert answer.status_code == 200
    return read_file(answer.content)


def manifest_of(repo: Repository, version: str) -> Json:
    return repo.get(f"/v1/models/{MODEL}/bases/{version}")


def close(repo: Repository) -> None:
    close_by_hand(repo.ctx, MODEL, "open", repo.principal("max", "maintainer"))


def next_base(repo: Repository, seed: int) -> str:
    """Let ann alone make the next base."""
    base = repo.get(f"/v1/models/{MODEL}")["current"]
    raw = file_bytes(body_of(weights_of(repo, base), seed))
    repo.contributor("ann").contribute(raw, base=base)
    repo.work()
    close(repo)
    repo.work()
    version: str = repo.get(f"/v1/models/{MODEL}")["current"]
    assert version == f"v{int(base[1:]) + 1}"
    return version


def declared(repo: Repository, name: str, raw: bytes, base: str) -> Json:
    answer = repo.contributor(name).declare(raw, base=base)
    assert answer.status_code == 201, answer.text
    return answer.json()


def told(repo: Repository, kind: str) -> list[str]:
    """Return which contributions an event of `kind` tells of."""
    with repo.ctx.database.read() as session:
        query = select(EventRow.data).where(EventRow.type == f"contribution.{kind}")
        return [data["contribution"] for data in session.scalars(query)]


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_a_late_update_counts_from_its_own_base_by_its_factor(
    empty: Repository, exponent: float
) -> None:
    repo = empty
    repo.model(staleness_exponent=exponent)
    bodies = {"bob": body_of(tiny_tensors(), 8)}
    next_base(repo, 1)
    next_base(repo, 2)
    bob = repo.contributor("bob").contribute(file_bytes(bodies["bob"]))
    bodies["cem"] = body_of(weights_of(repo, "v2"), 9)
    cem = repo.contributor("cem").contribute(file_bytes(bodies["cem"]), base="v2")
    repo.work()
    assert close_due(repo.ctx) == 1
    repo.work()

    shown = manifest_of(repo, "v3")["manifest"]
    late, fresh = shown["contributions"]
    assert (late["id"], late["staleness"], late["weight"]) == (bob, 2, 0.5)
    assert late["base"] == {"version": "v0", "digest": manifest_of(repo, "v0")["digest"]}
    assert (fresh["id"], fresh["staleness"], fresh["base"]) == (cem, 0, None)
    receipt = repo.contributor().receipt(bob)
    assert (receipt["staleness"], receipt["factor"]) == (2, factor(2, exponent))
    assert (receipt["state"], receipt["result"]) == ("fused", "v3")

    fused, start, head = weights_of(repo, "v3"), tiny_tensors(), weights_of(repo, "v2")
    for name, array in head.items():
        if name in bodies["bob"]:
            steps = [
                factor(2, exponent) * (bodies["bob"][name].astype(np.float64) - start[name]),
                bodies["cem"][name].astype(np.float64) - array,
            ]
            expected = (array + 0.5 * (steps[0] + steps[1])).astype(np.float32)
            assert np.array_equal(fused[name], expected)
        else:
            assert np.array_equal(fused[name], array)


def test_who_declares_is_told_how_late_it_will_be_and_what_it_counts(repo: Repository) -> None:
    first = declared(repo, "bob", body_file(8), "v0")["prospect"]
    assert first == {
        "round": 1, "staleness": 0, "factor": 1.0, "sentence": "It goes into round 1."
    }  # fmt: skip
    next_base(repo, 1)
    late = declared(repo, "cem", body_file(9), "v0")["prospect"]
    assert (late["round"], late["staleness"]) == (2, 1)
    assert late["factor"] == factor(1, 0.5)
    assert "made from v0, it is 1 base behind by then and counts 0.71 times" in late["sentence"]


def test_what_is_declared_while_a_round_is_under_way_goes_into_the_next_one(
    repo: Repository,
) -> None:
    repo.contributor("ann").contribute(body_file(1))
    repo.work()
    close(repo)
    answer = declared(repo, "bob", body_file(8), "v0")
    prospect, bob = answer["prospect"], answer["contribution"]["id"]
    assert (prospect["round"], prospect["staleness"]) == (2, 1)
    assert "which opens when round 1 has ended" in prospect["sentence"]
    repo.work()
    receipt = repo.contributor().receipt(bob)
    assert (receipt["state"], receipt["round"], receipt["carried"]) == ("declared", 2, 1)
    assert told(repo, "carried") == [bob]
    repo.contributor("bob").upload(answer["upload"], body_file(8))
    assert repo.contributor("bob").complete(bob).status_code == 200
    repo.work()
    close(repo)
    repo.work()
    receipt = repo.contributor().receipt(bob)
    assert (receipt["state"], receipt["staleness"], receipt["result"]) == ("fused", 1, "v2")


def test_what_is_screened_while_a_round_is_under_way_waits_for_the_next_one(
    repo: Repository,
) -> None:
    repo.contributor("ann").contribute(body_file(1))
    repo.work()
    bob = repo.contributor("bob").contribute(body_file(8))
    cem = repo.contributor("cem").contribute(body_file(9))
    close(repo)
    # A worker fuses before it screens; this one has only screened yet.
    assert screen_next(repo.ctx, "early")
    assert repo.contributor().receipt(bob)["state"] == "accepted"
    while work_once(repo.ctx, "worker"):
        pass
    shown = manifest_of(repo, "v1")["manifest"]
    assert [item["contributor"] for item in shown["contributions"]] == ["ann"]
    states = {one: repo.contributor().receipt(one) for one in (bob, cem)}
    assert {(one["state"], one["round"]) for one in states.values()} == {("accepted", 2)}
    assert close_due(repo.ctx) == 1
    repo.work()
    items = manifest_of(repo, "v2")["manifest"]["contributions"]
    assert [(item["id"], item["staleness"]) for item in items] == [(bob, 1), (cem, 1)]


def test_what_is_too_old_is_refused_when_it_is_declared(empty: Repository) -> None:
    empty.model(max_staleness=1)
    for seed in (1, 2):
        next_base(empty, seed)
    answer = empty.contributor("bob").declare(body_file(8), base="v0")
    assert (answer.status_code, answer.json()["code"]) == (409, "base_outdated")
    assert "at most 1 behind" in answer.json()["detail"]
    assert "--onto latest" in answer.json()["hint"]
    assert empty.contributor("bob").declare(body_file(8), base="v1").status_code == 201


def test_what_would_be_too_old_by_the_end_of_the_round_under_way_is_told_to_wait(
    empty: Repository,
) -> None:
    empty.model(max_staleness=1)
    next_base(empty, 1)
    empty.contributor("ann").contribute(body_file(2), base="v1")
    empty.work()
    close(empty)
    answer = empty.contributor("bob").declare(body_file(8), base="v0")
    assert answer.status_code == 409
    assert "has closed and its new base is about to be published" in answer.json()["detail"]
    assert empty.contributor("bob").declare(body_file(8), base="v1").status_code == 201


def test_what_grows_too_old_on_its_way_is_rejected_with_the_reason_and_freed(
    empty: Repository,
) -> None:
    empty.model(max_staleness=1)
    bob = empty.contributor("bob").sent(body_file(8))
    next_base(empty, 1)
    assert empty.contributor().receipt(bob)["state"] == "declared"
    next_base(empty, 2)
    receipt = empty.contributor().receipt(bob)
    assert (receipt["state"], receipt["carried"]) == ("rejected", 1)
    assert "v2 is the newest base, and at most 1 behind" in receipt["reason"]
    assert "--onto latest" in receipt["hint"]
    assert told(empty, "rejected") == [bob]
    assert contributions.sweep_uploads(empty.ctx) == 1


def test_a_policy_without_late_ones_refuses_them_all(empty: Repository) -> None:
    empty.model(max_staleness=0)
    next_base(empty, 1)
    answer = empty.contributor("bob").declare(body_file(8), base="v0")
    assert (answer.status_code, answer.json()["code"]) == (409, "base_outdated")
    assert answer.json()["detail"] == "This was made from v0, but v1 is the newest base."


# While a gate waits nobody knows yet whether the head moves.


def waits_for_gate(repo: Repository) -> None:
    """Bring round 1 of a model that takes nothing late to where its gate waits."""
    gated.register(repo)
    repo.model(
        max_staleness=0,
        gate=Gate(kind="suite", suite="text-2", on_timeout="reject", timeout_seconds=60),
    )
    repo.contributor("ann").contribute(body_file(1))
    repo.work()
    close(repo)
    repo.work()
    assert gated.shown(repo)["state"] == "evaluating"


@pytest.mark.parametrize("passes", [False, True])
def test_what_is_too_late_only_if_a_candidate_passes_is_taken_and_told_so(
    empty: Repository, passes: bool
) -> None:
    waits_for_gate(empty)
    answer = declared(empty, "bob", body_file(8), "v0")
    sentence = answer["prospect"]["sentence"]
    assert "if its gate lets the candidate pass, this is too late then" in sentence
    bob = answer["contribution"]["id"]
    empty.contributor("bob").upload(answer["upload"], body_file(8))
    assert empty.contributor("bob").complete(bob).status_code == 200
    empty.work()
    assert empty.contributor().receipt(bob)["state"] == "accepted"
    if passes:
        (candidate,) = gated.candidates(empty)
        assert gated.post(empty, "bases/v0").status_code == 201
        assert gated.post(empty, candidate["id"]).status_code == 201
    else:
        empty.clock.advance(seconds=61)
    empty.work()
    assert gated.shown(empty)["state"] == ("published" if passes else "rejected")
    receipt = empty.contributor().receipt(bob)
    assert (receipt["state"], receipt["round"]) == (("rejected", 1) if passes else ("accepted", 2))


def test_a_try_to_ask_the_gate_that_failed_changes_nothing_for_what_is_declared(
    empty: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits_for_gate(empty)

    def broken(*_: Any) -> None:
        raise RuntimeError("no luck")

    with monkeypatch.context() as patch:
        patch.setattr(publishing, "_decide", broken)
        assert gated.post(empty, "bases/v0").status_code == 201
        empty.work()
    assert gated.shown(empty)["state"] == "failed"
    sentence = declared(empty, "bob", body_file(8), "v0")["prospect"]["sentence"]
    assert "if its gate lets the candidate pass, this is too late then" in sentence


def test_a_round_under_way_without_a_suite_refuses_what_will_be_too_late(empty: Repository) -> None:
    empty.model(max_staleness=0)
    empty.contributor("ann").contribute(body_file(1))
    empty.work()
    close(empty)
    assert empty.contributor("bob").declare(body_file(8), base="v0").status_code == 409
