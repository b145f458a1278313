from __future__ import annotations

from pathlib import Path

import pytest

from coldfusion_client.pull import pull
from coldfusion_client.push import push
from coldfusion_client.source import Source
from coldfusion_shared import errors
from tests.client.helpers import model_files, weights
from tests.client.repository import MODEL, Repository


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "finetuned"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(weights(0.5, prefix="bert.", head=True))
    return folder


def run(source: Source, folder: Path, base: str | None = "v0", **options: bool) -> str:
    chosen = {"onto_latest": False, "wait": True, **options}
    return push(
        source, MODEL, folder, base, onto_latest=chosen["onto_latest"], wait=chosen["wait"]
    ).state.value


def test_a_body_is_contributed_and_nothing_left_behind(
    source: Source, folder: Path, repository: Repository
) -> None:
    assert run(source, folder) == "accepted"
    assert repository.received("c0") == weights(0.5)
    assert [path.name for path in folder.iterdir()] == ["model.safetensors"]
    assert not any((source.cache.root / "scratch").iterdir())


def test_twice_is_once(source: Source, folder: Path, repository: Repository) -> None:
    run(source, folder)
    run(source, folder)
    assert len(repository.contributions) == 1


def test_the_folder_may_say_its_base(source: Source, tmp_path: Path) -> None:
    folder = pull(source, MODEL, "v0", tmp_path / "base").path
    (folder / "model.safetensors").write_bytes(weights(0.5))
    assert run(source, folder, None) == "accepted"


def test_a_folder_that_says_nothing_needs_a_base(source: Source, folder: Path) -> None:
    with pytest.raises(errors.InvalidRequest, match="does not say") as caught:
        run(source, folder, None)
    assert "--base" in (caught.value.hint or "")


def test_another_architecture_is_refused_by_its_tensors(
    source: Source, folder: Path, repository: Repository
) -> None:
    wide = weights(0.5, encoder_bias=(8,))
    (folder / "model.safetensors").write_bytes(wide)
    with pytest.raises(errors.IncompatibleWeights) as caught:
        run(source, folder)
    assert caught.value.tensors == ("encoder.bias",)
    assert not repository.contributions


def test_another_tokenizer_is_refused_before_the_weights(
    source: Source, folder: Path, repository: Repository
) -> None:
    repository.publish({**model_files(1), "vocab.txt": b"[PAD]\ngood\nbad\n"})
    (folder / "vocab.txt").write_bytes(b"[PAD]\nbad\ngood\n")
    with pytest.raises(errors.IncompatibleWeights, match="'good' is number 1 there"):
        run(source, folder, "v1")
    assert not repository.contributions
    (folder / "vocab.txt").write_bytes(b"[PAD]\ngood\nbad\n")
    assert run(source, folder, "v1") == "accepted"


def test_what_is_no_model_is_refused(source: Source, folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"PK\x03\x04 pickled")
    with pytest.raises(errors.MalformedWeights):
        run(source, folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(errors.BadModel):
        run(source, folder)


def test_values_that_are_not_finite_are_not_sent(
    source: Source, folder: Path, repository: Repository
) -> None:
    (folder / "model.safetensors").write_bytes(weights(float("nan")))
    with pytest.raises(errors.ContributionRejected):
        run(source, folder)
    assert not repository.contributions


def test_an_outdated_base_is_said_and_onto_latest_helps(
    source: Source, folder: Path, repository: Repository
) -> None:
    repository.publish(model_files(1.0))
    with pytest.raises(errors.BaseOutdated) as caught:
        run(source, folder)
    assert "--onto latest" in (caught.value.hint or "")
    assert run(source, folder, onto_latest=True) == "accepted"
    assert repository.received("c0") == weights(1.5)


def test_without_waiting(source: Source, folder: Path) -> None:
    assert run(source, folder, wait=False) == "completed"
