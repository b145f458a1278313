"""Measuring bases with the real programs: posted, compared, interrupted, refused."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from coldfusion_client import Client as Python
from coldfusion_client.cli.app import app
from tests.e2e.programs import WAIT_SECONDS, Client, Server, wait_until
from tests.shared.checkpoints import file_bytes, read_file
from tests.tiny_models import tiny_bert
from tests.toy_data import LABELS, toy_dataset

MODEL = "lab/tiny"
WEIGHTS = "model.safetensors"

SEEDS = 40
MEASUREMENTS = 2 * SEEDS


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("repository")
    running = Server(folder / "data")
    running.start()
    base = tiny_bert(folder / "pretrained")
    running.command(
        "model", "create", MODEL, "--from", str(base), "--min-contributions", "1", "--public"
    )
    publish(running, base, folder)
    yield running
    running.end()


@pytest.fixture(scope="module")
def tokens(server: Server) -> dict[str, str]:
    roles = ("evaluator", "contributor")
    return {role: server.command("token", "create", f"a-{role}", "--role", role) for role in roles}


@pytest.fixture(autouse=True)
def home(
    server: Server, tokens: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """An evaluator's machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLDFUSION_SERVER", server.url)
    monkeypatch.setenv("COLDFUSION_TOKEN", tokens["evaluator"])
    for name in ("CONFIG", "CACHE"):
        monkeypatch.setenv(f"COLDFUSION_{name}", str(tmp_path / name.lower()))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def ran(*words: str) -> Ran:
        with pytest.raises(SystemExit) as ended:
            app(words, prog_name="coldfusion-client")
        printed = capsys.readouterr()
        return Ran(int(ended.value.code or 0), printed.out, printed.err)

    return ran


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    for seed, name in enumerate(("films", "plays")):
        write_data(tmp_path / "suites" / name, seed)
    file = tmp_path / "suites" / "suite.yaml"
    datasets = [{"data": "films", "seen": True}, {"data": "plays", "seen": False}]
    file.write_text(
        yaml.safe_dump({"name": tmp_path.name[:90], "datasets": datasets, "max_length": 16})
    )
    return file


def publish(server: Server, base: Path, folder: Path) -> None:
    """Contribute a model that differs a little, and wait for the base that is made of it."""
    contribute(server, MODEL, base, folder)
    wait_until(lambda: server.get(f"/models/{MODEL}")["current"] == "v1", "the second base")


def contribute(server: Server, model: str, base: Path, folder: Path) -> None:
    rng = np.random.default_rng(0)
    tensors = read_file((base / WEIGHTS).read_bytes())
    for name, values in tensors.items():
        if values.dtype == np.float32:
            tensors[name] = values + (0.005 * rng.standard_normal(values.shape)).astype(np.float32)
    (folder / "tuned").mkdir()
    (folder / "tuned" / WEIGHTS).write_bytes(file_bytes(tensors))
    token = server.command("token", "create", "ann", "--role", "contributor")
    with Python(server.url, token, cache=folder / "cache") as client:
        client.contribute(model, folder / "tuned", base="v0")


def write_data(folder: Path, seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps({"name": folder.name, "labels": LABELS}))
    for name, split in toy_dataset(train=32, seed=seed).splits.items():
        rows = zip(split["text"], split["label"], strict=True)
        lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))


def evaluations(server: Server, version: str, suite: str) -> list[dict[str, Any]]:
    found = server.get(f"/models/{MODEL}/bases/{version}/evaluations")
    return [dict(one) for one in found if one["suite"] == suite]


def test_scores_are_posted_once_with_their_errors(server: Server, run: Run, suite: Path) -> None:
    words = ("evaluate", MODEL, "--suite", str(suite), "--post")
    told = run(*words, "--json").json
    registered = server.get(f"/suites/{told['suite']}")
    assert registered["digest"] == told["suite_digest"]
    assert run(*words, "--json").json["models"] == told["models"]
    (kept,) = evaluations(server, "v1", told["suite"])
    (measured,) = told["models"]
    assert kept["average"] == pytest.approx(measured["average"])
    assert kept["standard_error"] == pytest.approx(measured["standard_error"])
    assert kept["seeds"] == [0, 1, 2]
    assert kept["scores"].keys() == kept["by_seed"].keys() == {"films", "plays"}
    assert kept["suite_digest"] == told["suite_digest"]
    # The same name for other data is refused, before anything is measured.
    write_data(suite.parent / "plays", seed=5)
    refused = run(*words)
    assert refused.code == 9
    assert "'plays'" in refused.err and "another suite" in refused.err


