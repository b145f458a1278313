"""The Repository's own evaluator and gates: what it measures first, and what it leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import EvaluationTryRow
from coldfusion_server.evaluator import evaluate_once, prepare
from coldfusion_server.services import ending, evaluation_tries, leases, rounds
from coldfusion_server.services.evaluation_tries import MAX_TRIES, Subject
from coldfusion_server.services.holding import Holding
from coldfusion_server.services.measuring import Task
from coldfusion_shared.errors import CandidateNotFound, EvaluationFailed
from coldfusion_shared.rounds import RoundState
from coldfusion_shared.schemas.evaluations import EvaluationReport, ProtocolName, Suite
from coldfusion_shared.weights.digests import file_sha256
from tests.e2e.programs import wait_until
from tests.server.backends import both_databases
from tests.server.gated import fused, gated, post, shown
from tests.server.lines import replay, three_rounds
from tests.server.lines import shown as shown_replay
from tests.server.measured import report, suite
from tests.server.repository import MODEL, Json, Repository


@dataclass
class Fake:
    """Measures weights by their digests, and keeps which, each with its base's."""

    levels: dict[str, float] = field(default_factory=dict)
    seen: list[tuple[str, str | None]] = field(default_factory=list)
    faults: list[Exception] = field(default_factory=list)
    during: Callable[[], None] = lambda: None
    of: Suite = field(default_factory=suite)
    protocol: str = "frozen"

    def __call__(
        self, folder: Path, moved: Callable[[], None], base: Path | None = None
    ) -> EvaluationReport:
        weights = file_sha256(folder / "model.safetensors")
        before = None if base is None else file_sha256(base / "model.safetensors")
        self.seen.append((weights, before))
        self.during()
        if self.faults:
            raise self.faults.pop(0)
        flips = {} if base is None else {"reviews": 2.0}
        level = self.levels.get(weights, 80.0)
        return report(self.of, level, negative_flips=flips, protocol=self.protocol)


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
def task(repo: Repository, fake: Fake) -> Task:
    return prepare(repo.ctx, suite(), "frozen", 1, lambda kept: fake)


def weights_of(shown: Json) -> str:
    files = shown["manifest"]["files"]
    return str(next(file["sha256"] for file in files if file["path"] == "model.safetensors"))


def tries(repo: Repository) -> dict[str, int]:
    with repo.ctx.database.read() as session:
        return {row.subject: row.attempts for row in session.query(EvaluationTryRow)}


def evaluate(repo: Repository, task: Task) -> int:
    """Let the evaluator do all that there is; return how often it measured."""
    for done in range(20):
        if not evaluate_once(repo.ctx, task, "a"):
            return done
    raise AssertionError("the evaluator never ends")


@both_databases
def test_what_a_gate_waits_for_comes_before_bases(repo: Repository, task: Task, fake: Fake) -> None:
    gated(repo, line_search=[0.5, 1.0])
    found = fused(repo)
    repo.model("demo/newer")
    base = weights_of(repo.get(f"/v1/models/{MODEL}/bases/v0"))
    fake.levels[weights_of(found[1])] = 81.0
    for _ in range(3):
        assert evaluate_once(repo.ctx, task, "a")
    assert fake.seen == [(base, None), *((weights_of(one), base) for one in found)]
    assert evaluate(repo, task) == 1, "the other model's base comes behind them"
    repo.work()
    done = shown(repo)
    assert (done["state"], done["result"]) == ("published", "v1")
    assert [one["evaluator"] for one in done["gate"]["evaluators"]] == ["repository"]
    assert done["gate"]["evaluators"][0]["negative_flips"] == 2.0
    assert evaluate(repo, task) == 0, "what the candidate has, its base has"
    assert tries(repo) == {} and list(task.folder.iterdir()) == []


def test_a_gate_needs_the_evaluators_own_scores_of_the_base(
    repo: Repository, task: Task, fake: Fake
) -> None:
    gated(repo)
    assert post(repo, "bases/v0", 80.0, "eva").status_code == 201
    assert evaluate(repo, task) == 1
    (candidate,) = fused(repo)
    post(repo, candidate["id"], 70.0, "bob")
    assert evaluate(repo, task) == 1
    repo.work()
    assert shown(repo)["state"] == "published"


@pytest.mark.parametrize(("name", "protocol"), [("other", "frozen"), ("text-2", "few-shot")])
def test_an_evaluator_of_something_else_measures_no_candidates(
    name: str, protocol: ProtocolName, repo: Repository, fake: Fake
) -> None:
    gated(repo)
    fake.of, fake.protocol = suite(name, seed=13 + (name == "other")), protocol
    other = prepare(repo.ctx, fake.of, protocol, 1, lambda kept: fake)
    fused(repo)
    assert evaluate(repo, other) == 1
    assert [before for _, before in fake.seen] == [None]


