"""Maintainers decide on rounds: cancel one, fuse a rejected one again, look for who did harm."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coldfusion_server.services import bisecting
from coldfusion_server.services.bisecting import Evaluator, Search, bisect
from coldfusion_server.services.closing import close_due
from coldfusion_shared.errors import InvalidRequest, StateConflict, SuiteChanged
from coldfusion_shared.schemas.evaluations import EvaluationReport
from coldfusion_shared.schemas.gates import Gate
from tests.server import gated as gates
from tests.server.backends import only_sqlite
from tests.server.measured import suite
from tests.server.repository import MODEL, Repository, body_file, body_of, tiny_tensors
from tests.server.test_rollback import bring_to
from tests.server.test_round_way import accepted, closed, events, shown
from tests.shared.checkpoints import file_bytes, read_file

# A step of ordinary contributions is some 1e-3 of the base's norm.
GATE = Gate(kind="norm", max_relative_norm=0.01)


def decide(repo: Repository, number: int | str, what: str, body: Any = None) -> Any:
    client = repo.client(repo.token("max", "maintainer"))
    return client.post(f"/v1/models/{MODEL}/rounds/{number}/{what}", json=body or {})


def receipt(repo: Repository, contribution: str) -> Any:
    return repo.contributor().receipt(contribution)


def sent(repo: Repository, seed: int, scale: float, base: str = "v0") -> str:
    raw = file_bytes(body_of(tiny_tensors(), seed, scale))
    return repo.contributor(f"c{seed}").contribute(raw, base=base)


@pytest.fixture
def gated(empty: Repository) -> Iterator[Repository]:
    """A Repository whose model takes no long step."""
    empty.model(min_contributions=2, gate=GATE)
    yield empty


def rejected(repo: Repository, scales: list[float]) -> list[str]:
    """Let the gate reject a round of contributions of these sizes; return their ids."""
    ids = [sent(repo, seed, scale) for seed, scale in enumerate(scales, 1)]
    repo.work()
    assert close_due(repo.ctx) == 1
    repo.work()
    assert shown(repo)["state"] == "rejected"
    assert {receipt(repo, one)["state"] for one in ids} == {"set_aside"}
    return ids


# Cancelling.


@pytest.mark.parametrize("state", ["open", "closed", "fusing", "evaluating", "failed"])
def test_what_a_cancelled_round_had_goes_into_the_next(
    repo: Repository, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = accepted(repo, [1, 2])
    if state != "open":
        close_due(repo.ctx)
        bring_to(repo, 1, state, monkeypatch)
    answer = decide(repo, 1, "cancel", {"reason": "the data were wrong"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["state"] == "cancelled"
    assert answer.json()["reason"] == "Cancelled by max: the data were wrong"
    opened = shown(repo, "open")
    assert (opened["number"], opened["base"], opened["accepted"]) == (2, "v0", 2)
    assert {receipt(repo, one)["carried"] for one in ids} == {1}
    assert close_due(repo.ctx) == 1
    repo.work()
    assert {receipt(repo, one)["result"] for one in ids} == {"v1"}


def test_cancelling_twice_cancels_once(repo: Repository) -> None:
    accepted(repo, [1])
    decide(repo, 1, "cancel", {"reason": "a"})
    again = decide(repo, 1, "cancel", {"reason": "b"})
    assert (again.status_code, again.json()["reason"]) == (200, "Cancelled by max: a")
    assert len(events(repo, "round.cancelled")) == 1
    assert shown(repo, "open")["number"] == 2


def test_a_round_is_cancelled_by_its_number(repo: Repository) -> None:
    accepted(repo, [1])
    answer = decide(repo, "open", "cancel", {"reason": "twice, two would be"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert "by its number" in answer.json()["detail"]
    assert shown(repo, "open")["number"] == 1


def test_an_open_round_that_has_nothing_is_not_cancelled(repo: Repository) -> None:
    answer = decide(repo, 1, "cancel", {"reason": "a"})
    assert (answer.status_code, answer.json()["code"]) == (409, "state_conflict")
    assert "nothing to cancel" in answer.json()["detail"]
    # What is on its way is something.
    repo.contributor().sent(body_file(1))
    assert decide(repo, 1, "cancel", {"reason": "a"}).status_code == 200


def test_what_has_ended_is_not_cancelled(repo: Repository) -> None:
    accepted(repo, [1, 2])
    close_due(repo.ctx)
    repo.work()
    answer = decide(repo, 1, "cancel", {"reason": "too late"})
    assert (answer.status_code, answer.json()["code"]) == (409, "state_conflict")
    assert "model rollback" in answer.json()["hint"]
    assert decide(repo, 1, "cancel", {}).status_code == 422
    assert decide(repo, 9, "cancel", {"reason": "none"}).status_code == 404
    assert decide(repo, 1, "cancel", {"reason": " \t "}).status_code == 422


# Again.


def test_a_rejected_round_is_fused_again_without_those_left_out(gated: Repository) -> None:
    ids = rejected(gated, [1e-3, 1e-3, 1.0])
    waits = sent(gated, 9, 1e-3)
    gated.work()
    answer = decide(gated, 1, "again", {"without": [ids[2]], "reason": "it is far too long"})
    assert answer.status_code == 200, answer.text
    done = answer.json()
    assert (done["accepted"], done["left_out"], done["too_old"]) == (ids[:2], [ids[2]], [])
    assert (done["round"]["number"], done["round"]["accepted"]) == (2, 3)
    out = receipt(gated, ids[2])
    assert out["state"] == "rejected" and "it is far too long" in out["reason"]
    assert receipt(gated, ids[0])["reason"] is None
    close_due(gated.ctx)
    gated.work()
    manifest = gated.get(f"/v1/models/{MODEL}/bases/v1")["manifest"]
    # Behind what the open round had.
    assert [item["id"] for item in manifest["contributions"]] == [waits, *ids[:2]]


def test_nothing_is_done_where_one_is_no_part_of_it(gated: Repository) -> None:
    ids = rejected(gated, [1e-3, 1.0])
    strange = sent(gated, 9, 1e-3)
    gated.work()
    answer = decide(gated, 1, "again", {"without": [ids[1], strange]})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert strange in answer.json()["detail"] and ids[1] not in answer.json()["detail"]
    assert {receipt(gated, one)["state"] for one in ids} == {"set_aside"}


def test_again_twice_and_of_other_rounds_is_refused(gated: Repository) -> None:
    rejected(gated, [1e-3, 1.0])
    assert decide(gated, 2, "again").json()["code"] == "state_conflict"
    assert decide(gated, 1, "again").status_code == 200
    twice = decide(gated, 1, "again")
    assert (twice.status_code, twice.json()["code"]) == (409, "state_conflict")
    assert "decided" in twice.json()["detail"]


def test_what_is_too_old_by_now_is_told_so(empty: Repository) -> None:
    repo = empty
    repo.model(min_contributions=2, gate=GATE, max_staleness=0)
    ids = rejected(repo, [1e-3, 1.0])
    for seed in (5, 6):
        sent(repo, seed, 1e-3)
    repo.work()
    close_due(repo.ctx)
    repo.work()
    done = decide(repo, 1, "again", {"without": [ids[1]]}).json()
    assert (done["accepted"], done["too_old"]) == ([], [ids[0]])
    assert "v1 is the newest base" in receipt(repo, ids[0])["reason"]


def test_again_while_a_round_is_under_way_waits_for_the_next(gated: Repository) -> None:
    ids = rejected(gated, [1e-3, 1.0])
    for seed in (5, 6):
        sent(gated, seed, 1e-3)
    gated.work()
    close_due(gated.ctx)
    done = decide(gated, 1, "again", {"without": [ids[1]]}).json()
    assert (done["accepted"], done["round"]["state"]) == ([ids[0]], "closed")
    gated.work()
    manifest = gated.get(f"/v1/models/{MODEL}/bases/v1")["manifest"]
    assert ids[0] not in [item["id"] for item in manifest["contributions"]]
    assert receipt(gated, ids[0])["round"] == 3


# Bisecting.


def who(repo: Repository) -> Any:
    return repo.principal("max", "maintainer")


@pytest.mark.parametrize("strategy", ["halving", "leave-one-out"])
def test_what_made_the_step_too_long_is_named(gated: Repository, strategy: Any) -> None:
    ids = rejected(gated, [1e-3, 1e-3, 1.0, 1e-3])
    before = {listed.sha256 for listed in gated.ctx.store.objects()}
    told: list[str] = []
    search = Search(strategy, progress=lambda tried, reason: told.append(reason))
    found = bisect(gated.ctx, MODEL, "1", who(gated), search)
    assert found.culprits is not None
    assert (found.culprits.named, found.culprits.complete) == ((ids[2],), True)
    assert found.suspicions[0].id == ids[2]
    assert found.contributors[ids[2]] == "c3"
    assert len(told) == len(found.culprits.tries) and "of the base's norm" in told[0]
    # It changes nothing, and leaves nothing.
    assert {listed.sha256 for listed in gated.ctx.store.objects()} == before
    assert {receipt(gated, one)["state"] for one in ids} == {"set_aside"}
    # What it says is so.
    decide(gated, 1, "again", {"without": list(bisecting.named(found))})
    closed(gated)
    gated.work()
    assert shown(gated, 2)["state"] == "published"


def test_after_a_line_search_a_part_passes_if_one_of_its_rates_does(empty: Repository) -> None:
    empty.model()
    gates.gated(empty, line_search=[0.05, 0.1], max_relative_norm=5e-4)
    ids = rejected(empty, [1e-3, 1e-3, 1e-1, 1e-3])
    found = bisect(empty.ctx, MODEL, "1", who(empty), Search())
    assert found.culprits is not None
    assert bisecting.named(found) == (ids[2],)


def test_what_was_withdrawn_may_have_been_the_only_culprit(gated: Repository) -> None:
    ids = rejected(gated, [1e-3, 1e-3, 1.0])
    client = gated.client(gated.token("c3"))
    assert client.post(f"/v1/contributions/{ids[2]}/withdraw").status_code == 200
    found = bisect(gated.ctx, MODEL, "1", who(gated), Search())
    assert found.culprits is None and bisecting.named(found) == ()


def test_only_what_was_rejected_is_looked_into(repo: Repository) -> None:
    accepted(repo, [1, 2])
    for number in ("1", "open"):
        with pytest.raises(StateConflict):
            bisect(repo.ctx, MODEL, number, who(repo), Search())


SUITE = suite("gate")


def measured(folder: Path, moved: Any, base: Path | None = None) -> EvaluationReport:
    """Score a model by how far its weights are from the pretrained ones: cheap, and real files."""
    moved()
    start = tiny_tensors()
    tensors = read_file((folder / "model.safetensors").read_bytes())
    assert (folder / "config.json").is_file()
    away = sum(float(np.abs(tensors[name] - start[name]).sum()) for name in start)
    names = [entry.name for entry in SUITE.datasets]
    return EvaluationReport(
        suite="gate",
        suite_digest=SUITE.digest(),
        protocol="frozen",
        metric="accuracy",
        scores=dict.fromkeys(names, max(0.0, 90.0 - away)),
    )


@pytest.fixture
def by_suite(empty: Repository) -> Repository:
    """A Repository with a round of three that the gate's suite has rejected."""
    repo = empty
    eva = repo.client(repo.token("eva", "evaluator"))
    put = eva.put("/v1/suites/gate", json=SUITE.model_dump(mode="json"))
    assert put.status_code == 201, put.text
    repo.model(min_contributions=2, gate=Gate(kind="suite", suite="gate", tolerance=5.0))
    for seed, scale in ((1, 1e-3), (2, 1.0), (3, 1e-3)):
        sent(repo, seed, scale)
    repo.work()
    close_due(repo.ctx)
    repo.work()
    (candidate,) = shown(repo)["candidates"]
    report = {
        "suite": "gate", "suite_digest": SUITE.digest(), "protocol": "frozen",
        "metric": "accuracy",
    }  # fmt: skip
    names = [entry.name for entry in SUITE.datasets]
    for path, score in (("bases/v0", 90.0), (f"candidates/{candidate}", 10.0)):
        by_seed = dict.fromkeys(names, [score])
        body = {**report, "scores": dict.fromkeys(names, score), "by_seed": by_seed, "seeds": [0]}
        answer = eva.post(f"/v1/models/{MODEL}/{path}/evaluations", json=body)
        assert answer.status_code == 201, answer.text
    repo.work()
    assert shown(repo)["state"] == "rejected"
    return repo


