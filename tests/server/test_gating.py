"""The gate: what waits, what passes, what is rejected, and who may see and measure candidates."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from coldfusion_server.db.tables import EvaluationRow, RoundRow
from coldfusion_server.services import publishing
from coldfusion_shared.errors import InvalidRequest, SuiteNotFound
from coldfusion_shared.schemas.gates import Gate
from tests.server.gated import ROUND, candidates, fused, gated, policy, post, register, shown
from tests.server.measured import dataset, report, suite
from tests.server.repository import MODEL, Json, Repository, body_of, tiny_tensors
from tests.shared.checkpoints import file_bytes, read_file

BASE = "bases/v0"


def works(repo: Repository) -> bool:
    return publishing.go_on_next(repo.ctx, "worker")


def states(repo: Repository) -> set[str]:
    listed = repo.get(f"/v1/models/{MODEL}/contributions")
    return {item["state"] for item in listed["items"]}


def step_norm() -> float:
    """Return the norm of the mean of the two updates over the base's, both of the body."""
    base = tiny_tensors()
    bodies = [body_of(base, seed) for seed in (1, 2)]
    step = [(bodies[0][n].astype(float) + bodies[1][n]) / 2 - base[n] for n in bodies[0]]
    before = [base[name].astype(float) for name in bodies[0]]
    norms = [np.sqrt(sum(float((part**2).sum()) for part in parts)) for parts in (step, before)]
    return float(norms[0] / norms[1])


def test_a_candidate_waits_until_one_evaluator_has_measured_it_and_its_base(
    repo: Repository,
) -> None:
    gated(repo)
    (candidate,) = fused(repo)
    assert shown(repo)["state"] == "evaluating"
    assert shown(repo)["gate"]["passed"] is None
    assert not works(repo), "there is nothing to do until something comes"
    assert post(repo, BASE, 80.0, "bob").status_code == 201
    assert works(repo) and not works(repo)
    assert post(repo, candidate["id"], 81.0, "eva").status_code == 201
    assert works(repo) and not works(repo), "each has measured one of the two"
    assert shown(repo)["state"] == "evaluating"
    assert post(repo, BASE, 80.0, "eva").status_code == 201
    repo.work()
    done = shown(repo)
    assert (done["state"], done["result"]) == ("published", "v1")
    verdict = done["gate"]
    assert (verdict["passed"], verdict["suite"]) == (True, "text-2")
    assert verdict["suite_digest"] == suite().digest() and verdict["decided_at"]
    (one,) = verdict["evaluators"]
    assert (one["evaluator"], one["base"], one["candidate"]) == ("eva", 80.0, 81.0)
    # What was measured of the candidate was measured of the base that it became.
    (kept,) = repo.get(f"/v1/models/{MODEL}/bases/v1/evaluations")
    assert (kept["average"], kept["version"], kept["candidate"]) == (81.0, "v1", candidate["id"])
    assert post(repo, candidate["id"], 82.0).json()["version"] == "v1"
    assert post(repo, "bases/v1", 82.0).status_code == 200, "the same, of the same"


def test_what_loses_too_much_is_rejected_and_the_base_stays(repo: Repository) -> None:
    gated(repo, tolerance=0.5)
    (candidate,) = fused(repo)
    post(repo, BASE, 80.0)
    post(repo, candidate["id"], 79.4)
    repo.work()
    done = shown(repo)
    assert (done["state"], done["result"]) == ("rejected", None)
    assert "lost 0.60 points" in done["reason"] and done["gate"]["passed"] is False
    assert states(repo) == {"set_aside"}
    assert repo.get(f"/v1/models/{MODEL}")["current"] == "v0"
    answer = post(repo, candidate["id"], 90.0)
    assert (answer.status_code, answer.json()["code"]) == (404, "candidate_not_found")
    assert candidate["id"] in answer.json()["detail"] and answer.json()["hint"]
    assert candidates(repo) == []


def test_a_correction_counts_and_the_newest_alone(repo: Repository) -> None:
    gated(repo, min_evaluators=2)
    (candidate,) = fused(repo)
    for name in ("eva", "bob"):
        post(repo, BASE, 80.0, name)
    post(repo, candidate["id"], 70.0, "eva")
    post(repo, candidate["id"], 80.0, "eva")
    repo.work()
    assert shown(repo)["gate"]["passed"] is None
    post(repo, candidate["id"], 80.0, "bob")
    repo.work()
    assert shown(repo)["state"] == "published"


