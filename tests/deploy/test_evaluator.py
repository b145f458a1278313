"""The evaluator as docker-compose.yml has it: its command, environment and health check."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy.engine import URL

from tests.deploy import compose
from tests.deploy.compose import ROOT
from tests.deploy.running import Container, Stack
from tests.e2e.programs import Server
from tests.server.measured import write_films
from tests.server.test_evaluator import patiently
from tests.tiny_models import tiny_bert

MODEL = "lab/tiny"
# Of database and bucket, which are a folder here; a container of ours is never told of one.
ELSEWHERE = ("COLDFUSION_DATABASE_URL", "COLDFUSION_SECRET", "COLDFUSION_S3_BUCKET")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "data")
    made.start()
    yield made
    made.end()


@pytest.fixture
def evaluator(server: Server, tmp_path: Path) -> Iterator[Container]:
    """The service, with the data folder of `server` in place of database and bucket."""
    subprocess.run(["sh", ROOT / "deploy" / "make-env.sh", tmp_path / "env"], check=True)
    env = compose.read_env(tmp_path / "env")
    env |= {"COMPOSE_PROFILES": "evaluator", "COLDFUSION_SUITE": "suite.yaml"}
    (tmp_path / "stack").mkdir()
    stack = Stack(tmp_path / "stack", env, URL.create("postgresql", port=5432), "127.0.0.1:9")
    (container,) = stack.containers["evaluator"]
    for name in ELSEWHERE:
        del container.environment[name]
    container.environment["COLDFUSION_DATA_DIR"] = str(server.data_dir)
    container.texts = {**container.texts, "/suites": str(tmp_path / "suites")}
    yield container
    stack.down()


def test_it_measures_is_healthy_and_ends(
    server: Server, evaluator: Container, tmp_path: Path
) -> None:
    write_films(tmp_path / "suites")
    model = str(tiny_bert(tmp_path / "pretrained"))
    server.command("model", "create", MODEL, "--from", model, "--public")
    evaluator.start()

    def scores() -> list[dict[str, object]]:
        assert evaluator.process is not None
        assert evaluator.process.poll() is None, evaluator.log
        url = f"{server.url}/v1/models/{MODEL}/bases/v0/evaluations"
        return list(httpx.get(url, trust_env=False, timeout=120).raise_for_status().json())

    (kept,) = patiently(scores, "scores")
    assert (kept["evaluator"], kept["suite"]) == ("repository", "films")
    patiently(evaluator.is_healthy, "a sign of life")
    assert evaluator.end() == 0, evaluator.log
    assert not list(evaluator.folder.glob("*.heartbeat"))
