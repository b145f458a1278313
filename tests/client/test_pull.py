from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from coldfusion_client import pull as pulling
from coldfusion_client.bases import model_name, version_name
from coldfusion_client.pull import pull
from coldfusion_client.record import read_record
from coldfusion_client.source import Source
from coldfusion_shared import errors
from coldfusion_shared.schemas.bases import Manifest
from tests.client.helpers import model_files
from tests.client.repository import MODEL, Repository, once


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "model"


PROOF = {"coldfusion.json", "manifest.json", "model.sig"}


def held(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in PROOF}


def test_a_base_becomes_a_folder(source: Source, repository: Repository, out: Path) -> None:
    pulled = pull(source, MODEL, "latest", out)
    assert (pulled.version, pulled.path, pulled.updated) == ("v0", out, True)
    assert held(out) == model_files()
    said = json.loads((out / "coldfusion.json").read_text())
    assert set(said) == {"server", "digest", "manifest"}
    assert Manifest.model_validate(said["manifest"]).digest() == said["digest"]
    assert said["server"] == source.api.server


def test_by_default_the_folder_has_the_models_name(source: Source) -> None:
    assert pull(source, MODEL, "latest", None).path == Path("tiny").absolute()


def test_the_same_base_is_not_downloaded_again(
    source: Source, repository: Repository, out: Path
) -> None:
    pull(source, MODEL, "latest", out)
    repository.requests.clear()
    shutil.rmtree(source.cache.root)
    assert not pull(source, MODEL, "v0", out).updated
    assert not repository.seen("GET", "/files/")


def test_a_missing_file_is_put_back(source: Source, out: Path) -> None:
    pull(source, MODEL, "latest", out)
    (out / "config.json").unlink()
    assert pull(source, MODEL, "latest", out).updated
    assert held(out) == model_files()


def test_a_newer_base_stays_where_only_newer_ones_are_wanted(
    source: Source, repository: Repository, out: Path
) -> None:
    repository.publish(model_files(1))
    pull(source, MODEL, "latest", out)
    kept = pull(source, MODEL, "v0", out, only_newer=True)
    assert (kept.version, kept.updated) == ("v1", False)
    assert held(out) == model_files(1)
    assert pull(source, MODEL, "v0", out).updated


def test_an_older_base_is_replaced_and_what_is_not_ours_stays(
    source: Source, repository: Repository, out: Path
) -> None:
    pull(source, MODEL, "latest", out)
    (out / "notes.txt").write_text("mine")
    new = {"model.safetensors": model_files(1)["model.safetensors"], "sub/vocab.txt": b"a"}
    repository.publish(new)
    pulled = pull(source, MODEL, "latest", out)
    assert (pulled.version, pulled.updated) == ("v1", True)
    assert {path.name for path in out.iterdir()} - PROOF == {
        "model.safetensors",
        "notes.txt",
        "sub",
    }
    assert (out / "model.safetensors").read_bytes() == new["model.safetensors"]
    assert read_record(out) == read_record(out)


def test_a_replacement_that_was_killed_is_finished(
    source: Source, repository: Repository, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pull(source, MODEL, "latest", out)
    repository.publish({**model_files(1), "vocab.txt": b"a"})
    replaced = []
    real = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if target.parent == out and target.name != "coldfusion.json":
            replaced.append(target)
            if len(replaced) == 2:
                raise KeyboardInterrupt
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            pull(source, MODEL, "latest", out)
    record = read_record(out)
    assert record and record.replacing
    assert pull(source, MODEL, "latest", out).updated
    assert held(out) == {**model_files(1), "vocab.txt": b"a"}
    record = read_record(out)
    assert record and record.replacing is None


@pytest.mark.parametrize("newer", [False, True])
def test_a_persons_own_changes_are_not_overwritten(
    source: Source, repository: Repository, out: Path, newer: bool
) -> None:
    pull(source, MODEL, "latest", out)
    (out / "model.safetensors").write_bytes(b"finetuned")
    if newer:
        repository.publish(model_files(1))
    with pytest.raises(errors.Conflict, match="model.safetensors"):
        pull(source, MODEL, "latest", out)
    assert (out / "model.safetensors").read_bytes() == b"finetuned"


def test_a_change_of_the_same_size_is_noticed_before_replacing(
    source: Source, repository: Repository, out: Path
) -> None:
    pull(source, MODEL, "latest", out)
    (out / "config.json").write_bytes(b"x" * len(model_files()["config.json"]))
    repository.publish(model_files(1))
    with pytest.raises(errors.Conflict, match="config.json"):
        pull(source, MODEL, "latest", out)


@pytest.mark.parametrize("content", [None, "{}", "not json"])
def test_a_folder_of_something_else_is_refused(
    source: Source, out: Path, content: str | None
) -> None:
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    if content is not None:
        (out / "coldfusion.json").write_text(content)
    with pytest.raises(errors.InvalidRequest, match="was not pulled") as caught:
        pull(source, MODEL, "latest", out)
    assert "--out" in (caught.value.hint or "")
    assert (out / "thesis.tex").exists()


def test_a_file_in_the_way_is_refused(source: Source, out: Path) -> None:
    out.write_text("a file")
    with pytest.raises(errors.InvalidRequest):
        pull(source, MODEL, "latest", out)


def test_an_empty_folder_is_used(source: Source, out: Path) -> None:
    out.mkdir()
    assert pull(source, MODEL, "latest", out).updated


def test_a_manifest_that_its_digest_does_not_name_is_refused(
    source: Source, repository: Repository, out: Path
) -> None:
    repository.publish(model_files(1), digest="0" * 64)
    with pytest.raises(errors.DigestMismatch):
        pull(source, MODEL, "latest", out)
    assert not out.exists()


def test_another_version_than_asked_for_is_refused(
    source: Source, repository: Repository, out: Path
) -> None:
    other = repository.publish(model_files(1)).model_dump(mode="json")
    repository.faults.append(once("GET", "/bases/v0", httpx.Response(200, json=other)))
    with pytest.raises(errors.DigestMismatch):
        pull(source, MODEL, "v0", out)


def test_wrong_bytes_leave_no_folder(source: Source, repository: Repository, out: Path) -> None:
    repository.bases[-1][1]["config.json"] = b"x" * len(model_files()["config.json"])
    with pytest.raises(errors.DigestMismatch, match="config.json"):
        pull(source, MODEL, "latest", out)
    assert not out.exists()


def test_too_little_room_is_said_before_the_download(
    source: Source, repository: Repository, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3))
    with pytest.raises(errors.StorageFull) as caught:
        pull(source, MODEL, "latest", out)
    assert "COLDFUSION_CACHE" in (caught.value.hint or "")
    assert not repository.seen("GET", "/files/")


def test_what_does_not_exist_is_said(source: Source, out: Path) -> None:
    with pytest.raises(errors.ModelNotFound):
        pull(source, "demo/none", "latest", out)
    with pytest.raises(errors.BaseNotFound):
        pull(source, MODEL, "v7", out)


@pytest.mark.parametrize("name", ["tiny", "a/b/c", "../x", "a--b/c", ""])
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(errors.InvalidRequest):
        model_name(name)


@pytest.mark.parametrize("version", ["3", "v03", "newest", "v-1"])
def test_bad_versions_are_refused(version: str) -> None:
    with pytest.raises(errors.InvalidRequest):
        version_name(version)


def test_half_built_folders_are_removed(
    source: Source, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("broken disk")

    monkeypatch.setattr(pulling, "place", fail)
    with pytest.raises(OSError, match="broken"):
        pull(source, MODEL, "latest", out)
    assert list(out.parent.glob(".model*")) == []