def test_other_protocols_and_suites_tell_a_gate_nothing(repo: Repository) -> None:
    gated(repo)
    register(repo, suite("other", max_length=64))
    (candidate,) = fused(repo)
    others = (
        report(suite(), protocol="finetuned"),
        report(suite("other", max_length=64)),
        report(),
    )
    for given in others:
        for subject in (BASE, candidate["id"]):
            assert post(repo, subject, given=given).status_code == 201
    repo.work()
    assert shown(repo)["gate"]["passed"] is None


@pytest.mark.parametrize(
    ("on_timeout", "state"),
    [("publish", "published"), ("reject", "rejected"), ("wait", "evaluating")],
)
def test_when_nobody_has_measured_in_time_the_policy_decides(
    on_timeout: str, state: str, repo: Repository
) -> None:
    gated(repo, timeout_seconds=60, on_timeout=on_timeout)
    fused(repo)
    repo.clock.advance(seconds=59)
    assert not works(repo)
    repo.clock.advance(seconds=1)
    assert works(repo) and not works(repo)
    assert shown(repo)["state"] == state
    assert "time for evaluations is up" in shown(repo)["gate"]["reason"]


@pytest.mark.parametrize(("level", "state"), [(70.0, "rejected"), (80.0, "evaluating")])
def test_who_comes_after_the_timeout_may_fail_a_candidate_but_not_pass_it_alone(
    level: float, state: str, repo: Repository
) -> None:
    gated(repo, timeout_seconds=60, on_timeout="wait", min_evaluators=2)
    (candidate,) = fused(repo)
    post(repo, BASE, 80.0)
    post(repo, candidate["id"], level)
    repo.work()
    assert shown(repo)["state"] == "evaluating", "in time it takes two"
    repo.clock.advance(seconds=60)
    post(repo, BASE, 80.0, "bob")
    repo.work()
    assert shown(repo)["state"] == state
    if state == "evaluating":
        post(repo, candidate["id"], 80.0, "bob")
        repo.work()
        assert shown(repo)["state"] == "published"


def test_a_verdict_after_the_timeout_is_heard_at_once(repo: Repository) -> None:
    gated(repo, timeout_seconds=60, on_timeout="wait", min_evaluators=2)
    (candidate,) = fused(repo)
    repo.clock.advance(seconds=61)
    repo.work()
    assert "goes on waiting" in shown(repo)["gate"]["reason"]
    post(repo, BASE, 80.0)
    post(repo, candidate["id"], 70.0)
    repo.work()
    assert shown(repo)["state"] == "rejected"
    assert "The time is up, and 2 evaluators were to measure it." in shown(repo)["reason"]


def test_of_several_rates_the_best_is_published_and_all_are_told(repo: Repository) -> None:
    gated(repo, line_search=[2.0, 0.5, 1.0])
    found = fused(repo)
    assert [one["server_lr"] for one in found] == [0.5, 1.0, 2.0]
    norms = [one["relative_norm"] for one in found]
    assert norms == pytest.approx([0.5 * step_norm(), step_norm(), 2 * step_norm()], rel=1e-4)
    post(repo, BASE, 80.0)
    for one, level in zip(found[:2], (81.0, 80.5), strict=True):
        post(repo, one["id"], level)
    repo.work()
    waits = shown(repo)["gate"]
    assert waits["passed"] is None and "of rate 2" in waits["reason"]
    post(repo, found[2]["id"], 82.0)
    repo.work()
    done = shown(repo)
    assert (done["state"], done["candidates"]) == ("published", [found[2]["id"]])
    told = {one["server_lr"]: one["score"] for one in done["gate"]["line_search"]}
    assert told == {0.5: 81.0, 1.0: 80.5, 2.0: 82.0}
    manifest = repo.get(f"/v1/models/{MODEL}/bases/v1")["manifest"]
    assert (manifest["server_lr"], manifest["recipe"]["server_lr"]) == (2.0, 2.0)


