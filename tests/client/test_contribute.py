from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from coldfusion_client.contribute import Order, Outcome, contribute
from coldfusion_client.journal import PrivacySpent
from coldfusion_client.lock import locked
from coldfusion_client.naming import task_names
from coldfusion_client.push import push
from coldfusion_client.record import read_record
from coldfusion_client.runs import HIDDEN
from coldfusion_client.source import Source
from coldfusion_client.training import Data
from coldfusion_shared import errors
from coldfusion_shared.data.report import Finding
from coldfusion_shared.finetune import FinetuneSettings
from tests.client.helpers import Notes, model_files, weights
from tests.client.repository import MODEL, NEEDS, PROSPECT, Repository, problem
from tests.client.trainer import FakeTrainer
from tests.shared.checkpoints import file_bytes, read_file

# Moves the weights by what screening does not remark on; most here see to more.
HONEST = 0.1


@pytest.fixture
def trainer() -> FakeTrainer:
    return FakeTrainer()


@pytest.fixture
def order() -> Order:
    return Order(model=MODEL, data=Data("mine.csv"), settings=FinetuneSettings())


def journal(outcome: Outcome) -> Any:
    return json.loads((outcome.run.folder / HIDDEN / "run.json").read_text())


def test_what_was_contributed_is_not_pushed_onto_a_later_base(
    order: Order, source: Source, trainer: FakeTrainer, repository: Repository
) -> None:
    folder = contribute(order, source, trainer).run.folder
    repository.publish(model_files(1))
    with pytest.raises(errors.AlreadyContributed, match="contributed, as c0"):
        push(source, MODEL, folder, None, onto_latest=True, wait=True)
    assert len(repository.contributions) == 1


def test_the_whole_loop(
    order: Order, source: Source, trainer: FakeTrainer, repository: Repository, notes: Notes
) -> None:
    outcome = contribute(order, source, trainer)
    folder = outcome.run.folder
    parent = Path("coldfusion-runs", "demo--tiny").absolute()
    assert folder.parent == parent
    assert folder.name.startswith("v0-mine-")
    assert (folder / "model.safetensors").read_bytes() == weights(0.5, "bert.", head=True)
    record = read_record(folder)
    assert record and record.finetuned and record.manifest.version == "v0"
    assert outcome.summary == f"Contribution c0 is accepted for round 1. {NEEDS}"
    assert PROSPECT["sentence"] in notes.said
    assert any(
        "50.0 before (a linear probe of" in said and str(folder) in said for said in notes.said
    )
    sent = repository.contributions["c0"]
    assert repository.received("c0") == weights(0.5)
    assert (sent["work"]["score_before"], sent["work"]["score_after"]) == (50.0, 80.0)
    assert sent["work"]["dataset"] is None
    assert sorted(path.name for path in folder.iterdir()) == [
        HIDDEN, "coldfusion.json", "config.json", "model.safetensors",
    ]  # fmt: skip
    assert sorted(path.name for path in (folder / HIDDEN).iterdir()) == ["lock", "run.json"]
    assert outcome.as_json()["state"] == "accepted"
    json.dumps(outcome.as_json())


def test_a_second_call_contributes_nothing_twice(
    order: Order, source: Source, trainer: FakeTrainer, repository: Repository
) -> None:
    first = contribute(order, source, trainer)
    again = contribute(order, source, trainer)
    assert again.summary == first.summary
    assert (trainer.trained, len(repository.contributions)) == (1, 1)


def test_cheap_errors_come_before_any_download(
    order: Order, source: Source, trainer: FakeTrainer, repository: Repository
) -> None:
    trainer.broken = errors.BadData("mine.csv has no column 'x'.")
    with pytest.raises(errors.BadData):
        contribute(order, source, trainer)
    repository.role = "reader"
    with pytest.raises(errors.Forbidden, match="role reader"):
        contribute(order, source, trainer)
    with pytest.raises(errors.ModelNotFound):
        repository.role = "contributor"
        contribute(replace(order, model="demo/none"), source, trainer)
    # What the model is decides what the data are for, so its description alone is brought.
    assert {request.url.path.split("/")[-1] for request in repository.seen("GET", "/files/")} == {
        "config.json"
    }
    assert not Path("coldfusion-runs").exists()


