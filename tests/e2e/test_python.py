"""Contributions from Python, by real processes: a script with the callback, and the notebook."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from coldfusion_client import Client, Work
from tests.e2e.programs import BIN, MODEL, WAIT_SECONDS, Server

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples" / "notebooks" / "contribute.ipynb"

# As a contributor writes it; the folder's name is none that ASCII holds.
SCRIPT = """
import sys
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer
from transformers import TrainingArguments
from coldfusion_client import Client, ColdFusionCallback

with Client() as client:
    folder = client.pull("lab/tiny", out="basis ü")
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
rows = [{**tokenizer("a good film"), "labels": torch.tensor(1)} for _ in range(8)]
arguments = TrainingArguments(
    "läufe 模型", max_steps=2, save_strategy="no", report_to=[], disable_tqdm=True, use_cpu=True
)
callback = ColdFusionCallback("lab/tiny")
trainer = Trainer(model, arguments, train_dataset=rows, processing_class=tokenizer,
                  callbacks=[callback])
trainer.train()
print("state", callback.contribution and callback.contribution.state)
"""


@pytest.fixture(autouse=True)
def own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads the credentials of the person who runs it, or asks a proxy."""
    monkeypatch.setenv("COLDFUSION_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def token(server: Server, request: pytest.FixtureRequest) -> str:
    return server.command("token", "create", request.node.name[:40], "--role", "contributor")


def environment(server: Server, home: Path, token: str, **more: str) -> dict[str, str]:
    ours = {
        "COLDFUSION_SERVER": server.url,
        "COLDFUSION_TOKEN": token,
        "COLDFUSION_CONFIG": str(home / "config"),
        "COLDFUSION_CACHE": str(home / "cache"),
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(home / "jupyter"),
        "OMP_NUM_THREADS": "1",
        "NO_PROXY": "127.0.0.1",
    }
    return {**os.environ, **ours, **more}


def run(command: list[str], home: Path, settings: dict[str, str]) -> str:
    ended = subprocess.run(
        command,
        cwd=home,
        env=settings,
        capture_output=True,
        encoding="utf-8",
        timeout=WAIT_SECONDS,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout + ended.stderr


def contributions(server: Server) -> list[dict[str, Any]]:
    found = server.get(f"/models/{MODEL}/contributions")["items"]
    return [dict(one) for one in found]


def test_a_model_in_memory_is_contributed_and_can_be_used_on(
    server: Server, token: str, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    with Client(server.url, token, cache=tmp_path / "cache") as client:
        folder = client.pull(MODEL, out=tmp_path / "base")
        model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3)
        with torch.no_grad():
            model.bert.embeddings.word_embeddings.weight.add_(0.001)
        work = Work(task="classification", score_before=50.0, score_after=60.5)
        contribution = client.contribute(MODEL, model, base="v0", work=work)
        assert contribution.state == "accepted"
        assert contribution.work.score_after == 60.5
        assert not any((tmp_path / "cache" / "scratch").iterdir())
        # The same weights from their folder are the same contribution.
        model.save_pretrained(tmp_path / "saved")
        assert client.contribute(MODEL, tmp_path / "saved", "v0", work=work).id == contribution.id


def test_a_trainers_script_contributes_at_its_end(
    server: Server, token: str, tmp_path: Path
) -> None:
    said = run([sys.executable, "-c", SCRIPT], tmp_path, environment(server, tmp_path, token))
    assert "state accepted" in said
    saved = tmp_path / "läufe 模型" / "coldfusion"
    assert json.loads((saved / "coldfusion.json").read_text())["finetuned"] is True
    assert (saved / "tokenizer.json").is_file()


def test_a_server_that_is_away_costs_no_training_and_push_goes_on(
    server: Server, token: str, tmp_path: Path
) -> None:
    settings = environment(server, tmp_path, token)
    with Client(server.url, token, cache=tmp_path / "cache") as client:
        client.pull(MODEL, out=tmp_path / "basis ü")
    # From here on the client is told of a port where nobody listens; the base is here already.
    pulling = SCRIPT[SCRIPT.index("with Client()") : SCRIPT.index("tokenizer =")]
    away = SCRIPT.replace(pulling, 'folder = "basis ü"\n')
    gone = {**settings, "COLDFUSION_SERVER": "http://127.0.0.1:9"}
    said = run([sys.executable, "-c", away], tmp_path, gone)
    assert "state None" in said
    assert said.count("ContributionWarning: Not contributed to lab/tiny") == 2
    command = said[said.rindex("coldfusion-client push") :].splitlines()[0]
    # What the warning says can be typed as it stands.
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    answer = run(["sh", "-c", f"{command} --json"], tmp_path, {**settings, "PATH": path})
    assert json.loads(answer)["state"] == "accepted"


def test_the_notebook_runs(server: Server, token: str, tmp_path: Path) -> None:
    before = len(contributions(server))
    copy = tmp_path / "contribute.ipynb"
    copy.write_bytes(NOTEBOOK.read_bytes())
    command = [str(BIN / "jupyter-execute"), "--inplace", "--timeout=300", str(copy)]
    run(command, tmp_path, environment(server, tmp_path, token, MODEL=MODEL))
    cells = json.loads(copy.read_text(encoding="utf-8"))["cells"]
    states = [one["state"] for one in contributions(server)]
    assert states[: len(states) - before] == ["accepted"]
    assert "'newest base': 'v0'" in json.dumps(cells[-1]["outputs"])


def test_the_notebooks_outputs_are_not_kept() -> None:
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        assert not cell.get("outputs") and not cell.get("execution_count")