@only_sqlite
def test_a_suite_names_who_did_harm(by_suite: Repository, tmp_path: Path) -> None:
    folder = tmp_path / "evaluations"
    search = Search(evaluator=Evaluator(SUITE, measured, folder))
    found = bisect(by_suite.ctx, MODEL, "1", who(by_suite), search)
    assert found.culprits is not None
    assert [found.contributors[one] for one in found.culprits.named] == ["c2"]
    assert list(folder.iterdir()) == []


def fine(folder: Path, moved: Any, base: Path | None = None) -> EvaluationReport:
    """Score every model alike."""
    return measured(folder, moved, base).model_copy(
        update={"scores": {entry.name: 90.0 for entry in SUITE.datasets}}
    )


@only_sqlite
def test_nobody_is_named_where_the_measurement_does_not_repeat(
    by_suite: Repository, tmp_path: Path
) -> None:
    told: list[Any] = []
    search = Search(
        evaluator=Evaluator(SUITE, fine, tmp_path / "evaluations"),
        progress=lambda tried, reason: told.append(tried),
    )
    found = bisect(by_suite.ctx, MODEL, "1", who(by_suite), search)
    assert found.culprits is None and bisecting.named(found) == ()
    assert [(tried.without, tried.harmful) for tried in told] == [((), False)]
    assert found.note is not None and "unlike in the gate's measurement" in found.note