def test_a_task_that_cannot_be_probed_has_no_score_before(
    order: Order, source: Source, trainer: FakeTrainer, repository: Repository, notes: Notes
) -> None:
    trainer.base_score = None
    outcome = contribute(order, source, trainer)
    assert outcome.as_json()["score_before"] is None
    assert any("examples: 80.0 finetuned (macro F1 78.5)." in said for said in notes.said)
    assert not any("Scoring" in said for said in notes.said)
    assert repository.contributions["c0"]["work"]["score_before"] is None


def test_a_base_that_cannot_be_scored_is_trained_all_the_same(
    order: Order, source: Source, trainer: FakeTrainer, notes: Notes
) -> None:
    trainer.unscorable = errors.TrainingFailed("The memory does not suffice.")
    trainer.shift = HONEST
    outcome = contribute(order, source, trainer).as_json()
    assert (outcome["state"], outcome["score_before"]) == ("accepted", None)
    assert notes.warned == ["The base could not be scored: The memory does not suffice."]


def test_the_data_are_checked_before_they_are_learnt_from(
    order: Order, source: Source, trainer: FakeTrainer, notes: Notes
) -> None:
    trainer.findings = [
        Finding("leak", "9 of 10 test examples are in the training data, too.", serious=True),
        Finding("balance", "Labels of the training examples: good 50%, bad 50%."),
    ]
    told: list[str] = []
    trainer.shift = HONEST
    trainer.during = lambda: told.extend([*notes.warned, *notes.said])
    contribute(order, source, trainer)
    assert notes.warned == ["9 of 10 test examples are in the training data, too."]
    assert {finding.text for finding in trainer.findings} <= set(told)


def test_a_bad_token_is_said_first(
    order: Order, source: Source, trainer: FakeTrainer, connect: Callable[..., Any]
) -> None:
    with pytest.raises(errors.Unauthenticated):
        contribute(order, replace(source, api=connect("wrong")), trainer)


class Killed(BaseException):
    """As if the process were gone: nothing of ours catches it."""


def kill_at(repository: Repository, method: str, path: str, *, answered: bool) -> None:
    """Kill the client before it sends a request, or when the server has acted on it."""

    def fault(request: httpx.Request) -> httpx.Response | None:
        if request.method == method and request.url.path.endswith(path):
            repository.faults.clear()
            if answered:
                repository._route(request)
            raise Killed
        return None

    repository.faults.append(fault)


@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/files/model.safetensors"),
        ("POST", "/contributions"),
        ("PUT", "/2/1"),
        ("POST", "/complete"),
        ("GET", "/contributions/c0"),
    ],
)
def test_killed_at_any_request_it_goes_on(
    order: Order,
    source: Source,
    trainer: FakeTrainer,
    repository: Repository,
    method: str,
    path: str,
    answered: bool,
) -> None:
    kill_at(repository, method, path, answered=answered)
    with pytest.raises(Killed):
        contribute(order, source, trainer)
    outcome = contribute(order, source, trainer)
    assert outcome.contribution.state == "accepted"
    assert trainer.trained == 1
    assert list(repository.contributions) == ["c0"]
    assert repository.received("c0") == weights(0.5)


def test_killed_while_training_it_trains_again(
    order: Order, source: Source, trainer: FakeTrainer
) -> None:
    def die() -> None:
        raise Killed

    trainer.during = die
    with pytest.raises(Killed):
        contribute(order, source, trainer)
    trainer.during = lambda: None
    outcome = contribute(order, source, trainer)
    assert (trainer.scored, trainer.trained) == (1, 2)
    assert not (outcome.run.folder / "half").exists()


