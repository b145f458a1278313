from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import TrainerControl, TrainerState

from coldfusion_client import Client, ColdFusionCallback, ContributionWarning, Work
from coldfusion_client.quoting import command_line
from coldfusion_client.record import read_record
from coldfusion_shared import errors
from tests.client.helpers import model_files, weights
from tests.client.repository import MODEL, TOKEN, Repository

Train = Callable[..., ColdFusionCallback]


class TinyModel:
    """Has what the callback needs of a transformers model."""

    def __init__(self, name_or_path: Path | str = "", fails: Exception | None = None) -> None:
        self.name_or_path, self.fails = str(name_or_path), fails

    def save_pretrained(self, folder: Path) -> None:
        if self.fails:
            raise self.fails
        (folder / "model.safetensors").write_bytes(weights(0.5, prefix="bert.", head=True))


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url, TOKEN) as client:
        yield client


@pytest.fixture
def train(tmp_path: Path) -> Train:
    def run(
        callback: ColdFusionCallback, model: Any = None, main: bool = True
    ) -> ColdFusionCallback:
        arguments: Any = SimpleNamespace(output_dir=str(tmp_path / "run"), fsdp=[], deepspeed=None)
        known = TrainerState(is_world_process_zero=main)
        model = model or TinyModel()
        for event in (callback.on_train_begin, callback.on_train_end):
            event(arguments, known, TrainerControl(), model=model, processing_class=None)
        return callback

    return run


def test_the_model_is_saved_and_contributed(
    client: Client, train: Train, repository: Repository, tmp_path: Path
) -> None:
    callback = ColdFusionCallback(MODEL, "v0", client=client, work=Work(task="regression"))
    contribution = train(callback).contribution
    assert contribution is not None
    assert (contribution.state, contribution.work.task) == ("accepted", "regression")
    assert repository.received(contribution.id) == weights(0.5)
    assert (tmp_path / "run" / "coldfusion" / "model.safetensors").is_file()


def test_the_base_is_known_from_where_the_model_was_loaded(
    client: Client, train: Train, repository: Repository, tmp_path: Path
) -> None:
    folder = client.pull(MODEL, out=tmp_path / "base")
    out = tmp_path / "Ergebnis ü"
    train(ColdFusionCallback(MODEL, client=client, folder=out), TinyModel(folder))
    record = read_record(out)
    assert record is not None and record.finetuned
    # So a push needs no more words, and a finetuned model is not taken for the base.
    assert client.contribute(MODEL, out).id == "c0"
    with pytest.raises(errors.InvalidRequest, match="Nobody says"):
        train(ColdFusionCallback(MODEL, client=client), TinyModel(out))


def test_only_the_main_process_contributes(
    client: Client, train: Train, repository: Repository, tmp_path: Path
) -> None:
    callback = ColdFusionCallback(MODEL, "v0", client=client)
    assert train(callback, main=False).contribution is None
    assert not repository.contributions and not (tmp_path / "run").exists()


def test_a_refusal_is_a_warning_that_says_what_to_do(
    client: Client, train: Train, repository: Repository, tmp_path: Path
) -> None:
    repository.publish(model_files(1.0))
    with pytest.warns(ContributionWarning) as caught:
        callback = train(ColdFusionCallback(MODEL, "v0", client=client))
    (said,) = [str(one.message) for one in caught]
    folder = tmp_path / "run" / "coldfusion"
    assert "v1 is the newest base" in said and "onto_latest=True" in said
    command = f"coldfusion-client push {MODEL} {folder} --base v0 --server {client.server}"
    assert said.endswith(command)
    assert callback.contribution is None
    assert (folder / "model.safetensors").is_file()
    with warnings.catch_warnings():
        train(ColdFusionCallback(MODEL, "v0", client=client, onto_latest=True))


def test_a_rejection_is_final_and_nobody_is_told_to_try_again(
    client: Client, train: Train, repository: Repository
) -> None:
    repository.verdict = {"state": "rejected", "reason": "Too \x1b[31mfar."}
    with pytest.warns(ContributionWarning) as caught:
        train(ColdFusionCallback(MODEL, "v0", client=client))
    (said,) = [str(one.message) for one in caught]
    assert "was rejected: Too [31mfar" in said and "The model is saved in " in said
    assert "coldfusion-client push" not in said


def test_strict_lets_errors_through_but_saves_first(
    client: Client, train: Train, repository: Repository, tmp_path: Path
) -> None:
    repository.verdict = {"state": "rejected", "reason": "Too far from the base."}
    with pytest.raises(errors.ContributionRejected):
        train(ColdFusionCallback(MODEL, "v0", client=client, strict=True))
    assert (tmp_path / "run" / "coldfusion" / "model.safetensors").is_file()


def test_a_token_that_may_not_contribute_is_said_before_the_training(
    client: Client, train: Train, repository: Repository
) -> None:
    repository.role = "reader"
    with pytest.raises(errors.Forbidden):
        train(ColdFusionCallback(MODEL, "v0", client=client, strict=True))
    with pytest.warns(ContributionWarning, match="trained and saved all the same"):
        train(ColdFusionCallback(MODEL, "v0", client=client))


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), RuntimeError("shared")])
def test_a_model_that_cannot_be_saved_is_still_in_memory(
    client: Client, train: Train, repository: Repository, fault: Exception
) -> None:
    with pytest.warns(ContributionWarning, match=r"trainer\.save_model"):
        train(ColdFusionCallback(MODEL, "v0", client=client), TinyModel(fails=fault))
    assert not repository.contributions


def test_without_a_client_it_makes_one_of_its_own(
    url: str, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLDFUSION_SERVER", url)
    monkeypatch.setenv("COLDFUSION_TOKEN", TOKEN)
    assert train(ColdFusionCallback(MODEL, "v0")).contribution is not None


def test_sharded_training_is_refused_before_it_begins(client: Client) -> None:
    callback = ColdFusionCallback(MODEL, "v0", client=client)
    arguments: Any = SimpleNamespace(output_dir="run", fsdp=["full_shard"], deepspeed=None)
    with pytest.raises(errors.BadModel) as caught:
        callback.on_train_begin(arguments, TrainerState(), TrainerControl())
    assert "trainer.save_model" in (caught.value.hint or "")


def test_names_are_checked_at_once() -> None:
    with pytest.raises(errors.InvalidRequest, match="names no model"):
        ColdFusionCallback("tiny", "v0")
    with pytest.raises(errors.InvalidRequest, match="newest base may be another"):
        ColdFusionCallback(MODEL, "latest")


def test_a_command_is_quoted_for_the_systems_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("coldfusion-client", "push", MODEL, r"C:\Users\Jörg Ä\run")
    assert command_line(*words).endswith(r"'C:\Users\Jörg Ä\run'")
    monkeypatch.setattr("coldfusion_client.quoting.os.name", "nt")
    assert command_line(*words).endswith(r'"C:\Users\Jörg Ä\run"')
