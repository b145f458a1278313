"""Contributions in every encoding, by the real command line to a real server, in one round."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from coldfusion_client.cli.app import app
from coldfusion_client.speeds import note_upload
from tests.e2e.programs import BIN, MODEL, Server, wait_until
from tests.shared.checkpoints import read_file
from tests.tiny_models import tiny_bert

TRAINING = ("--max-steps", "6", "--batch-size", "8", "--lr", "0.001", "--no-early-stopping")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "films.csv"
    rows = [f"the film was {w} {i},{w in ('good', 'warm')}" for i in range(30) for w in WORDS]
    file.write_text("\n".join(["text,label", *rows]))
    return file


WORDS = ("good", "bad", "warm", "cold")


class Person:
    """Somebody with a token, a cache and a folder of his own."""

    def __init__(self, server: Server, home: Path, name: str, patch: pytest.MonkeyPatch) -> None:
        self.home = home
        token = server.command("token", "create", name, "--role", "contributor")
        for key, value in {
            "COLDFUSION_SERVER": server.url,
            "COLDFUSION_TOKEN": token,
            "COLDFUSION_CONFIG": str(home / "config"),
            "COLDFUSION_CACHE": str(home / "cache"),
            "NO_PROXY": "127.0.0.1",
        }.items():
            patch.setenv(key, value)
        patch.chdir(home)

    def run(self, *arguments: str, code: int = 0) -> tuple[Any, str]:
        """Give a command; return its JSON and what it said."""
        ran = CliRunner().invoke(app, [*arguments, "--json"])
        assert ran.exit_code == code, ran.output
        return json.loads(ran.stdout), ran.stderr

    def contribute(self, films: Path, *more: str, code: int = 0) -> tuple[Any, str]:
        command = ("contribute", MODEL, "--data", str(films), "--output", str(self.home / "run"))
        return self.run(*command, *TRAINING, *more, code=code)


@pytest.fixture
def person(
    server: Server, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Person:
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name)[-40:]
    return Person(server, tmp_path, name.strip("-"), monkeypatch)


@pytest.mark.parametrize(
    ("encoding", "seed"),
    [
        ("full", "1"),
        ("delta", "2"),
        ("delta-int8", "3"),
        ("delta-sparse", "4"),
        ("delta-sign", "5"),
    ],
)
def test_each_encoding_is_accepted(
    server: Server, person: Person, films: Path, encoding: str, seed: str
) -> None:
    told, _ = person.contribute(films, "--encoding", encoding, "--seed", seed)
    assert told["state"] == "accepted"
    receipt = server.get(f"/contributions/{told['contribution']}")
    # What loses too much is sent in the next, more exact encoding.
    exact = ("full", "delta", "delta-int8", "delta-sparse", "delta-sign")
    assert receipt["encoding"] in exact[: exact.index(encoding) + 1]
    if receipt["encoding"] != "full":
        work = receipt["work"]
        assert 0 < work["relative_error"] < 0.8
        assert 0.5 < work["cosine"] < 1
        assert abs(work["score_decoded"] - work["score_after"]) <= 1.0
        whole = (person.home / "run" / "model.safetensors").stat().st_size
        assert receipt["total_bytes"] < 0.6 * whole


def test_an_adapter_is_learnt_and_sent_alone(server: Server, person: Person, films: Path) -> None:
    told, _ = person.contribute(films, "--lora", "--rank", "2", "--seed", "6")
    receipt = server.get(f"/contributions/{told['contribution']}")
    assert (receipt["state"], receipt["encoding"]) == ("accepted", "lora")
    assert [file["path"] for file in receipt["files"]] == [
        "adapter_model.safetensors", "adapter_config.json",
    ]  # fmt: skip
    # The model is whole; the adapter is known if it comes again.
    assert (person.home / "run" / "model.safetensors").is_file()
    again, _ = person.run("push", MODEL, str(person.home / "run" / "adapter"), "--base", "v0")
    assert again["id"] == told["contribution"]


def test_frozen_layers_stay_and_are_not_sent(server: Server, person: Person, films: Path) -> None:
    told, _ = person.contribute(films, "--freeze", "embeddings,layer.0", "--seed", "7")
    receipt = server.get(f"/contributions/{told['contribution']}")
    assert (receipt["state"], receipt["frozen"]) == ("accepted", ["embeddings", "layer.0"])
    ours = read_file((person.home / "run" / "model.safetensors").read_bytes())
    person.run("pull", MODEL, "--out", "base")
    before = read_file((person.home / "base" / "model.safetensors").read_bytes())
    for name, values in before.items():
        same = np.array_equal(ours[f"bert.{name}"], values)
        assert same == ("embeddings" in name or "layer.0" in name), name
    whole = (person.home / "base" / "model.safetensors").stat().st_size
    assert receipt["total_bytes"] < 0.6 * whole


def test_a_slow_connection_is_sent_less(server: Server, person: Person, films: Path) -> None:
    note_upload(person.home / "cache", server.url, 2 * 2**20, 2**20)
    told, _ = person.contribute(films, "--seed", "8")
    receipt = server.get(f"/contributions/{told['contribution']}")
    assert receipt["encoding"] != "full"


def test_what_the_model_does_not_take_is_said_before_training(
    server: Server, person: Person, films: Path
) -> None:
    server.command("model", "policy", MODEL, "--encoding", "full")
    try:
        told, _ = person.contribute(films, "--lora", code=7)
        assert told["error"]["code"] == "encoding_refused"
        assert not (person.home / "run").exists()
        dry, _ = person.contribute(films, "--encoding", "delta", "--dry-run", code=7)
        assert dry["error"]["code"] == "encoding_refused"
    finally:
        server.command("model", "policy", MODEL, "--encoding", "any")


def test_a_killed_upload_goes_on_in_the_same_encoding(
    server: Server, person: Person, films: Path
) -> None:
    command = [
        str(BIN / "coldfusion-client"), "contribute", MODEL, "--data", str(films), "--output",
        str(person.home / "run"), *TRAINING, "--seed", "9", "--encoding", "delta-int8", "--no-wait",
    ]  # fmt: skip
    first = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert first.returncode == 0, first.stderr
    assert "Encoded as delta-int8: " in first.stderr
    # The files are gone and the journal says what was declared.
    second, _ = person.contribute(films, "--seed", "9", "--encoding", "delta-int8")
    assert second["state"] == "accepted"


def test_they_are_fused_together(server: Server, person: Person, films: Path) -> None:
    pretrained = str(tiny_bert(person.home / "pretrained"))
    other = "lab/other"
    server.command("model", "create", other, "--from", pretrained, "--min-contributions", "3")
    for seed, form in enumerate(
        [("--encoding", "full"), ("--encoding", "delta-int8"), ("--lora",)]
    ):
        output = ("--output", str(person.home / f"run{seed}"), "--seed", str(seed))
        person.run("contribute", other, "--data", str(films), *output, *TRAINING, *form)
    wait_until(lambda: server.get(f"/models/{other}")["current"] == "v1", "v1")
    manifest = server.get(f"/models/{other}/bases/v1")["manifest"]
    assert [item["encoding"] for item in manifest["contributions"]] == [
        "full", "delta-int8", "lora",
    ]  # fmt: skip
    assert manifest["contributions"][1]["relative_error"] > 0