def test_killed_while_the_model_is_moved_it_goes_on(
    order: Order, source: Source, trainer: FakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.replace

    def die(self: Path, target: Path) -> Path:
        if target.name == "model.safetensors" and HIDDEN in self.parts:
            raise Killed
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", die)
        with pytest.raises(Killed):
            contribute(order, source, trainer)
    outcome = contribute(order, source, trainer)
    assert trainer.trained == 1
    assert (outcome.run.folder / "model.safetensors").exists()


def test_killed_while_waiting_and_fused_meanwhile_it_only_tells(
    order: Order, source: Source, trainer: FakeTrainer, repository: Repository
) -> None:
    kill_at(repository, "GET", "/contributions/c0", answered=True)
    with pytest.raises(Killed):
        contribute(order, source, trainer)
    repository.contributions["c0"].update(state="fused", result="v1")
    repository.publish(model_files(0.5))
    outcome = contribute(order, source, trainer)
    assert outcome.summary == "Contribution c0 is part of demo/tiny v1."
    assert (trainer.trained, len(repository.contributions)) == (1, 1)
    trainer.shift = 2.0
    # Only now that it was told, the same command means the next round.
    assert contribute(order, source, trainer).contribution.id == "c1"


def test_a_rejection_says_why_each_time(
    order: Order, source: Source, trainer: FakeTrainer, repository: Repository
) -> None:
    repository.verdict = {"state": "rejected", "reason": "too far away", "hint": "Learn slower."}
    for _ in range(2):
        with pytest.raises(errors.ContributionRejected, match="too far away") as caught:
            contribute(order, source, trainer)
        assert caught.value.hint == "Learn slower."
    assert (trainer.trained, len(repository.contributions)) == (1, 1)


def test_quarantine_is_told(
    order: Order, source: Source, trainer: FakeTrainer, repository: Repository
) -> None:
    repository.verdict = {"state": "quarantined", "reason": "large update"}
    assert "waits for a maintainer" in contribute(order, source, trainer).summary


def test_an_expired_contribution_can_be_repeated(
    order: Order, source: Source, trainer: FakeTrainer, repository: Repository
) -> None:
    repository.verdict = {"state": "expired", "reason": "took too long"}
    with pytest.raises(errors.StateConflict, match="took too long"):
        contribute(order, source, trainer)
    repository.keys.clear()  # the server frees the key of what has expired
    repository.verdict = {"state": "accepted"}
    assert contribute(order, source, trainer).contribution.id == "c1"
    assert trainer.trained == 1


def test_without_waiting_the_next_call_tells_the_verdict(
    order: Order, source: Source, trainer: FakeTrainer
) -> None:
    outcome = contribute(replace(order, wait=False), source, trainer)
    assert "will be screened" in outcome.summary
    assert contribute(order, source, trainer).contribution.state == "accepted"


def publish_during(trainer: FakeTrainer, repository: Repository, shift: float = 1.0) -> None:
    def publish() -> None:
        repository.publish(model_files(shift))
        trainer.during = lambda: None

    trainer.during = publish


@pytest.mark.parametrize("output", [None, Path("mine")])
def test_an_outdated_base_keeps_the_training_for_onto_latest(
    order: Order,
    source: Source,
    trainer: FakeTrainer,
    repository: Repository,
    output: Path | None,
) -> None:
    order = replace(order, output=output)
    publish_during(trainer, repository)
    with pytest.raises(errors.BaseOutdated) as caught:
        contribute(order, source, trainer)
    assert "--onto latest" in (caught.value.hint or "")
    onto = replace(order, onto_latest=True)
    outcome = contribute(onto, source, trainer)
    assert outcome.contribution.base == "v1"
    # v1 is 1.0 above v0, and the update 0.5.
    assert repository.received("c0") == weights(1.5)
    assert contribute(onto, source, trainer).contribution.id == "c0"
    assert (trainer.trained, len(repository.contributions)) == (1, 1)


def test_onto_latest_from_the_newest_base_changes_nothing(
    order: Order, source: Source, trainer: FakeTrainer, repository: Repository
) -> None:
    outcome = contribute(replace(order, onto_latest=True), source, trainer)
    assert outcome.contribution.base == "v0"
    assert repository.received("c0") == weights(0.5)


def test_onto_latest_follows_a_base_that_moves_again(
    order: Order, source: Source, trainer: FakeTrainer, repository: Repository
) -> None:
    publish_during(trainer, repository)

    def publish_at_declaration(request: httpx.Request) -> httpx.Response | None:
        if request.method == "POST" and len(repository.bases) < 4:
            repository.publish(model_files(float(len(repository.bases))))
        return None

    repository.faults.append(publish_at_declaration)
    outcome = contribute(replace(order, onto_latest=True), source, trainer)
    assert outcome.contribution.base == "v3"
    assert len(journal(outcome)["submissions"]) == 1


def test_a_base_that_never_rests_is_given_up(
    order: Order, source: Source, trainer: FakeTrainer, repository: Repository
) -> None:
    outdated = problem(409, "base_outdated", "There is a newer base.")
    repository.faults.append(lambda request: outdated if request.method == "POST" else None)
    with pytest.raises(errors.BaseOutdated):
        contribute(replace(order, onto_latest=True), source, trainer)
    assert len(repository.seen("POST", "contributions")) == 5


def test_a_round_that_closes_during_the_upload_is_followed(
    order: Order, source: Source, trainer: FakeTrainer, repository: Repository
) -> None:
    def late(request: httpx.Request) -> httpx.Response | None:
        if not request.url.path.endswith("/c0/complete"):
            return None
        if len(repository.bases) == 1:
            repository.publish(model_files(1.0))
        return problem(409, "base_outdated", "The round closed.")

    repository.faults.append(late)
    outcome = contribute(replace(order, onto_latest=True), source, trainer)
    assert (outcome.contribution.id, outcome.contribution.base) == ("c1", "v1")


def test_a_training_that_was_never_contributed_is_remembered(
    order: Order, source: Source, trainer: FakeTrainer, repository: Repository, notes: Notes
) -> None:
    publish_during(trainer, repository)
    with pytest.raises(errors.BaseOutdated):
        contribute(order, source, trainer)
    trainer.shift = 2.0
    assert contribute(order, source, trainer).run.journal.base == "v1"
    assert any("A finished training on v0" in warning for warning in notes.warned)


def test_another_data_set_or_setting_is_another_run(
    order: Order, source: Source, trainer: FakeTrainer, repository: Repository
) -> None:
    settings = FinetuneSettings(epochs=2.0)
    first = contribute(order, source, trainer)
    trainer.shift = 0.6
    second = contribute(replace(order, settings=settings), source, trainer)
    trainer.shift = 0.7
    third = contribute(replace(order, data=Data("other.csv")), source, trainer)
    assert len({one.run.folder for one in (first, second, third)}) == 3
    assert len(repository.contributions) == 3


def test_an_output_of_something_else_is_refused(
    order: Order, source: Source, trainer: FakeTrainer
) -> None:
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("years of work")
    with pytest.raises(errors.InvalidRequest, match="holds no run"):
        contribute(replace(order, output=Path("mine")), source, trainer)
    assert trainer.trained == 0


def test_an_output_of_another_run_is_refused(
    order: Order, source: Source, trainer: FakeTrainer, repository: Repository
) -> None:
    order = replace(order, output=Path("mine"))
    contribute(order, source, trainer)
    with pytest.raises(errors.InvalidRequest, match="another model, data set"):
        contribute(replace(order, data=Data("other.csv")), source, trainer)
    repository.publish(model_files(1.0))
    with pytest.raises(errors.AlreadyContributed, match="from v0 and contributed"):
        contribute(order, source, trainer)
    assert trainer.trained == 1


def test_an_output_with_an_older_training_offers_onto_latest(
    order: Order, source: Source, trainer: FakeTrainer, repository: Repository
) -> None:
    order = replace(order, output=Path("mine"))
    publish_during(trainer, repository)
    for _ in range(2):
        with pytest.raises(errors.BaseOutdated) as caught:
            contribute(order, source, trainer)
        assert "--onto latest" in (caught.value.hint or "")
    assert trainer.trained == 1


def test_an_output_of_an_unfinished_training_is_used_again(
    order: Order, source: Source, trainer: FakeTrainer
) -> None:
    order = replace(order, output=Path("mine"))

    def die() -> None:
        raise Killed

    trainer.during = die
    with pytest.raises(Killed):
        contribute(order, source, trainer)
    trainer.during = lambda: None
    other = replace(order, data=Data("other.csv"))
    assert contribute(other, source, trainer).run.folder == Path("mine").absolute()


def test_two_at_once_in_one_folder_are_refused(
    order: Order, source: Source, trainer: FakeTrainer
) -> None:
    order = replace(order, output=Path("mine"))
    with (
        locked(Path("mine", HIDDEN, "lock"), wait=False),
        pytest.raises(errors.Conflict, match="Another coldfusion-client works"),
    ):
        contribute(order, source, trainer)


def test_the_public_name_is_sent_if_it_is_given(
    order: Order, source: Source, trainer: FakeTrainer, repository: Repository
) -> None:
    contribute(replace(order, public_name="films"), source, trainer)
    assert repository.contributions["c0"]["work"]["dataset"] == "films"


def test_weights_that_did_not_change_are_not_sent(
    order: Order, source: Source, trainer: FakeTrainer, repository: Repository
) -> None:
    trainer.shift = 0.0
    with pytest.raises(errors.ContributionRejected, match="identical to the base"):
        contribute(order, source, trainer)
    assert not repository.contributions


def test_the_same_weights_under_other_settings_are_refused_by_the_server(
    order: Order, source: Source, trainer: FakeTrainer, repository: Repository
) -> None:
    twice = problem(409, "already_contributed", "These weights are in round 1 already.")
    repository.faults.append(
        lambda request: twice if request.url.path.endswith("/complete") else None
    )
    with pytest.raises(errors.AlreadyContributed):
        contribute(order, source, trainer)


def interrupted(
    order: Order,
    source: Source,
    trainer: FakeTrainer,
    repository: Repository,
    path: str = "/1/1",
    *,
    answered: bool = False,
) -> None:
    """Contribute, killed at the first part of the upload or at a request of that path."""
    kill_at(repository, "PUT" if path == "/1/1" else "POST", path, answered=answered)
    with pytest.raises(Killed):
        contribute(order, source, trainer)


def test_another_encoding_begins_anew_what_was_only_declared(
    order: Order, source: Source, trainer: FakeTrainer, repository: Repository, notes: Notes
) -> None:
    interrupted(replace(order, encoding="full"), source, trainer, repository)
    outcome = contribute(replace(order, encoding="delta-sign"), source, trainer)
    assert repository.contributions["c0"]["state"] == "declared"
    assert (outcome.contribution.id, outcome.contribution.encoding) == ("c1", "delta-sign")
    assert "What was begun in the encoding full is given up for delta-sign." in notes.said
    assert len(journal(outcome)["submissions"]) == 1
    assert trainer.trained == 1


def test_another_encoding_is_free_where_the_declaration_was_never_answered(
    order: Order, source: Source, trainer: FakeTrainer, repository: Repository
) -> None:
    interrupted(replace(order, encoding="full"), source, trainer, repository, "/contributions")
    outcome = contribute(replace(order, encoding="delta"), source, trainer)
    assert (outcome.contribution.id, outcome.contribution.encoding) == ("c0", "delta")


@pytest.mark.parametrize("heard", [False, True])
def test_what_has_arrived_is_not_sent_in_another_form(
    order: Order,
    source: Source,
    trainer: FakeTrainer,
    repository: Repository,
    notes: Notes,
    heard: bool,
) -> None:
    full = replace(order, encoding="full")
    if heard:
        contribute(full, source, trainer)
    else:
        interrupted(full, source, trainer, repository, "/complete", answered=True)
    outcome = contribute(replace(order, encoding="delta-sign"), source, trainer)
    assert (outcome.contribution.id, outcome.contribution.encoding) == ("c0", "full")
    assert "It was sent as full before, and is not sent as delta-sign." in notes.said
    assert len(repository.contributions) == 1


def test_a_rejected_one_may_be_sent_in_another_form(
    order: Order, source: Source, trainer: FakeTrainer, repository: Repository
) -> None:
    repository.verdict = {"state": "rejected", "reason": "too far away"}
    with pytest.raises(errors.ContributionRejected):
        contribute(replace(order, encoding="delta-sign"), source, trainer)
    repository.verdict = {"state": "accepted"}
    outcome = contribute(replace(order, encoding="full"), source, trainer)
    assert (outcome.contribution.id, outcome.contribution.encoding) == ("c1", "full")


def test_without_an_encoding_it_goes_on_in_the_old_one_and_says_so(
    order: Order, source: Source, trainer: FakeTrainer, repository: Repository, notes: Notes
) -> None:
    interrupted(replace(order, encoding="delta"), source, trainer, repository)
    outcome = contribute(order, source, trainer)
    assert (outcome.contribution.id, outcome.contribution.encoding) == ("c0", "delta")
    said = [one for one in notes.said if one.startswith("Going on as it was begun")]
    assert len(said) == 1 and "encoding delta; --encoding changes that" in said[0]
    contribute(order, source, trainer)
    assert len([one for one in notes.said if one.startswith("Going on")]) == 1


def test_what_fell_back_to_another_encoding_goes_on_in_that(
    order: Order,
    source: Source,
    trainer: FakeTrainer,
    repository: Repository,
    notes: Notes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("coldfusion_client.packing.LEAST_COSINE", 2.0)
    sign = replace(order, encoding="delta-sign")
    interrupted(sign, source, trainer, repository)
    encoded = [said for said in notes.said if said.startswith("Encoded as")]
    outcome = contribute(sign, source, trainer)
    assert (outcome.contribution.id, outcome.contribution.encoding) == ("c0", "full")
    # Nothing was encoded and measured again.
    assert [said for said in notes.said if said.startswith("Encoded as")] == encoded


class Later(FinetuneSettings):
    """The settings of a client that has one more."""

    weight_decay: float = 0.0


def names_of(settings: FinetuneSettings) -> tuple[str, ...]:
    return task_names("http://a", MODEL, "digest", settings)


def test_a_new_setting_gives_no_run_another_name() -> None:
    assert names_of(Later()) == names_of(FinetuneSettings())
    assert names_of(Later(epochs=2)) == names_of(FinetuneSettings(epochs=2))
    assert names_of(FinetuneSettings(epochs=4.0)) == names_of(FinetuneSettings())
    # What is learnt otherwise is no older run's.
    assert len(names_of(Later(weight_decay=0.1))) == 1
    every = [Later(), Later(weight_decay=0.1), Later(epochs=2), Later(lora=True)]
    assert len({names_of(settings)[0] for settings in every}) == len(every)


@pytest.mark.parametrize("output", [None, Path("mine")])
def test_a_run_that_was_named_after_all_settings_is_found(
    order: Order, source: Source, trainer: FakeTrainer, output: Path | None
) -> None:
    order = replace(order, output=output)
    first = contribute(order, source, trainer)
    file = first.run.folder / HIDDEN / "run.json"
    names = task_names(source.api.server, MODEL, "digest of mine.csv", FinetuneSettings())
    assert journal(first)["task"] == names[0]
    file.write_text(file.read_text().replace(names[0], names[1]))
    again = contribute(order, source, trainer)
    assert (again.contribution.id, again.run.folder) == ("c0", first.run.folder)
    assert trainer.trained == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (FinetuneSettings(), {"lr": 5e-5, "lora_rank": None}),
        (FinetuneSettings(lr=1e-3), {"lr": 1e-3}),
        (
            FinetuneSettings(lora=True, lora_rank=4),
            {"lr": 5e-4, "lora_rank": 4, "lora_alpha": 16, "lora_targets": "all-linear"},
        ),
    ],
)
def test_a_receipt_says_the_settings_that_were_used(
    order: Order,
    source: Source,
    trainer: FakeTrainer,
    repository: Repository,
    settings: FinetuneSettings,
    said: dict[str, Any],
) -> None:
    contribute(replace(order, settings=settings, encoding="full"), source, trainer)
    found = repository.contributions["c0"]["work"]["settings"]
    assert {name: found[name] for name in said} == said