@pytest.fixture
def unmeasured(empty: Repository) -> Repository:
    """A Repository with a round that the gate rejected since nobody measured it in time."""
    return never_measured(empty)


def never_measured(repo: Repository, **policy: Any) -> Repository:
    """Let a round of three be rejected since nobody measured it in time; return `repo`."""
    eva = repo.client(repo.token("eva", "evaluator"))
    assert eva.put("/v1/suites/gate", json=SUITE.model_dump(mode="json")).status_code == 201
    gate = Gate(kind="suite", suite="gate", tolerance=5.0, timeout_seconds=60, on_timeout="reject")
    repo.model(
        min_contributions=2,
        gate=gate,
        method="weighted_mean",
        contributor_weights={"c1": 0.0, "c3": 0.0},
        **policy,
    )
    for seed, scale in ((1, 1e-3), (2, 1.0), (3, 1e-3)):
        sent(repo, seed, scale)
    repo.work()
    close_due(repo.ctx)
    repo.work()
    repo.clock.advance(seconds=61)
    repo.work()
    assert shown(repo)["state"] == "rejected"
    return repo


@only_sqlite
def test_what_was_never_measured_names_nobody(unmeasured: Repository, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="measured no harm in round 1") as refused:
        bisect(unmeasured.ctx, MODEL, "1", who(unmeasured), Search())
    assert "--evaluate" in str(refused.value.hint)
    search = Search(evaluator=Evaluator(SUITE, fine, tmp_path))
    found = bisect(unmeasured.ctx, MODEL, "1", who(unmeasured), search)
    assert found.culprits is None
    assert found.note is not None and "has measured no harm" in found.note


