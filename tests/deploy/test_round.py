"""A whole round through docker-compose.yml: its commands, its environment, its proxy with TLS."""

from __future__ import annotations

import csv
import json
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy.engine import make_url

from coldfusion_shared.weights.digests import file_entry
from tests.deploy import compose
from tests.deploy.compose import ROOT
from tests.deploy.running import Stack, require_programs
from tests.e2e.programs import Client, Server, wait_until
from tests.s3 import rgw
from tests.server import postgres
from tests.tiny_models import tiny_bert

MODEL = "lab/tiny"
TRAINING = ("--epochs", "1", "--lr", "1e-3", "--batch-size", "8", "--max-length", "16")


@pytest.fixture(scope="module")
def store() -> Iterator[rgw.S3Server]:
    require_programs()
    with rgw.server() as server:
        yield server


@pytest.fixture(scope="module")
def stack(store: rgw.S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    subprocess.run(["sh", ROOT / "deploy" / "make-env.sh", folder / "env"], check=True)
    # As the documents say for another S3 in MinIO's place.
    env = compose.read_env(folder / "env") | {
        "COMPOSE_PROFILES": "",
        "COLDFUSION_S3_ACCESS_KEY": store.access_key,
        "COLDFUSION_S3_SECRET_KEY": store.secret_key,
    }
    make_bucket(store, env["COLDFUSION_S3_BUCKET"])
    with postgres.server() as server, postgres.database(server) as database:
        stack = Stack(folder, env, make_url(database), store.endpoint.removeprefix("http://"))
        try:
            stack.up()
            yield stack
        finally:
            stack.down()


def make_bucket(store: rgw.S3Server, name: str) -> None:
    """Make the bucket, with the rule that the documents give for stores other than MinIO."""
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=store.endpoint,
        aws_access_key_id=store.access_key,
        aws_secret_access_key=store.secret_key,
        region_name="us-east-1",
    )
    client.create_bucket(Bucket=name)
    rule = json.loads((ROOT / "deploy" / "lifecycle.json").read_text(encoding="utf-8"))
    client.put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration=rule)
    kept = client.get_bucket_lifecycle_configuration(Bucket=name)["Rules"]
    assert kept[0]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 3}
    client.close()


@pytest.fixture
def trusting(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    """A client of the API through the proxy; other programs trust its authority, too."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    wait_until(stack.authority.exists, "the proxy's authority")
    monkeypatch.setenv("SSL_CERT_FILE", str(stack.authority))
    context = ssl.create_default_context(cafile=str(stack.authority))
    with httpx.Client(base_url=stack.url, verify=context, trust_env=False, timeout=120) as client:
        yield client


def write_data(path: Path, word: str) -> None:
    """Sentences in which one word decides."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for number in range(60):
            said = ("good", "bad", "great")[number % 3]
            writer.writerow([f"the film was {said} {number}", int(said == word)])


def said(trusting: httpx.Client, path: str) -> dict[str, Any]:
    """Return a document; an empty one where the proxy had just asked a replica that was killed."""
    answer = trusting.get(path)
    found: dict[str, Any] = answer.json() if answer.is_success else {}
    return found


def test_a_round_through_the_proxy_while_a_replica_is_killed(
    stack: Stack, trusting: httpx.Client, tmp_path: Path
) -> None:
    (admin,) = stack.containers["admin"]
    pretrained = tiny_bert(tmp_path / "pretrained")
    create = ["model", "create", MODEL, "--from", str(pretrained), "--min-contributions", "2"]
    admin.run(*create, "--public")
    for container in stack.running():
        wait_until(container.is_healthy, f"{container.service.name} to be healthy")

    # What a client sees of the store has its public name; nothing passes through the API.
    files = trusting.get(f"/v1/models/{MODEL}/bases/v0").raise_for_status().json()
    assert files["manifest"]["version"] == "v0"
    path = f"/v1/models/{MODEL}/bases/v0/files/model.safetensors"
    redirect = trusting.get(path)
    assert redirect.status_code in (302, 307)
    assert redirect.headers["location"].startswith(f"https://{stack.s3_site}/coldfusion/")

    clients = []
    for name, word in (("ada", "good"), ("bea", "bad")):
        home = tmp_path / name
        home.mkdir()
        token = admin.run("token", "create", name, "--role", "contributor")
        write_data(home / "data.csv", word)
        clients.append(Client(Server(tmp_path, url=stack.url), home, token))
    words = ("contribute", MODEL, "--data", "data.csv", "--json", *TRAINING)
    try:
        ada, bea = (client.start(*words) for client in clients)
        wait_until(
            lambda: (
                said(trusting, f"/v1/models/{MODEL}/contributions").get("items")
                or ada.poll() is not None
            ),
            "a contribution",
        )
        stack.containers["api"][0].end(signal.SIGKILL)
        for process in (ada, bea):
            output, errors = process.communicate(timeout=300)
            assert process.returncode == 0, f"{stack.logs()}\n{errors}{output}"
        wait_until(
            lambda: said(trusting, f"/v1/models/{MODEL}").get("current") == "v1",
            f"v1\n{stack.logs()}",
        )
        pulled = clients[0].json("pull", MODEL, "--out", "base")
    finally:
        for client in clients:
            client.end()
    assert pulled["version"] == "v1"
    manifest = trusting.get(f"/v1/models/{MODEL}/bases/v1").json()["manifest"]
    assert len(manifest["contributions"]) == 2
    for file in manifest["files"]:
        mine = file_entry(clients[0].home / "base" / file["path"], file["path"])
        assert mine.sha256 == file["sha256"]

    # A replica that comes back is used again.
    first, _ = stack.containers["api"]
    first.start()
    for container in stack.running():
        wait_until(container.is_healthy, f"{container.service.name} to be healthy")


def test_the_proxy_speaks_tls_by_its_own_authority_and_sends_plain_http_there(
    stack: Stack, trusting: httpx.Client
) -> None:
    (proxy,) = stack.containers["proxy"]
    answer = trusting.get("/healthz")
    assert answer.status_code == 200
    assert "server" not in answer.headers
    url = f"http://localhost:{proxy.environment['HTTP_PORT']}/healthz"
    plain = httpx.get(url, trust_env=False, timeout=120)
    assert plain.status_code == 308
    assert plain.headers["location"].startswith("https://localhost")
    with socket.create_connection(("127.0.0.1", int(stack.site.split(":")[1])), 120) as raw:
        context = ssl.create_default_context(cafile=str(stack.authority))
        with context.wrap_socket(raw, server_hostname="localhost") as secured:
            assert secured.version() in ("TLSv1.2", "TLSv1.3")


def test_no_process_keeps_anything_outside_of_database_bucket_and_its_temporary_folder(
    stack: Stack,
) -> None:
    for container in stack.running():
        if container.service.name in ("api", "scheduler", "worker"):
            kept = {path.name for path in container.folder.iterdir()}
            allowed = {"log", "scheduler.heartbeat", "worker.heartbeat"}
            assert kept <= allowed, container.service.name
            assert '"level": "error"' not in container.log, container.log


def test_all_end_in_good_order_when_they_are_told_to(stack: Stack) -> None:
    for container in reversed(stack.running()):
        assert container.end() in (0, -signal.SIGTERM, 128 + signal.SIGTERM), container.log
        assert not list(container.folder.glob("*.heartbeat"))