def test_a_line_search_whose_best_is_worse_than_the_base_is_rejected(repo: Repository) -> None:
    gated(repo, line_search=[0.5, 1.0])
    post(repo, BASE, 80.0)
    for one in fused(repo):
        post(repo, one["id"], 79.0)
    repo.work()
    done = shown(repo)
    assert done["state"] == "rejected" and len(done["gate"]["line_search"]) == 2
    assert states(repo) == {"set_aside"}


@pytest.mark.parametrize(("limit", "state"), [(0.9, "rejected"), (1.1, "published")])
def test_how_far_a_candidate_is_from_its_base_is_measured(
    limit: float, state: str, repo: Repository
) -> None:
    policy(repo, gate=Gate(kind="norm", max_relative_norm=limit * step_norm()))
    fused(repo)
    done = shown(repo)
    assert done["state"] == state
    assert done["gate"]["relative_norm"] == pytest.approx(step_norm(), rel=1e-4)


def test_a_step_that_is_too_long_needs_no_evaluation(repo: Repository) -> None:
    gated(repo, max_relative_norm=step_norm() / 2)
    fused(repo)
    assert shown(repo)["state"] == "rejected"


def test_a_capped_step_is_told_by_the_manifest(repo: Repository) -> None:
    policy(repo, step_cap=step_norm() / 4)
    fused(repo)
    done = shown(repo)
    assert done["gate"]["relative_norm"] == pytest.approx(step_norm() / 4, rel=1e-4)
    manifest = repo.get(f"/v1/models/{MODEL}/bases/v1")["manifest"]
    assert manifest["step_factor"] == pytest.approx(0.25, rel=1e-4)


def test_candidates_are_for_evaluators_and_maintainers(repo: Repository) -> None:
    gated(repo)
    (candidate,) = fused(repo)
    one = f"/v1/models/{MODEL}/candidates/{candidate['id']}"
    paths = [f"{ROUND}/candidates", one, f"{one}/files/model.safetensors", f"{one}/evaluations"]
    for path in paths:
        assert repo.client().get(path).status_code == 401
        assert repo.client(repo.token("ann", "contributor")).get(path).status_code == 403
        assert repo.client(repo.token("max", "maintainer")).get(path).status_code == 200
    found = repo.get(one, repo.token("eva", "evaluator"))
    assert (found["round"], found["base"], found["digest"]) == (1, "v0", candidate["digest"])
    assert found["relative_norm"] == pytest.approx(step_norm(), rel=1e-4)


def test_a_candidates_files_are_sent_as_a_bases_are(repo: Repository) -> None:
    gated(repo)
    (candidate,) = fused(repo)
    client = repo.client(repo.token("eva", "evaluator"))
    path = f"/v1/models/{MODEL}/candidates/{candidate['id']}/files/model.safetensors"
    whole = client.get(path)
    (entry,) = [f for f in candidate["manifest"]["files"] if f["path"] == "model.safetensors"]
    assert whole.headers["etag"] == f'"{entry["sha256"]}"' and len(whole.content) == entry["size"]
    assert whole.content[8:] != file_bytes(tiny_tensors())[8:]
    part = client.get(path, headers={"Range": "bytes=8-15"})
    assert (part.status_code, part.content) == (206, whole.content[8:16])
    assert client.get(path, headers={"If-None-Match": whole.headers["etag"]}).status_code == 304
    assert client.head(path).headers["content-length"] == str(entry["size"])
    answer = client.get(f"{path}.bak")
    assert (answer.status_code, answer.json()["code"]) == (404, "file_not_found")


def _nan(values: Json) -> None:
    values["scores"]["reviews"] = float("nan")


def _negative_flips(values: Json) -> None:
    values["negative_flips"] = {"reviews": -1.0}


def _absent(values: Json) -> None:
    for name in ("scores", "standard_errors", "by_seed"):
        del values[name]["reviews"]


def _another_suite(values: Json) -> None:
    values["suite_digest"] = suite(max_length=64).digest()


