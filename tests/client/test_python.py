from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import coldfusion_client
from coldfusion_client import Client, Work
from coldfusion_client.config import Credentials, credentials_file, save_credentials
from coldfusion_shared import errors
from tests.client.helpers import Notes, model_files, weights
from tests.client.repository import MODEL, TOKEN, Repository


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url, TOKEN) as client:
        yield client


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    # A name that neither ASCII nor one code page holds.
    folder = tmp_path / "Übung 模型"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(weights(0.5, prefix="bert.", head=True))
    return folder


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = {"httpx", "pydantic", "torch", "transformers", "numpy", "typer", "rich", "platformdirs"}
    script = (
        "import sys, coldfusion_client\n"
        f"print(sorted({heavy!r} & set(sys.modules)), dir(coldfusion_client))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == f"[] {sorted(coldfusion_client.__all__)}"


def test_the_client_needs_no_torch() -> None:
    script = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from coldfusion_client import Client\n"
        "from coldfusion_shared.errors import MissingExtra\n"
        "try: from coldfusion_client import ColdFusionCallback\n"
        "except MissingExtra as error: print(error.hint)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == "Run: pip install 'coldfusion[train]'"


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Clint"):
        coldfusion_client.Clint  # noqa: B018


def test_server_and_token_are_found_as_by_the_command_line(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(errors.ConfigurationError, match="No server"):
        Client()
    save_credentials(credentials_file(), Credentials(default=url, tokens={url: TOKEN}))
    with Client() as client:
        assert (client.server, client.whoami().name) == (url, "ann")
    monkeypatch.setenv("COLDFUSION_SERVER", "http://elsewhere.test/")
    monkeypatch.setenv("COLDFUSION_TOKEN", "wrong\n")
    with Client() as client:
        assert client.server == "http://elsewhere.test"
    with Client(url) as client, pytest.raises(errors.Unauthenticated):
        client.whoami()
    with Client(url, TOKEN) as client:
        assert client.whoami().name == "ann"


def test_a_base_is_pulled(client: Client, tmp_path: Path) -> None:
    assert client.pull(MODEL) == Path("tiny").absolute()
    folder = client.pull(MODEL, "v0", tmp_path / "模型")
    assert (folder / "model.safetensors").read_bytes() == weights()
    with pytest.raises(errors.BaseNotFound):
        client.pull(MODEL, "v7")
    with pytest.raises(errors.InvalidRequest, match="names no model"):
        client.pull("tiny")


def test_a_folder_is_contributed(
    client: Client, folder: Path, repository: Repository, capfd: pytest.CaptureFixture[str]
) -> None:
    work = Work(task="classification", score_after=88.0)
    contribution = client.contribute(MODEL, folder, base="v0", work=work)
    assert contribution.state == "accepted"
    assert contribution.work.score_after == 88.0
    assert (contribution.work.client or "").startswith("coldfusion-client/")
    assert repository.received(contribution.id) == weights(0.5)
    assert client.contribution(contribution.id) == contribution
    assert capfd.readouterr() == ("", "")


def test_twice_is_once(client: Client, folder: Path, repository: Repository) -> None:
    first, second = (client.contribute(MODEL, str(folder), base="v0") for _ in range(2))
    assert first.id == second.id
    assert len(repository.contributions) == 1


def test_without_waiting_it_can_be_waited_for_later(client: Client, folder: Path) -> None:
    contribution = client.contribute(MODEL, folder, base="v0", wait=False)
    assert contribution.state == "completed"
    assert client.contribution(contribution.id, wait=True).state == "accepted"


def test_a_rejection_is_an_error_with_its_reason(
    client: Client, folder: Path, repository: Repository
) -> None:
    repository.verdict = {"state": "rejected", "reason": "Too far from the base."}
    with pytest.raises(errors.ContributionRejected, match="Too far"):
        client.contribute(MODEL, folder, base="v0")


def test_an_outdated_base_says_how_to_go_on_in_python(
    client: Client, folder: Path, repository: Repository
) -> None:
    repository.publish(model_files(1.0))
    with pytest.raises(errors.BaseOutdated) as caught:
        client.contribute(MODEL, folder, base="v0")
    assert "onto_latest=True" in (caught.value.hint or "")
    moved = client.contribute(MODEL, folder, base="v0", onto_latest=True)
    assert repository.received(moved.id) == weights(1.5)


def test_a_model_in_memory_needs_a_base(client: Client) -> None:
    with pytest.raises(errors.InvalidRequest, match="in memory") as caught:
        client.contribute(MODEL, object())  # type: ignore[arg-type]
    assert "base='v3'" in (caught.value.hint or "")


def test_what_is_no_model_is_refused(client: Client, repository: Repository) -> None:
    with pytest.raises(errors.BadModel, match="object is no transformers model"):
        client.contribute(MODEL, object(), base="v0")  # type: ignore[arg-type]
    adapted = type("PeftModel", (), {"peft_config": {}})()
    with pytest.raises(errors.BadModel) as caught:
        client.contribute(MODEL, adapted, base="v0")
    assert "merge_and_unload" in (caught.value.hint or "")
    assert not repository.contributions


def test_status_of_a_model_and_of_ours(client: Client, folder: Path) -> None:
    contribution = client.contribute(MODEL, folder, base="v0")
    found = client.status(MODEL)
    assert (found.model.current, found.round and found.round.number) == ("v0", 1)
    assert [one.id for one in found.contributions] == [contribution.id]
    own = client.status()
    assert (own.whoami.name, own.usage) == ("ann", None)
    assert json.loads(json.dumps(own.as_json()))["contributions"][0]["id"] == contribution.id
    assert [model.name for model in client.models()] == [MODEL]
    with pytest.raises(errors.ModelNotFound):
        client.status("demo/none")


def test_progress_goes_to_who_is_named(url: str, folder: Path) -> None:
    notes = Notes()
    with Client(url, TOKEN, progress=notes) as client:
        client.contribute(MODEL, folder, base="v0")
    assert sum(notes.moved) > 0


def test_progress_is_the_command_lines(
    url: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Client(url, TOKEN, progress=True) as client:
        client.contribute(MODEL, folder, base="v0")
    assert "upload:" in capsys.readouterr().err


def test_a_cache_of_ones_own(url: str, folder: Path, tmp_path: Path) -> None:
    with Client(url, TOKEN, cache=tmp_path / "eigener Çache") as client:
        client.pull(MODEL)
    assert (tmp_path / "eigener Çache" / "objects").is_dir()
