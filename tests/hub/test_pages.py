"""The README's example of HF_ENDPOINT and docs/how-to/hub.md, run as they stand there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from coldfusion_server.services import models
from coldfusion_server.services.closing import close_due
from coldfusion_shared.schemas.models import Policy
from tests.e2e.programs import BIN, WAIT_SECONDS, Server, wait_until
from tests.faults.models import finetuned
from tests.server.repository import ANY_UPDATE, body_of, repository
from tests.shared.checkpoints import file_bytes
from tests.tiny_models import tiny_bert

ROOT = Path(__file__).parents[2]
HUB = (ROOT / "docs" / "how-to" / "hub.md").read_text(encoding="utf-8")
GET, _, CONTRIBUTE = HUB.partition("## Contribute")
README = (ROOT / "README.md").read_text(encoding="utf-8").partition("Hugging Face Hub")[2]
MODEL = "acme/encoder"
UNDECIDED = {"declared", "completed", "accepted"}

TRAINING = """
import torch

def finetune(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1e-3 * torch.randn_like(parameter))
    return model
"""
# Each part as a program of its own, in one process: transformers takes long to import.
PARTS = """
import json, pathlib, sys
for text in json.loads(pathlib.Path(sys.argv[1]).read_text()):
    names = {"__name__": "__main__"}
    exec(compile(text, "a page", "exec"), names)
    print(json.dumps({name: value for name, value in names.items() if isinstance(value, str)}))
"""


def parts(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


@dataclass
class Reader:
    """Somebody who types what the pages show, at the server's data folder; `base` is v3."""

    server: Server
    home: Path
    token: str
    base: Path

    def run(self, *command: str) -> str:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
        ended = subprocess.run(
            command,
            cwd=self.home,
            env={
                **kept,
                "HOME": str(self.home),
                "PATH": os.pathsep.join([str(BIN), os.environ["PATH"]]),
                "COLDFUSION_DATA_DIR": str(self.server.data_dir),
                "HF_ENDPOINT": self.server.url,
                "HF_TOKEN": self.token,
                "HF_HUB_DISABLE_TELEMETRY": "1",
                "HF_HUB_ETAG_TIMEOUT": "120",
                "HF_HUB_DOWNLOAD_TIMEOUT": "120",
                "NO_COLOR": "1",
                "NO_PROXY": "127.0.0.1",
            },
            capture_output=True,
            text=True,
            timeout=WAIT_SECONDS,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr[-4000:]
        return ended.stdout

    def shell(self, *texts: str) -> str:
        """Run what a page shows, at this server's address."""
        script = "\n".join(texts)
        for address in ("https://models.example.org", "http://localhost:8000"):
            script = script.replace(address, self.server.url)
        return self.run("bash", "-euc", script)

    def python(self, *texts: str) -> list[Any]:
        """Run parts in Python; return the strings that each of them was left with, by name."""
        (self.home / "parts.json").write_text(json.dumps(texts))
        (self.home / "parts.py").write_text(PARTS)
        said = self.run(sys.executable, "parts.py", "parts.json").splitlines()
        return [json.loads(line) for line in said if line.startswith("{")]

    def contributions(self) -> list[dict[str, Any]]:
        """Return what was pushed, once something has come of all of it."""
        listed = f"/models/{MODEL}/contributions?contributor=cyd&limit=100"

        def settled() -> Any:
            found = self.server.get(listed)["items"]
            return found if not {item["state"] for item in found} & UNDECIDED else None

        return list(wait_until(settled, "verdicts and rounds"))


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    folder = tmp_path_factory.mktemp("pages")
    pretrained = tiny_bert(folder / "pretrained")
    rules = Policy(min_contributions=1, max_staleness=20, screening=ANY_UPDATE)
    with repository(folder / "data") as made:
        models.create_model(made.ctx, MODEL, pretrained, "tests", rules, public=False)
        ann = made.contributor("ann")
        weights = load_file(pretrained / "model.safetensors")
        for number in range(3):
            raw = file_bytes(body_of(weights, number))
            ann.contribute(raw, model=MODEL, base=f"v{number}")
            made.work()
            close_due(made.ctx)
            made.work()
        token, admin = made.token("cyd"), made.token("adm", "admin")
        newest = made.get(f"/v1/models/{MODEL}/bases/v3", token)["manifest"]["files"]
    server = Server(folder / "data")
    shutil.copytree(pretrained, folder / "v3")
    for file in newest:
        shutil.copy(server.object(file["sha256"]), folder / "v3" / file["path"])
    server.start()
    server.admin = admin
    home = folder / "home"
    home.mkdir()
    (home / ".coldfusion-token").write_text(f"{token}\n")
    (home / "training.py").write_text(TRAINING)
    try:
        yield Reader(server, home, token, folder / "v3")
    finally:
        server.end()


def test_the_pages_pull_and_what_they_push_is_fused(reader: Reader) -> None:
    reader.shell(*parts(GET, "sh"))
    weights = (reader.home / "model.safetensors").read_bytes()
    assert weights == (reader.home / "base" / "model.safetensors").read_bytes()
    assert weights == (reader.base / "model.safetensors").read_bytes()
    (readme, *_), (typed, *_) = parts(README, "sh"), parts(README, "python")
    shutil.rmtree(reader.home / "base")
    reader.shell(readme)
    assert (reader.home / "base" / "config.json").exists()

    finetuned(reader.base, reader.home / "finetuned", 1)
    got, *_ = reader.python(*parts(GET, "python"), typed, *parts(CONTRIBUTE, "python"))
    digest = reader.server.get(f"/models/{MODEL}/bases/v3")["digest"]
    assert got["newest"] == digest[:40] and digest[:40] in got["folder"]
    assert json.loads(got["config"])["model_type"] == "bert"
    pushed = reader.contributions()
    assert [(item["state"], item["reason"]) for item in pushed] == [("fused", None)] * 3

    shutil.rmtree(reader.home / "finetuned")
    finetuned(reader.base, reader.home / "finetuned", 2)
    push, ask = parts(CONTRIBUTE, "sh")
    reader.shell(push)
    pushed = reader.contributions()
    assert [(item["state"], item["reason"]) for item in pushed] == [("fused", None)] * 4
    assert [item["base"] for item in pushed].count("v3") >= 3
    told = reader.shell(ask)
    assert "merged" in told and "reviews of 2025" in told and "fused in round" in told
