"""The hub's real clients push through the hub door, and what they send is fused."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from coldfusion_server.services import models
from coldfusion_server.services.closing import close_by_hand
from coldfusion_server.storage.s3.connection import S3Options
from coldfusion_server.storage.s3.store import S3Store
from coldfusion_shared.schemas.models import Policy
from coldfusion_shared.weights.layout import SINGLE_FILE
from tests.hub.clients import NEWEST, OLD, ONE, ROOT, HubClient, door
from tests.server.repository import ANY_UPDATE, MODEL, Repository, body_of, repository
from tests.shared.checkpoints import Array, read_file, write_file

SCRIPTS = ROOT / "tests" / "hub"
# Xet is for tests/hub/test_xet_clients.py.
PLAIN = {"HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"}
# More than S3 takes in one part.
WIDE = "demo/wide"


def fill(repo: Repository, pretrained: Path) -> Repository:
    policy = Policy(screening=ANY_UPDATE, min_contributions=100, max_staleness=5)
    models.create_model(repo.ctx, MODEL, pretrained, "tests", policy, public=True)
    return repo


@pytest.fixture(scope="module")
def near(tmp_path_factory: pytest.TempPathFactory, pretrained: Path) -> Iterator[Repository]:
    """A Repository on a disk."""
    with repository(tmp_path_factory.mktemp("near") / "data") as repo:
        yield fill(repo, pretrained)


@pytest.fixture(scope="module")
def far(
    tmp_path_factory: pytest.TempPathFactory, pretrained: Path, rgw: S3Options
) -> Iterator[Repository]:
    """The same with its objects in a bucket."""
    store = S3Store(replace(rgw, prefix=f"{secrets.token_hex(8)}/"))
    with repository(tmp_path_factory.mktemp("far") / "data", store=store) as repo:
        yield fill(repo, pretrained)


def finetuned(folder: Path, pretrained: Path, seed: int) -> Path:
    """Write a model folder with weights that `seed` decides."""
    shutil.copytree(pretrained, folder)
    weights = read_file((pretrained / SINGLE_FILE).read_bytes())
    write_file(folder / SINGLE_FILE, {**weights, **body_of(weights, seed)})
    return folder


def fused(repo: Repository, contributor: str, model: str = MODEL) -> list[dict[str, Any]]:
    """Let the round be fused, and return what the contributor gave to it, oldest first."""
    repo.work()
    before = repo.get(f"/v1/models/{model}")["current"]
    close_by_hand(repo.ctx, model, "open", repo.principal("max", "maintainer"))
    repo.work()
    now = repo.get(f"/v1/models/{model}")["current"]
    assert now != before
    path = f"/v1/models/{model}/contributions?contributor={contributor}"
    made = list(reversed(repo.get(path)["items"]))
    assert [item["state"] for item in made] == ["fused"] * len(made)
    assert repo.ctx.store.pending_uploads() == []
    return made


@pytest.mark.parametrize(("place", "version"), [("near", NEWEST), ("far", ONE), ("near", OLD)])
def test_what_a_hub_client_pushes_is_fused(
    place: str, version: str, pretrained: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    repo: Repository = request.getfixturevalue(place)
    name = f"client-{version}"
    seed = int(10 * float(version))
    folders = [finetuned(tmp_path / str(n), pretrained, seed + n) for n in range(3)]
    (folders[2] / "training_args.bin").write_bytes(b"\x80\x02}")
    with door(repo) as url:
        client = HubClient(url, tmp_path / "home", version, repo.token(name), PLAIN)
        found = client.script(SCRIPTS / "push_all.py", MODEL, *folders)
    assert found["version"].startswith(version)
    numbers = [int(revision.removeprefix("refs/pr/")) for revision in found["revisions"]]
    assert found["urls"] == [f"{url}/{MODEL}/discussions/{number}" for number in numbers]
    assert found["listed"][:2] == [[numbers[1], "A file"], [numbers[0], "A folder"]]
    assert found["status"] == "open" and found["said"][0] == "Made by hand"
    assert "waits for its screening" in found["said"][1] and "+oid sha256:" in found["diff"]
    failures = found["failures"]
    for what, words in {
        "main": "create_pr=True",
        "pickle": "pickle",
        "no weights": "no weights in this push",
        "again": "none",
        "new": "operator",
        "token": "401",
        "comment": "withdraw",
        "merge": "merged by this Repository",
    }.items():
        assert words in failures[what], (what, failures[what])
    made = fused(repo, name)
    assert len(made) == 2 and made[1]["base"] == "v0"
    assert made[0]["work"]["client"].startswith(f"huggingface_hub {version}")
    assert [len(item["files"]) for item in made] == [1, 1]


def test_large_weights_go_to_the_bucket_in_parts(far: Repository, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    tensors: dict[str, Array] = {"layer.weight": rng.standard_normal((1600, 1000)).astype("f4")}
    far.model(WIDE, tensors)
    folder = tmp_path / "wide"
    write_file(folder / SINGLE_FILE, body_of(tensors, 4))
    with door(far) as url:
        client = HubClient(url, tmp_path / "home", token=far.token("wil"), settings=PLAIN)
        done = client.hf("upload", WIDE, folder, "--create-pr", "--commit-message", "Wide")
        assert done.returncode == 0, done.stderr
        (shown,) = re.findall(r"http\S+", done.stdout)
        # People click on it.
        assert httpx.get(shown, follow_redirects=True, timeout=120).text.count("wil")
    assert fused(far, "wil", WIDE)[0]["work"]["settings"]["title"] == "Wide"


def test_transformers_and_peft_push_what_they_finetuned(near: Repository, tmp_path: Path) -> None:
    with door(near) as url:
        client = HubClient(url, tmp_path, token=near.token("tim"), settings=PLAIN)
        numbers = client.script(SCRIPTS / "push_finetuned.py", MODEL, "v0")
    head = near.get(f"/v1/models/{MODEL}")["current"]
    made = fused(near, "tim")
    assert [item["work"]["settings"]["pull request"] for item in made] == numbers
    told = [(item["encoding"], item["base"]) for item in made]
    assert told == [("full", head), ("lora", "v0"), ("full", head)]
