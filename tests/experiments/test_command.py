"""`python -m experiments`."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.weights.layout import SINGLE_FILE
from experiments.__main__ import main
from experiments.cache import MODEL
from experiments.faults import Fault
from experiments.presets import names, settings_of
from experiments.protocols import discover
from experiments.report import PAGE
from experiments.report.finished import Finished
from experiments.runs import RUN, begin, load, perform
from tests.experiments.conftest import Inputs

pytestmark = pytest.mark.usefixtures("one_thread")
HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "experiments.md"


def test_list_shows_every_protocol(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(discover())
    assert "Figure 4" in next(line for line in lines if line.startswith("few-shot"))


def test_run_takes_settings_and_writes_the_report(
    inputs: Inputs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("preset: tiny\nmeasuring: {train: 12}\nrounds: 1\n", encoding="utf-8")
    out = tmp_path / "run"
    status = main(
        [
            *("run", "fixed-examples", "--base", str(inputs.base), "--data", str(inputs.data)),
            *("--out", str(out), "--config", str(config), "--seeds", "1", "--device", "cpu"),
            *("--cache", str(inputs.cache), "--quiet"),
        ]
    )
    assert status == 0, capsys.readouterr().err
    assert capsys.readouterr().out.strip() == str(out / "report" / PAGE)
    assert (out / "report" / PAGE).is_file()
    settings = load(out).settings
    assert (settings.seeds, settings.measuring.train, settings.rounds) == (1, 12, 1)
    # What was not said is the preset's.
    assert settings.measuring.test == settings_of("tiny", "fixed-examples", {}).measuring.test


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "nonsense"], "No experiment is named 'nonsense'"),
        (["run", "methods", "--server", "http://127.0.0.1:9"], "cannot be fused by a server"),
        (["run", "main", "--server", "http://127.0.0.1:9"], "--model go together"),
        (["run", "main", "--seeds", "0"], "Setting seeds"),
    ],
)
def test_mistakes_are_told_in_a_sentence(
    words: list[str],
    said: str,
    inputs: Inputs,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = [
        "--base",
        str(inputs.base),
        "--data",
        str(inputs.data),
        "--out",
        str(tmp_path / "run"),
    ]
    assert main([*words, *places, "--preset", "tiny", "--device", "cpu"]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_protocol_that_the_how_to_shows_runs(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = HOW_TO.read_text(encoding="utf-8")
    [source] = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    monkeypatch.setattr(discover(), "_entries", dict(discover()._entries))
    exec(compile(source, HOW_TO, "exec"), {})
    begin(tmp_path, "pull", "tiny", inputs.base, inputs.data, {"rounds": 1}, "cpu")
    perform(tmp_path, inputs.cache, quiet=True)
    assert Finished.of(tmp_path).arms == ["pretrained", "pull 0", "pull 0.1", "pull 0.3"]


def test_a_cache_without_its_weights_is_enough_to_go_on(inputs: Inputs, tmp_path: Path) -> None:
    def run(name: str, seeds: int) -> Path:
        out, given = tmp_path / name, {"rounds": 1, "seeds": seeds}
        begin(out, "fixed-examples", "tiny", inputs.base, inputs.data, given, "cpu")
        perform(out, tmp_path / "cache", quiet=True)
        return out

    run("first", 1)
    weights = list((tmp_path / "cache").glob(f"finetune/*/*/{MODEL}"))
    for folder in (*weights, tmp_path / "cache" / "kept"):
        shutil.rmtree(folder)
    for folder in (tmp_path / "cache").glob(f"fuse/*/*/{MODEL}"):
        shutil.rmtree(folder)
    assert Finished.of(run("second", 2)).arms == ["pretrained", "cold"]
    assert weights and not any(folder.exists() for folder in weights)


def test_a_plan_binds_no_folder(
    inputs: Inputs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = ["--base", str(inputs.base), "--data", str(inputs.data), "--out", str(tmp_path / "a")]
    command = ["run", "federated", *places, "--preset", "tiny", "--device", "cpu", "--quiet"]
    for seeds in ("1", "2"):
        assert main([*command, "--seeds", seeds, "--plan"]) == 0, capsys.readouterr().err
        assert "minutes in all" in capsys.readouterr().out
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (KeyboardInterrupt(), 130, "Interrupted. Go on with: python -m experiments resume '{}'\n"),
        (Fault("No GPU.", "Buy one."), 1, "Error: No GPU.\nBuy one.\n"),
    ],
)
def test_what_ended_a_run_is_told_with_what_to_do(
    error: BaseException,
    status: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    run = tmp_path / "my run"
    run.mkdir()
    (run / RUN).touch()
    monkeypatch.setattr("experiments.runs.perform", fail)
    assert main(["resume", str(run)]) == status
    assert capsys.readouterr().err == said.format(run)


def test_a_run_without_a_report(inputs: Inputs, tmp_path: Path) -> None:
    begin(tmp_path, "fixed-examples", "tiny", inputs.base, inputs.data, {"seeds": 1}, "cpu")
    cache = ["--cache", str(inputs.cache)]
    assert main(["resume", str(tmp_path), "--no-report", "--quiet", *cache]) == 0
    assert Finished.of(tmp_path).arms and not (tmp_path / "report").exists()


@pytest.mark.parametrize("count", ["0", "-1", "some"])
def test_a_number_of_processes_is_one_at_least(
    count: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["resume", str(tmp_path), f"--jobs={count}"])
    assert "no number of processes" in capsys.readouterr().err


def test_resume_without_a_run_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["resume", str(tmp_path)]) == 1
    assert "python -m experiments run" in capsys.readouterr().err


def test_pretrain_makes_a_base_of_the_texts_alone(
    inputs: Inputs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "fresh"
    places = ["--base", str(inputs.base), "--data", str(inputs.data), "--out", str(out)]
    command = ["pretrain", *places, "--preset", "tiny", "--device", "cpu"]
    assert main(command) == 0, capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["fresh"]
    begin(tmp_path / "run", "main", "tiny", out, inputs.data, {}, "cpu")
    ours, theirs = (load_file(folder / SINGLE_FILE) for folder in (inputs.base, out))
    words = "embeddings.word_embeddings.weight"
    assert ours[words].shape == theirs[f"bert.{words}"].shape
    assert not ours[words].equal(theirs[f"bert.{words}"])
    assert main(command) == 1
    assert "not empty" in capsys.readouterr().err


@pytest.mark.parametrize("preset", names())
def test_presets_have_settings_for_every_protocol(preset: str) -> None:
    for protocol in discover():
        settings = settings_of(preset, protocol, {})
        # Each data set is dealt out at least once in a line of `main` with the 22 data sets.
        if protocol == "main" and preset != "tiny":
            assert settings.rounds * settings.contributors >= 22


def test_settings_in_a_preset_are_merged_part_by_part() -> None:
    usual, given = settings_of("tiny", "main", {}), {"learning": {"epochs": 3}}
    found = settings_of("tiny", "main", given)
    assert found.learning.epochs == 3 and found.learning.lr == usual.learning.lr
    with pytest.raises(InvalidRequest, match="learning.epochs"):
        settings_of("tiny", "main", {"learning": {"epochs": -1}})