class Private(FakeTrainer):
    """Has kept its examples apart."""

    def finetune(self, *arguments: Any, **named: Any) -> Any:
        trained = super().finetune(*arguments, **named)
        spent = PrivacySpent(
            epsilon=2.5, delta=1e-3, noise=0.9, clip=1.0, sample_rate=0.05, steps=80
        )
        return trained.model_copy(update={"privacy": spent})


def test_epsilon_is_declared_and_no_score_of_the_data_is(
    order: Order, source: Source, repository: Repository, notes: Notes
) -> None:
    trainer = Private()
    private = replace(order, settings=FinetuneSettings(dp=True), encoding="delta-int8")
    outcome = contribute(private, source, trainer)
    work = repository.contributions["c0"]["work"]
    assert {name: work["settings"][name] for name in ("dp", "dp_epsilon", "dp_noise")} == {
        "dp": True, "dp_epsilon": 8.0, "dp_noise": 0.9,
    }  # fmt: skip
    assert (work["settings"]["dp_epsilon_spent"], work["settings"]["dp_steps"]) == (2.5, 80)
    assert trainer.scored == 0
    scores = [work.get(f"score_{which}") for which in ("before", "after", "decoded")]
    assert scores == [None, None, None]
    told = outcome.as_json()
    assert (told["privacy"]["epsilon"], told["score_after"]) == (2.5, 80.0)
    assert any("epsilon 2.50 at delta 1.0e-03" in said for said in notes.said)


class PoolerKept(FakeTrainer):
    """Leaves one tensor as it is in the base."""

    def finetune(self, *arguments: Any, **named: Any) -> Any:
        trained = super().finetune(*arguments, **named)
        file = arguments[3] / "model.safetensors"
        tensors = read_file(file.read_bytes())
        tensors["bert.pooler.weight"] = tensors["bert.pooler.weight"] - np.float32(self.shift)
        file.write_bytes(file_bytes(tensors))
        return trained


@pytest.mark.parametrize("pattern", ["pooler", "bert.pooler"])
@pytest.mark.parametrize("encoding", ["full", "delta"])
def test_frozen_is_what_the_base_calls_so(
    order: Order, source: Source, repository: Repository, pattern: str, encoding: str
) -> None:
    settings = FinetuneSettings(freeze=(pattern,))
    frozen = replace(order, settings=settings, encoding=encoding)
    contribute(frozen, source, PoolerKept())
    assert repository.contributions["c0"]["frozen"] == ["pooler"]
    sent = [name.rpartition(":")[2] for name in read_file(repository.received("c0"))]
    assert sorted(sent) == ["encoder.bias", "encoder.weight"]