def test_a_candidate_that_is_given_up_meanwhile_is_no_failed_try(
    repo: Repository, task: Task, fake: Fake
) -> None:
    gated(repo)
    assert evaluate(repo, task) == 1
    (candidate,) = fused(repo)

    def cancel() -> None:
        fake.during = lambda: None
        with repo.ctx.database.write() as session:
            row = rounds.locked(session, 1)
            ending.end_round(repo.ctx, session, row, RoundState.CANCELLED, reason="a test")

    fake.during = cancel
    repo.model("demo/newer")
    assert evaluate_once(repo.ctx, task, "a"), "it goes on with the next one at once"
    assert len(fake.seen) == 3 and tries(repo) == {}
    assert [e for e in repo.get("/v1/events") if e["type"] == "evaluation.failed"] == []
    assert candidate["id"] not in shown(repo)["candidates"]


def test_a_candidate_that_is_given_up_ends_the_work_at_it(
    repo: Repository, task: Task, fake: Fake
) -> None:
    gated(repo)
    assert evaluate(repo, task) == 1
    (candidate,) = fused(repo)
    with repo.ctx.database.read() as session:
        evaluation_tries.check_waited_for(session, Subject(candidate=candidate["id"]))
        evaluation_tries.check_waited_for(session, Subject(base=1))
    lease = leases.acquire(repo.ctx, "evaluation:x", "a")
    assert lease is not None
    hasty = replace(repo.ctx, settings=repo.settings.model_copy(update={"lease_seconds": 1.0}))

    def check(session: Session) -> None:
        evaluation_tries.check_waited_for(session, Subject(candidate=candidate["id"]))

    with Holding(hasty, lease, check=check) as holding:
        holding()
        with repo.ctx.database.write() as session:
            row = rounds.locked(session, 1)
            ending.end_round(repo.ctx, session, row, RoundState.CANCELLED, reason="a test")
        wait_until(lambda: holding.lost, "that it is noticed")
        with pytest.raises(CandidateNotFound, match=candidate["id"]):
            holding()


def test_what_replays_are_decided_by_is_measured_side_by_side(
    repo: Repository, task: Task, fake: Fake
) -> None:
    _, ids = three_rounds(repo)
    asked = replay(repo, status=201, without=[ids[1][0]])
    repo.work()
    evaluator = repo.token("eva", "evaluator")
    waiting = repo.get(f"/v1/models/{MODEL}/candidates", evaluator)
    steps = shown_replay(repo, asked["id"])["steps"]
    assert [one["id"] for one in waiting] == [step["candidate"]["id"] for step in steps]
    assert [(one["base"], one["round"]) for one in waiting] == [("v2", None), ("v3", None)]
    bases = [weights_of(repo.get(f"/v1/models/{MODEL}/bases/{one['base']}")) for one in waiting]
    for _ in range(4):
        assert evaluate_once(repo.ctx, task, "a")
    assert fake.seen == [
        seen
        for base, one in zip(bases, waiting, strict=True)
        for seen in ((base, None), (weights_of(one), base))
    ], "before all other bases"
    for step in shown_replay(repo, asked["id"])["steps"]:
        assert (step["old_score"], step["new_score"], step["suite"]) == (80.0, 80.0, "text-2")
    replay(repo, f"/{asked['id']}/discard")
    assert repo.get(f"/v1/models/{MODEL}/candidates", evaluator) == []
    answer = repo.client(repo.token("ann")).get(f"/v1/models/{MODEL}/candidates")
    assert answer.status_code == 403


def test_a_candidate_that_cannot_be_measured_is_left(
    repo: Repository, task: Task, fake: Fake
) -> None:
    gated(repo)
    assert evaluate(repo, task) == 1
    (candidate,) = fused(repo)
    fake.faults = [EvaluationFailed(f"It is in {task.folder}.")] * MAX_TRIES
    for _ in range(MAX_TRIES + 2):
        evaluate(repo, task)
        repo.clock.advance(hours=1)
    assert len(fake.seen) == MAX_TRIES + 1
    (failure,) = [e for e in repo.get("/v1/events") if e["type"] == "evaluation.failed"]
    assert failure["data"] == {
        "candidate": candidate["id"],
        "suite": "text-2",
        "protocol": "frozen",
        "reason": "It is in bases.",
    }
    assert shown(repo)["state"] == "evaluating"
