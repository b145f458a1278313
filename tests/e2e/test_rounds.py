"""One whole community: real processes, two rounds, kills, a rejected upload, a pulled base."""

from __future__ import annotations

import csv
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

from coldfusion_client.cli.errors import exit_code
from coldfusion_shared.weights.checkpoint import Checkpoint
from coldfusion_shared.weights.write import write_body
from tests.e2e.programs import Client, Server, wait_until
from tests.server import postgres
from tests.tiny_models import tiny_bert

MODEL = "lab/tiny"
NAMES = ("ada", "bea", "cy")
TRAINING = ("--epochs", "2", "--lr", "1e-3", "--batch-size", "8", "--max-length", "16")


@pytest.fixture(scope="module", params=["one folder", "postgresql and s3"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("repository")
    if request.param == "one folder":
        yield from _running(Server(folder / "data"), folder)
        return
    bucket = replace(request.getfixturevalue("rgw"), prefix="rounds/")
    with postgres.database(request.getfixturevalue("postgres")) as url:
        yield from _running(Server(folder / "data", bucket, url), folder)


def _running(server: Server, folder: Path) -> Iterator[Server]:
    server.start()
    pretrained = tiny_bert(folder / "pretrained")
    server.command(
        "model", "create", MODEL, "--from", str(pretrained), "--min-contributions", "3", "--public",
        "--method", "mean",
    )  # fmt: skip
    yield server
    server.end()


@pytest.fixture(scope="module")
def clients(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Client]]:
    clients = []
    for number, name in enumerate(NAMES):
        home = tmp_path_factory.mktemp(name)
        token = server.command("token", "create", name, "--role", "contributor")
        _write_data(home / "data.csv", number)
        clients.append(Client(server, home, token))
    yield clients
    for client in clients:
        client.end()


def test_two_rounds_with_a_killed_client_a_killed_server_and_a_rejected_upload(
    server: Server, clients: list[Client], tmp_path: Path
) -> None:
    ada, bea, cy = clients

    # Round 1. Ada's client is killed in the middle of its work and started again.
    killed = ada.start("contribute", MODEL, "--data", "data.csv", "--output", "run", *TRAINING)
    wait_until(lambda: (ada.home / "run").exists() or killed.poll() is not None, "the run's folder")
    killed.kill()
    killed.communicate()
    others = [
        client.start("contribute", MODEL, "--data", "data.csv", "--json", *TRAINING)
        for client in (bea, cy)
    ]
    again = ada.json("contribute", MODEL, "--data", "data.csv", "--output", "run", *TRAINING)
    # If the others were quicker, the round has closed with it.
    assert again["state"] in ("accepted", "fused")
    for process in others:
        output, errors = process.communicate()
        assert process.returncode == 0, errors + output
    wait_until(lambda: server.get(f"/models/{MODEL}")["current"] == "v1", "v1")
    _check_round(server, "v1", expected=3)

    # The finetuned model with its head stays with its contributor, ready for use.
    assert (ada.home / "run" / "model.safetensors").is_file()

    # A third run of the same command has nothing left to do, and contributes nothing twice.
    repeated = ada.run("contribute", MODEL, "--data", "data.csv", "--output", "run", *TRAINING)
    mine = server.get(f"/models/{MODEL}/contributions?contributor=ada")["items"]
    assert [item["state"] for item in mine if item["base"] == "v0"] == ["fused"], repeated.stderr

    # Round 2. The server is killed and started again; nothing accepted is lost.
    if len(mine) == 1:
        assert ada.json("contribute", MODEL, "--data", "data.csv", *TRAINING)["state"] == "accepted"
    server.end(signal.SIGKILL)
    server.start()
    assert server.get(f"/models/{MODEL}")["accepted"] == 1

    # What has NaN in it is refused at home already, and rejected by the server if it is sent all
    # the same; the round goes on without it.
    broken = _broken_model(bea, tmp_path / "broken")
    refused = bea.run("push", MODEL, str(broken), "--base", "v1")
    assert refused.returncode == exit_code("contribution_rejected"), refused.stderr
    assert "NaN" in refused.stderr and "Traceback" not in refused.stderr
    sent = bea.send_raw(MODEL, "v1", _body_of(server, "v1", broken, tmp_path / "body"))
    rejected = wait_until(
        lambda: (item := server.get(f"/contributions/{sent}"))["state"] == "rejected" and item,
        "the rejection",
    )
    assert "NaN" in rejected["reason"]
    assert server.get(f"/models/{MODEL}")["accepted"] == 1

    for client in (bea, cy):
        result = client.json("contribute", MODEL, "--data", "data.csv", *TRAINING)
        assert result["state"] in ("accepted", "fused")
    wait_until(lambda: server.get(f"/models/{MODEL}")["current"] == "v2", "v2")
    _check_round(server, "v2", expected=3)

    # Anybody pulls the result and loads it.
    pulled = cy.json("pull", MODEL, "--out", "base", "--if-newer")
    assert pulled["version"] == "v2"
    model = AutoModel.from_pretrained(cy.home / "base")
    tokens = AutoTokenizer.from_pretrained(cy.home / "base")("a text", return_tensors="pt")
    assert torch.isfinite(model(**tokens).last_hidden_state).all()
    assert cy.run("pull", MODEL, "--out", "base", "--if-newer").returncode == 3


def test_weights_of_another_architecture_are_refused_with_the_tensors_named(
    clients: list[Client], tmp_path: Path
) -> None:
    other = tiny_bert(tmp_path / "other", hidden=64)
    refused = clients[0].run("push", MODEL, str(other), "--base", "v0")
    assert refused.returncode == exit_code("incompatible_weights")
    assert "embeddings" in refused.stderr and "Traceback" not in refused.stderr


def _check_round(server: Server, version: str, expected: int) -> None:
    """Compare a base with the float64 mean of its inputs, rounded once."""
    base = server.get(f"/models/{MODEL}/bases/{version}")["manifest"]
    assert len(base["contributions"]) == expected
    inputs = [
        load_file(server.object(item["files"][0]["sha256"])) for item in base["contributions"]
    ]
    digests = {file["path"]: file["sha256"] for file in base["files"]}
    fused = load_file(server.object(digests["model.safetensors"]))
    values = mismatches = 0
    for name in inputs[0]:
        mean = torch.stack([item[name].double() for item in inputs]).mean(0).float().numpy()
        ours = fused[name].numpy()
        np.testing.assert_array_max_ulp(ours, mean, maxulp=1)
        values += mean.size
        mismatches += int((ours != mean).sum())
    assert mismatches <= 0.001 * values


def _body_of(server: Server, version: str, model: Path, folder: Path) -> Path:
    """The body's weights of a finetuned model, as the client would send them."""
    files = server.get(f"/models/{MODEL}/bases/{version}")["manifest"]["files"]
    weights = next(file for file in files if file["path"] == "model.safetensors")
    folder.mkdir()
    with (
        Checkpoint.from_folder(model) as finetuned,
        Checkpoint.from_file(server.object(weights["sha256"])) as base,
    ):
        write_body(finetuned, base, folder / "model.safetensors")
    return folder / "model.safetensors"


def _broken_model(client: Client, folder: Path) -> Path:
    """A finetuned model in which one value is not a number."""
    run = client.home / "run" if (client.home / "run").exists() else _run(client)
    # Without the run's journal, by which the client would know it again.
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns(".coldfusion"))
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "dense.weight" in name)
    weights[name].view(-1)[0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _run(client: Client) -> Path:
    return next(path.parent for path in client.home.rglob("config.json") if "runs" in str(path))


def _write_data(path: Path, number: int) -> None:
    """Sentences in which one word decides; another word for each contributor."""
    rng = np.random.default_rng(number)
    words = ["the", "cat", "dog", "house", "is", "good", "bad", "red"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for _ in range(80):
            chosen = rng.choice(words, 6)
            writer.writerow([" ".join(chosen), int(words[number] in chosen)])