@pytest.mark.parametrize(
    ("wrong", "status"),
    [(_nan, 422), (_negative_flips, 422), (_absent, 422), (_another_suite, 409)],
)
def test_scores_that_are_none_are_refused(
    wrong: Callable[[Json], None], status: int, repo: Repository
) -> None:
    gated(repo)
    (candidate,) = fused(repo)
    values = report(suite()).model_dump(mode="json")
    wrong(values)
    client = repo.client(repo.token("eva", "evaluator"))
    answer = client.post(
        f"/v1/models/{MODEL}/candidates/{candidate['id']}/evaluations",
        content=json.dumps(values),
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == status, answer.text
    with repo.ctx.database.read() as session:
        assert session.scalar(select(EvaluationRow.id)) is None


def test_negative_flips_are_kept_and_equal_reports_once(repo: Repository) -> None:
    gated(repo)
    (candidate,) = fused(repo)
    given = report(suite(), negative_flips={"reviews": 1.5})
    first, again = (post(repo, candidate["id"], given=given) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["negative_flips"] == {"reviews": 1.5}
    path = f"/v1/models/{MODEL}/candidates/{candidate['id']}/evaluations"
    assert repo.get(path, repo.token("eva", "evaluator")) == [first.json()]
    (event,) = [e for e in repo.get("/v1/events") if e["type"] == "evaluation.posted"]
    assert (event["data"]["version"], event["data"]["candidate"]) == (None, candidate["id"])


def test_a_candidate_of_another_model_is_not_found(repo: Repository) -> None:
    gated(repo)
    (candidate,) = fused(repo)
    other = repo.model("demo/other")
    path = f"/v1/models/{other}/candidates/{candidate['id']}"
    answer = repo.client(repo.token("eva", "evaluator")).get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "candidate_not_found")


def test_a_gate_needs_a_suite_that_is_known_and_can_tell(repo: Repository) -> None:
    def gate(**more: Any) -> Gate:
        return Gate(kind="suite", suite="text-2", **more)

    with pytest.raises(SuiteNotFound) as unknown:
        policy(repo, gate=gate())
    assert "--evaluate" in str(unknown.value.hint)
    numbers = dataset("reviews", task="regression", metric="Pearson")
    register(repo, suite(datasets=[numbers]))
    with pytest.raises(InvalidRequest, match="negative flips"):
        policy(repo, gate=gate(max_negative_flips=1.0))
    register(repo, suite("plain", [dataset("reviews", task="classification")]))
    policy(repo, gate=Gate(kind="suite", suite="plain", max_negative_flips=1.0))
    with pytest.raises(SuiteNotFound):
        repo.model("demo/other", gate=Gate(kind="suite", suite="nothing"))


def test_a_round_that_fails_at_its_gate_goes_on_with_its_candidates(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    gated(repo)
    (candidate,) = fused(repo)
    post(repo, BASE)
    post(repo, candidate["id"])

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr("coldfusion_server.services.gating.decide", broken)
        assert works(repo)
    assert shown(repo)["state"] == "failed"
    repo.clock.advance(hours=1)
    repo.work()
    assert shown(repo)["state"] == "published"
    with repo.ctx.database.read() as session:
        row = session.scalars(select(RoundRow).where(RoundRow.number == 1)).one()
        assert row.attempts == 2
    weights = read_file(
        repo.client().get(f"/v1/models/{MODEL}/bases/v1/files/model.safetensors").content
    )
    assert set(weights) == set(tiny_tensors())


def test_scores_that_come_in_while_it_is_decided_are_all_kept(repo: Repository) -> None:
    gated(repo, min_evaluators=4)
    (candidate,) = fused(repo)
    names = [f"eva{number}" for number in range(6)]
    clients = {name: repo.client(repo.token(name, "evaluator")) for name in names}
    given, codes = report(suite()).model_dump(mode="json"), []
    ready = threading.Barrier(len(names) + 1)

    def hand_in(name: str) -> None:
        ready.wait()
        for subject in (f"candidates/{candidate['id']}", BASE):
            path = f"/v1/models/{MODEL}/{subject}/evaluations"
            codes.append(clients[name].post(path, json=given).status_code)

    threads = [threading.Thread(target=hand_in, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    ready.wait()
    while any(thread.is_alive() for thread in threads):
        repo.work()
    for thread in threads:
        thread.join()
    repo.work()
    assert codes == [201] * 12 and shown(repo)["state"] == "published"
    kept = repo.get(f"/v1/models/{MODEL}/bases/v1/evaluations")
    assert sorted(one["evaluator"] for one in kept) == names
