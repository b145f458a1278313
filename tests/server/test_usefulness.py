"""What a contribution does alone to its base: the evaluator measures it, the receipt tells it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coldfusion_server.evaluator import prepare
from coldfusion_server.services.evaluation_tries import MAX_TRIES
from coldfusion_server.services.measuring import Task
from coldfusion_shared.errors import EvaluationFailed, InvalidRequest
from coldfusion_shared.schemas.evaluations import EvaluationReport
from coldfusion_shared.schemas.gates import Gate
from tests.server.backends import only_sqlite
from tests.server.gated import policy, register
from tests.server.measured import report, suite
from tests.server.repository import ANY_UPDATE, MODEL, Repository, body_file, body_of, tiny_tensors
from tests.server.test_candidate_evaluator import evaluate
from tests.server.test_round_way import events
from tests.shared.checkpoints import Array, read_file

pytestmark = only_sqlite

SCREENING = {**ANY_UPDATE, "usefulness": {"enabled": True}}
GATE = Gate(kind="suite", suite="text-2")


@dataclass
class Fake:
    """Measures bases at 90 and all that is put onto one at `level`; keeps what it has seen."""

    level: float = 80.0
    alone: list[dict[str, Array]] = field(default_factory=list)
    faults: list[Exception] = field(default_factory=list)

    def __call__(
        self, folder: Path, moved: Callable[[], None], base: Path | None = None
    ) -> EvaluationReport:
        if base is None:
            return report(suite(), 90.0)
        if self.faults:
            raise self.faults.pop(0)
        self.alone.append(read_file((folder / "model.safetensors").read_bytes()))
        return report(suite(), self.level)


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
def task(repo: Repository, fake: Fake) -> Task:
    register(repo)
    policy(repo, gate=GATE, screening=SCREENING)
    return prepare(repo.ctx, suite(), "frozen", 1, lambda kept: fake)


def receipt(repo: Repository, contribution: str) -> Any:
    return repo.contributor().receipt(contribution)


def finding(repo: Repository, contribution: str) -> Any:
    (found,) = [f for f in receipt(repo, contribution)["findings"] if f["check"] == "usefulness"]
    return found


def test_its_effect_is_measured_once_and_told(repo: Repository, task: Task, fake: Fake) -> None:
    contribution = repo.contributor().contribute(body_file(1))
    repo.work()
    assert "later" in finding(repo, contribution)["message"]
    assert evaluate(repo, task) == 2, "the base, then the contribution"
    told = receipt(repo, contribution)
    assert told["state"] == "accepted"
    effect = told["own_effect"]
    assert (effect["suite"], effect["base"], effect["score"]) == ("text-2", 90.0, 80.0)
    assert effect["difference"] == -10.0 and effect["standard_error"] > 0
    found = finding(repo, contribution)
    assert (found["verdict"], found["measured"]) == ("warn", -10.0)
    assert -10 < found["limit"] < 0
    (event,) = events(repo, "contribution.measured")
    assert event["contribution"] == contribution
    # What was measured is the base with this update alone.
    (weights,) = fake.alone
    for name, array in body_of(tiny_tensors(), 1).items():
        assert np.allclose(weights[name], array, rtol=0, atol=1e-6)
    assert (weights["classifier.weight"] == tiny_tensors()["classifier.weight"]).all()
    assert evaluate(repo, task) == 0 and list(task.folder.iterdir()) == []
    page = repo.client().get(f"/contributions/{contribution}").text
    assert "Score alone" in page


def test_what_does_no_harm_passes(repo: Repository, task: Task, fake: Fake) -> None:
    fake.level = 91.0
    contribution = repo.contributor().contribute(body_file(1))
    repo.work()
    evaluate(repo, task)
    assert finding(repo, contribution)["verdict"] == "pass"


def test_what_nobody_waits_for_is_not_measured(repo: Repository, task: Task, fake: Fake) -> None:
    ann = repo.contributor("ann")
    gone = ann.contribute(body_file(1))
    repo.work()
    assert ann.client.post(f"/v1/contributions/{gone}/withdraw").status_code == 200
    assert evaluate(repo, task) == 1, "the base alone"
    policy(repo, gate=GATE, screening=ANY_UPDATE)
    ann.contribute(body_file(2))
    repo.work()
    assert evaluate(repo, task) == 0 and fake.alone == []


def test_one_that_cannot_be_measured_is_left_and_told(
    repo: Repository, task: Task, fake: Fake
) -> None:
    contribution = repo.contributor().contribute(body_file(1))
    repo.work()
    fake.faults = [EvaluationFailed("It broke.")] * MAX_TRIES
    for _ in range(MAX_TRIES):
        evaluate(repo, task)
        repo.clock.advance(hours=1)
    (event,) = events(repo, "evaluation.failed")
    assert (event["contribution"], event["reason"]) == (contribution, "It broke.")
    assert evaluate(repo, task) == 0
    assert receipt(repo, contribution)["own_effect"] is None


def test_without_a_suite_it_cannot_be_asked_for(repo: Repository) -> None:
    with pytest.raises(InvalidRequest, match="gate's suite"):
        policy(repo, screening=SCREENING)
    assert repo.get(f"/v1/models/{MODEL}")["policy"]["gate"]["kind"] == "none"
