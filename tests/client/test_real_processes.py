from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load

from coldfusion_shared.data import load_dataset
from coldfusion_shared.finetune import FinetuneSettings, finetune
from coldfusion_shared.finetune.checkpoints import MARKER
from tests.client.repository import MODEL, TOKEN, Repository, served
from tests.tiny_models import tiny_bert
from tests.toy_data import WORDS

ROOT = Path(__file__).parents[2]
# A locale in which Python takes the names of files for ASCII.
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0"}
SETTINGS = FinetuneSettings(epochs=40, lr=1e-3, batch_size=8, max_length=16, early_stopping=False)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny_bert(tmp_path / "base")


@pytest.fixture
def films(tmp_path: Path) -> Path:
    for part, count in (("train", 64), ("validation", 20), ("test", 20)):
        rows = [{"text": f"{part} {i} {WORDS[i % 2][i % 3]}", "label": i % 2} for i in range(count)]
        (tmp_path / "films").mkdir(exist_ok=True)
        file = tmp_path / "films" / f"{part}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "films"


@pytest.fixture
def repository(base: Path) -> Repository:
    files = {path.name: path.read_bytes() for path in base.iterdir()}
    return Repository(files, part_size=1_000_000)


@pytest.fixture
def url(repository: Repository) -> Iterator[str]:
    with served(repository.handle) as address:
        yield address


def start(
    url: str, films: Path, output: Path, *changed: str, launcher: tuple[str, ...] = ()
) -> subprocess.Popen[str]:
    command = [
        *(sys.executable, *launcher, "-m", "coldfusion_client", "contribute", MODEL),
        *("--server", url, "--data", str(films), "--output", str(output), "--epochs", "40"),
        *("--lr", "1e-3", "--batch-size", "8", "--max-length", "16", "--no-early-stopping"),
        *changed,
    ]
    environment = {**os.environ, "COLDFUSION_TOKEN": TOKEN, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.usefixtures("one_thread")
def test_killed_in_the_middle_of_training_the_same_command_goes_on(
    url: str, repository: Repository, base: Path, films: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    with start(url, films, output) as killed:
        while not list(output.glob(f".coldfusion/checkpoints/*/{MARKER}")):
            assert killed.poll() is None, killed.communicate()
            time.sleep(0.01)
        killed.kill()
        killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert repository.contributions == {}

    with start(url, films, output) as resumed:
        _, told = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, told
    found = re.search(r"Going on after step (\d+)\.", told)
    assert found and 0 < int(found[1]) < 320

    undisturbed = tmp_path / "undisturbed"
    finetune(base, load_dataset(str(films)), SETTINGS, undisturbed)
    expected = (undisturbed / "model.safetensors").read_bytes()
    assert (output / "model.safetensors").read_bytes() == expected
    sent, trained = load(repository.received("c0")), load(expected)
    assert all(sent[name].equal(trained[f"bert.{name}"]) for name in sent)
    assert {path.name for path in (output / ".coldfusion").iterdir()} == {"lock", "run.json"}


def test_processes_of_torchrun_contribute_once(
    url: str, repository: Repository, films: Path, tmp_path: Path
) -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    output = tmp_path / "run"
    # Scored once more after decoding, by the process that is left.
    words = ("--max-steps", "4", "--encoding", "delta-int8", "--json")
    with start(url, films, output, *words, launcher=launcher) as both:
        result, told = both.communicate(timeout=300)
    assert both.returncode == 0, told
    # One document: the second process says nothing.
    assert json.loads(result)["contribution"] == "c0"
    assert list(repository.contributions) == ["c0"]


@pytest.mark.parametrize(("name", "locale"), [(b"gr\xfcn.csv", {}), ("grün.csv".encode(), ASCII)])
def test_data_may_have_a_name_that_is_no_text(
    url: str, repository: Repository, tmp_path: Path, name: bytes, locale: dict[str, str]
) -> None:
    file = os.fsencode(tmp_path) + b"/" + name
    try:
        Path(os.fsdecode(file)).write_text(
            "text,grün\n" + "".join(f"film {i} {WORDS[i % 2][0]},{i % 2}\n" for i in range(40)),
            encoding="utf-8",
        )
    except OSError:
        pytest.skip("this system's file names are all text")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "coldfusion_client", "contribute", MODEL, "--server", url),
            *("--data", file, "--column", "label=grün".encode(), "--dataset-name", b"gr\xfcn"),
            *("--max-steps", "2", "--max-length", "16", "--json"),
        ],
        cwd=tmp_path, capture_output=True, timeout=300,
        env={**os.environ, "COLDFUSION_TOKEN": TOKEN, "OMP_NUM_THREADS": "1", **locale},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["state"] == "accepted"
    sent = repository.contributions[told["contribution"]]
    assert sent["work"]["dataset"] == "gr\ufffdn"
    journal = json.loads((Path(told["output"]) / ".coldfusion" / "run.json").read_text("utf-8"))
    assert journal["dataset"].startswith("gr") and journal["dataset"].endswith("n")