def test_a_contributor_may_measure_and_not_post(
    run: Run, suite: Path, tokens: dict[str, str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLDFUSION_TOKEN", tokens["contributor"])
    words = ("evaluate", MODEL, "--suite", str(suite), "--seeds", "2")
    assert run(*words, "--post").code == 4
    assert not (home / "cache").exists()
    assert run(*words).code == 0


def test_bases_are_compared_and_drawn(
    run: Run, suite: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("evaluate", MODEL, "--suite", str(suite), "--compare")
    found = run(*words, "v0", "v1", "--out", "results")
    assert found.code == 0, found.err
    assert "95% interval" in found.out
    files = {file.name: file for file in (home / "results").iterdir()}
    assert files["gain.png"].read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in files["gain.svg"].read_bytes()
    comparison = json.loads(files["comparison.json"].read_bytes())
    assert {one["name"] for one in comparison["datasets"]} == {"films", "plays"}
    # And again without the server: the scores alone are enough.
    monkeypatch.setenv("COLDFUSION_SERVER", "http://127.0.0.1:9")
    scores = [str(files[name]) for name in ("scores-before.json", "scores.json")]
    assert run(*words, *scores, "--json").json["comparison"] == comparison


def test_a_run_that_was_ended_goes_on(
    server: Server, run: Run, suite: Path, tokens: dict[str, str], home: Path
) -> None:
    # So many that it is not through when the signal comes.
    words = ("evaluate", MODEL, "--suite", str(suite), "--seeds", str(SEEDS))
    kept = home / "cache" / "evaluations" / "results"
    machine = Client(server, home, tokens["evaluator"])
    process = machine.start(*words)
    try:
        wait_until(lambda: kept.is_dir() and list(kept.glob("*.json")), "the first score")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=WAIT_SECONDS)
    finally:
        machine.end()
    assert process.returncode == 130
    assert "The same command goes on where it stopped." in said and "Traceback" not in said
    before = {file: file.stat().st_mtime_ns for file in kept.glob("*.json")}
    assert 0 < len(before) < MEASUREMENTS
    done = run(*words)
    assert done.code == 0, done.err
    after = {file: file.stat().st_mtime_ns for file in kept.glob("*.json")}
    assert len(after) == MEASUREMENTS
    assert before.items() <= after.items()


def test_a_round_waits_at_its_gate_until_its_candidates_are_measured(
    server: Server, run: Run, suite: Path, tmp_path: Path
) -> None:
    model, words = "lab/gated", ("--suite", str(suite), "--seeds", "2", "--post", "--json")
    # Posting makes the suite known, which the gate has to name.
    name = run("evaluate", MODEL, *words).json["suite"]
    base = tiny_bert(tmp_path / "pretrained")
    server.command(
        "model", "create", model, "--from", str(base), "--min-contributions", "1", "--public",
        "--gate", "suite", "--gate-suite", name, "--gate-tolerance", "100",
        "--line-search", "0.5", "--line-search", "1",
    )  # fmt: skip
    assert run("evaluate", model, "--candidate", "waiting", *words).code == 5
    contribute(server, model, base, tmp_path)

    def first() -> Any:
        return server.get(f"/models/{model}/rounds/1")

    wait_until(lambda: first()["gate"], "the gate")
    assert first()["state"] == "evaluating" and first()["gate"]["passed"] is None
    found = run("evaluate", model, "--candidate", "waiting", *words).json["candidates"]
    posted = [one["posted"] for one in found]
    assert [len(one) for one in posted] == [2, 1] and posted[0][0] == "v0"
    wait_until(lambda: server.get(f"/models/{model}")["current"] == "v1", "the next base")
    verdict = first()["gate"]
    told = {one["candidate"]: one["score"] for one in verdict["line_search"]}
    averages = {one["models"][1]["candidate"]: one["models"][1]["average"] for one in found}
    assert told == pytest.approx(averages) and len(told) == 2
    (kept,) = server.get(f"/models/{model}/bases/v1/evaluations")
    assert kept["average"] == pytest.approx(max(averages.values()))
    assert kept["negative_flips"].keys() == {"films", "plays"}
    manifest = server.get(f"/models/{model}/bases/v1")["manifest"]
    assert manifest["server_lr"] in (0.5, 1.0)
    # What was measured as a candidate needs no second download, and no second measurement.
    assert run("evaluate", model, *words).json["models"][0]["average"] == kept["average"]