@only_sqlite
def test_what_a_line_search_never_scored_is_tried_at_its_rate_nearest_to_one(
    empty: Repository, tmp_path: Path
) -> None:
    repo = never_measured(empty, line_search=[0.005, 0.01])
    told: list[str] = []
    search = Search(
        evaluator=Evaluator(SUITE, measured, tmp_path),
        progress=lambda tried, reason: told.append(reason),
    )
    # At a rate of 1.0 they do harm.
    assert bisect(repo.ctx, MODEL, "1", who(repo), search).culprits is None
    assert len(told) == 1


@only_sqlite
def test_a_part_without_weight_is_too_few(unmeasured: Repository, tmp_path: Path) -> None:
    told: list[str] = []
    search = Search(
        "leave-one-out",
        evaluator=Evaluator(SUITE, measured, tmp_path),
        progress=lambda tried, reason: told.append(reason),
    )
    found = bisect(unmeasured.ctx, MODEL, "1", who(unmeasured), search)
    assert found.culprits is not None
    assert [found.contributors[one] for one in found.culprits.named] == ["c2"]
    assert any("Too few" in reason for reason in told)
    assert found.note == "The gate itself has measured no harm; it was measured here."


@only_sqlite
def test_a_gate_by_a_suite_needs_that_suite(by_suite: Repository, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="suite"):
        bisect(by_suite.ctx, MODEL, "1", who(by_suite), Search())
    other = suite("gate").model_copy(update={"seed": 99})
    with pytest.raises(SuiteChanged):
        evaluator = Evaluator(other, measured, tmp_path)
        bisect(by_suite.ctx, MODEL, "1", who(by_suite), Search(evaluator=evaluator))
