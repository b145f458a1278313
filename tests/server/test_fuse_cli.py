"""`coldfusion-server fuse` and `methods`: folders in, a folder, a table and drawings out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from coldfusion_server.__main__ import main
from coldfusion_shared.fusion import optimizers
from coldfusion_shared.fusion.methods import discover
from coldfusion_shared.fusion.report import Report
from tests.shared.checkpoints import BFLOAT16, Array, write_file
from tests.shared.fusion.model_folders import (
    all_files,
    finetuned,
    mean_of,
    read_model,
    tiny_tensors,
    write_model,
)

BIAS = "encoder.layer.0.dense.bias"
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ended]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs `coldfusion-server` in `tmp_path`, with its models."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLDFUSION_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    base = tiny_tensors()
    write_model(tmp_path / "base", base)
    for seed, name in enumerate(("ann", "bob", "eve")):
        write_model(tmp_path / name, finetuned(base, seed))

    def command(*arguments: str | Path) -> Ended:
        monkeypatch.setattr(sys, "argv", ["coldfusion-server", *map(str, arguments)])
        capsys.readouterr()
        code: Any = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return Ended(code, out, err)

    return command


FUSE = ("fuse", "--base", "base", "--out", "out")
MODELS = ("ann", "bob", "eve")


def failed(ended: Ended, *words: str) -> None:
    """Check that the command failed with one sentence that has `words`, and made nothing."""
    assert ended.code == 1, (ended.out, ended.err)
    assert ended.err.startswith("Error: ")
    assert len(ended.err.strip().splitlines()) <= 2
    for word in words:
        assert word in ended.err, ended.err
    assert not Path("out").exists()
    assert not list(Path().glob(".out*"))


def models(folder: Path) -> list[dict[str, Array]]:
    return [read_model(folder / name) for name in MODELS]


# What is made and shown.


def test_a_fuse_prints_a_table_and_makes_the_model(run: Run, tmp_path: Path) -> None:
    ended = run(*FUSE, *MODELS)
    assert ended.code == 0 and ended.err == ""
    lines = ended.out.splitlines()
    assert lines[0].split("  ")[0] == "CONTRIBUTION"
    for word in ("WEIGHT", "NORM", "COS TO MEAN", "ZEROS", "COS 1", "COS 3"):
        assert word in lines[0]
    for place, name in enumerate(MODELS):
        assert lines[1 + place].startswith(f"{place + 1} {name}")
        assert "0.3333" in lines[1 + place] and "+1.000" in lines[1 + place]
    assert "3 contributions fused by mean" in lines[-1] and "out" in lines[-1]
    fused = read_model(tmp_path / "out")
    assert np.array_equal(fused[BIAS], mean_of(models(tmp_path), BIAS).astype(np.float32))


def test_json_is_the_report_and_nothing_else(run: Run, tmp_path: Path) -> None:
    ended = run(*FUSE, *MODELS, "--method", "median", "--json")
    assert ended.code == 0
    assert ended.json() == json.loads((tmp_path / "out" / "fusion.json").read_text())
    assert Report.model_validate(ended.json()).recipe.method == "median"


def test_nothing_of_a_repository_is_needed_or_made(run: Run, tmp_path: Path) -> None:
    before = {path.name for path in tmp_path.iterdir()}
    assert run(*FUSE, *MODELS).code == 0
    assert run("methods").code == 0
    assert {path.name for path in tmp_path.iterdir()} - before == {"out"}
    assert not list(tmp_path.rglob("*.db"))


def test_a_report_is_written_with_its_heat_map(run: Run, tmp_path: Path) -> None:
    ended = run(*FUSE, *MODELS, "--report", "report.json", "--json")
    assert ended.code == 0
    assert json.loads((tmp_path / "report.json").read_text()) == ended.json()
    drawn = ElementTree.parse(tmp_path / "report.svg").getroot()
    assert drawn.tag.endswith("svg")


@pytest.mark.parametrize("name", ["map.png", "MAP.PNG"])
def test_a_heat_map_is_drawn_as_png(name: str, run: Run, tmp_path: Path) -> None:
    assert run(*FUSE, *MODELS, "--heatmap", name, "--no-compare").code == 0
    assert (tmp_path / name).read_bytes().startswith(PNG)


def test_a_heat_map_is_drawn_as_svg_beside_a_report(run: Run, tmp_path: Path) -> None:
    assert run(*FUSE, *MODELS, "--heatmap", "map.svg", "--report", "r.json").code == 0
    assert ElementTree.parse(tmp_path / "map.svg").getroot().tag.endswith("svg")
    assert (tmp_path / "r.json").is_file() and not (tmp_path / "r.svg").exists()


def test_the_same_fuse_draws_the_same_bytes(run: Run, tmp_path: Path) -> None:
    for name in ("a", "b"):
        run("fuse", "--base", "base", "--out", name, *MODELS, "--heatmap", f"{name}.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_many_contributions_have_no_columns_of_cosines_but_a_heat_map(
    run: Run, tmp_path: Path
) -> None:
    names = [f"c{seed:02}" for seed in range(20)]
    for seed, name in enumerate(names):
        write_model(tmp_path / name, finetuned(tiny_tensors(), seed))
    ended = run(*FUSE, *names, "--heatmap", "map.png")
    assert ended.code == 0 and "COS 1" not in ended.out
    assert (tmp_path / "map.png").read_bytes().startswith(PNG)


def test_without_comparing_no_norms_are_shown(run: Run) -> None:
    ended = run(*FUSE, *MODELS, "--no-compare")
    assert ended.code == 0 and "COS 1" not in ended.out
    assert ended.out.splitlines()[1].split()[-3:] == ["-", "-", "-"]


def test_remarks_tell_what_a_person_should_know(run: Run, tmp_path: Path) -> None:
    changed = tiny_tensors()
    changed["embeddings.position_ids"] = changed["embeddings.position_ids"] + 1
    write_model(tmp_path / "odd", changed)
    shown = run(*FUSE, "ann", "odd").out
    assert "odd changed integers" in shown and "embeddings.position_ids" in shown
    assert "odd is identical to its base" in shown


def test_what_was_left_out_is_shown(run: Run, tmp_path: Path) -> None:
    for seed in range(10, 13):
        write_model(tmp_path / str(seed), finetuned(tiny_tensors(), seed))
    shown = run(*FUSE, *MODELS, "10", "11", "12", "--method", "krum", "--param",
                    "byzantine=1").out  # fmt: skip
    assert shown.count("left out") == 5
    assert (
        "by value" in run("fuse", "--base", "base", "--out", "b", *MODELS, "--method", "ties").out
    )


@pytest.mark.parametrize("name", ["a$x^$b", "a_b^c", "<&>", "x" * 60, "a b"])
def test_names_of_every_kind_can_be_drawn(name: str, run: Run, tmp_path: Path) -> None:
    write_model(tmp_path / name, finetuned(tiny_tensors(), 7))
    assert run(*FUSE, "ann", name, "--heatmap", "map.svg").code == 0
    assert (tmp_path / "map.svg").is_file()


def test_names_in_other_scripts_can_be_drawn(run: Run, tmp_path: Path) -> None:
    write_model(tmp_path / "模型", finetuned(tiny_tensors(), 7))
    ended = run(*FUSE, "ann", "模型", "--heatmap", "map.png")
    assert ended.code == 0 and ended.err == ""


def test_a_report_is_not_overwritten_by_its_heat_map(run: Run, tmp_path: Path) -> None:
    if run(*FUSE, *MODELS, "--report", "report.svg").code == 0:
        assert json.loads((tmp_path / "report.svg").read_text())


# Options that say what is wanted.


def test_parameters_are_read_as_numbers_words_and_truths(run: Run) -> None:
    made = run(*FUSE, *MODELS, "--method", "ties", "--param", "density=0.3", "--param",
               "normalize=false", "--param", "scale=1e-1", "--json").json()  # fmt: skip
    assert made["recipe"]["parameters"] == {"density": 0.3, "normalize": False, "scale": 0.1}


def test_every_option_reaches_the_recipe(run: Run, tmp_path: Path) -> None:
    made = run(*FUSE, *MODELS, "--dare", "0.5", "--seed", "7", "--staleness-exponent", "1",
               "--server-lr", "auto", "--server-lr-cap", "2", "--optimizer", "momentum",
               "--optimizer-param", "beta=0.5", "--pull", "0.1", "--origin", "base",
               "--step-cap", "0.001",
               "--threads", "2", "--dtype", "bfloat16", "--json")  # fmt: skip
    assert made.code == 0, made.err
    assert made.json()["recipe"] == {
        "method": "mean", "parameters": {}, "dare": {"density": 0.5, "seed": 7},
        "staleness_exponent": 1.0, "optimizer": "momentum", "optimizer_parameters": {"beta": 0.5},
        "server_lr": "auto", "server_lr_cap": 2.0, "pull": 0.1, "step_cap": 0.001,
    }  # fmt: skip
    assert made.json()["dtype"] == "BF16" and made.json()["server_lr"] <= 2
    assert read_model(tmp_path / "out")[BIAS].dtype == BFLOAT16
    assert (tmp_path / "out" / "optimizer" / "momentum").is_dir()


def test_contributions_are_weighted_and_aged_by_name(run: Run, tmp_path: Path) -> None:
    write_model(tmp_path / "old", tiny_tensors(9))
    ended = run(*FUSE, *MODELS, "--method", "weighted_mean", "--weight", "ann=3", "--weight",
                "bob=0", "--age", "eve=3", "--made-from", "eve=old", "--json")  # fmt: skip
    made = ended.json()["contributions"]
    assert [item["prior"] for item in made] == [3, 0, 1]
    assert [item["weight"] for item in made] == [0.75, 0, 0.25]
    assert [item["taken"] for item in made] == [True, False, True]
    assert [item["discount"] for item in made] == [1, 1, 0.5]
    base, ann, eve = (read_model(tmp_path / name)[BIAS] for name in ("base", "ann", "eve"))
    late = (eve.astype(np.float64) - tiny_tensors(9)[BIAS]) / 2
    exact = base + 0.75 * (ann.astype(np.float64) - base) + 0.25 * late
    assert np.allclose(read_model(tmp_path / "out")[BIAS], exact, rtol=0, atol=5e-7)


def test_folders_of_one_name_are_told_apart_by_their_parents(run: Run, tmp_path: Path) -> None:
    for number in (1, 2):
        write_model(tmp_path / f"run{number}" / "final", finetuned(tiny_tensors(), number))
    made = run(*FUSE, "run1/final", tmp_path / "run2" / "final", "--age", "run1/final=1", "--json")
    assert made.code == 0, made.err
    names = [(item["name"], item["age"]) for item in made.json()["contributions"]]
    assert names == [("run1/final", 1), ("run2/final", 0)]


def test_a_scoring_command_chooses_the_soup(run: Run, tmp_path: Path) -> None:
    code = (
        "import sys, json, pathlib; folder = pathlib.Path(sys.argv[1]);"
        "assert (folder / 'config.json').is_file(); print('warming up');"
        "raw = (folder / 'model.safetensors').read_bytes(); print(-raw.count(0))"
    )
    (tmp_path / "score.py").write_text(code)
    ended = run(*FUSE, *MODELS, "--method", "greedy_soup", "--score",
                f"{sys.executable} score.py {{model}}", "--json")  # fmt: skip
    assert ended.code == 0, ended.err
    weights = [item["weight"] for item in ended.json()["contributions"]]
    assert sum(weights) == pytest.approx(1)
    assert not list(tmp_path.glob("coldfusion-*"))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("false", ["--score", "failed"]),
        ("no-such-command-here", ["--score", "failed"]),
        ("true", ["no number"]),
        ("echo good", ["no number"]),
        ("sh -c 'echo nan'", ["no score"]),
        ("", ["--score"]),
        ("echo 'unclosed", ["--score"]),
    ],
)
def test_a_scoring_command_that_fails_is_said(command: str, words: list[str], run: Run) -> None:
    failed(run(*FUSE, *MODELS, "--method", "greedy_soup", "--score", command), *words)


YAML = """
merge_method: ties
base_model: base
models:
  - {model: ann, parameters: {weight: 1.0}}
  - {model: bob, parameters: {weight: 2.0}}
parameters: {density: 0.5}
dtype: float16
"""


def test_mergekits_yaml_says_it_all(run: Run, tmp_path: Path) -> None:
    Path("merge.yml").write_text(YAML)
    ended = run("fuse", "--mergekit", "merge.yml", "--out", "out", "--json")
    assert ended.code == 0, ended.err
    made = ended.json()
    assert made["recipe"]["method"] == "ties" and made["dtype"] == "F16"
    assert [(item["name"], item["prior"]) for item in made["contributions"]] == [
        ("ann", 1), ("bob", 2)
    ]  # fmt: skip
    assert read_model(tmp_path / "out")[BIAS].dtype == np.float16


@pytest.mark.parametrize(
    "more",
    [["ann"], ["--base", "base"], ["--method", "mean"], ["--param", "density=1"],
     ["--weight", "ann=2"], ["--dare", "0.5"], ["--server-lr", "0.5"], ["--pull", "0.1"],
     ["--age", "ann=1"], ["--made-from", "ann=base"], ["--optimizer", "adam"]],
    ids=str,
)  # fmt: skip
def test_mergekits_yaml_goes_alone(more: list[str], run: Run) -> None:
    Path("merge.yml").write_text(YAML)
    failed(run("fuse", "--mergekit", "merge.yml", "--out", "out", *more), "--mergekit", "file")


def test_mergekits_yaml_goes_with_what_it_does_not_say(run: Run) -> None:
    Path("merge.yml").write_text(YAML)
    ended = run("fuse", "--mergekit", "merge.yml", "--out", "out", "--dtype", "float32",
                "--threads", "1", "--heatmap", "map.png", "--json")  # fmt: skip
    assert ended.code == 0 and ended.json()["dtype"] == "F32"


# What is refused, before anything is written.


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "magic"], ["magic"]),
        (["--optimizer", "magic"], ["magic"]),
        (["--param", "density=0.3"], ["density", "mean"]),
        (["--method", "ties", "--param", "density"], ["--param", "NAME=VALUE"]),
        (["--method", "ties", "--param", "=1"], ["--param", "NAME=VALUE"]),
        (["--method", "ties", "--param", "density=2"], ["density"]),
        (["--method", "ties", "--param", "density=NaN"], ["density"]),
        (["--method", "ties", "--param", "density=x"], ["density"]),
        (["--param", "a=1", "--param", "a=2"], ["'a'", "twice"]),
        (["--method", "trimmed_mean", "--param", "beta=0.5"], ["beta"]),
        (["--method", "krum", "--param", "byzantine=1"], ["krum", "at least"]),
        (["--method", "slerp"], ["slerp", "2"]),
        (["--method", "fisher"], ["fisher", "ann"]),
        (["--method", "greedy_soup"], ["score"]),
        (["--weight", "zoe=1"], ["--weight", "zoe", "ann, bob, eve"]),
        (["--weight", "ann=much"], ["--weight", "much"]),
        (["--weight", "ann=-1"], ["weights"]),
        (["--weight", "ann=nan"], ["weights"]),
        (["--age", "zoe=1"], ["--age", "zoe"]),
        (["--age", "ann=1.5"], ["--age", "1.5"]),
        (["--age", "ann=-1"], ["--age", "-1"]),
        (["--made-from", "zoe=base"], ["--made-from", "zoe"]),
        (["--made-from", "ann=nowhere"], ["nowhere"]),
        (["--server-lr", "0"], ["--server-lr"]),
        (["--server-lr", "much"], ["--server-lr"]),
        (["--dare", "0"], ["--dare"]),
        (["--pull", "0.5"], ["--origin"]),
        (["--pull", "2"], ["--pull"]),
        (["--dtype", "int8"], ["--dtype", "int8", "bfloat16"]),
        (["--heatmap", "map.gif"], [".png", "map.gif"]),
        (["--heatmap", "nowhere/map.png"], ["nowhere"]),
        (["--report", "nowhere/report.json"], ["nowhere"]),
        (["ann"], ["given twice"]),
        (["./ann"], ["given twice"]),
        (["nowhere"], ["nowhere"]),
        (["--mergekit", "merge.yml"], ["--mergekit"]),
    ],
    ids=str,
)
def test_what_does_not_fit_is_one_sentence(
    arguments: list[str], words: list[str], run: Run, tmp_path: Path
) -> None:
    before = all_files(tmp_path)
    failed(run(*FUSE, *MODELS, *arguments), *words)
    made = set(all_files(tmp_path)) - set(before)
    assert not made


def test_the_same_folder_by_another_path_is_found_out(run: Run, tmp_path: Path) -> None:
    failed(run(*FUSE, *MODELS, tmp_path / "ann"), "given twice")


@pytest.mark.parametrize("option", [["--report", "x.json"], ["--heatmap", "x.png"]])
def test_a_folder_where_a_file_should_go_is_said_before_the_work(
    option: list[str], run: Run, tmp_path: Path
) -> None:
    (tmp_path / option[1]).mkdir()
    failed(run(*FUSE, *MODELS, *option), option[1])


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["fuse", "--base", "base", "ann"], "--out"),
        (["fuse", "--base", "base", "--out", "out"], "base"),
        (["fuse", "--out", "out", "ann"], "base"),
        (["fuse", "--out", "out"], "base"),
        (["fuse", "--out", "out", "--base", "nowhere", "ann"], "nowhere"),
        (["fuse", "--out", "base", "--base", "base", "ann"], "not empty"),
        (["fuse", "--out", "base/config.json", "--base", "base", "ann"], "no folder"),
        (["fuse", "--out", "out", "--mergekit", "nowhere.yml"], "nowhere.yml"),
    ],
    ids=str,
)
def test_what_is_missing_is_one_sentence(arguments: list[str], word: str, run: Run) -> None:
    failed(run(*arguments), word)


def test_a_contribution_that_does_not_fit_is_named(run: Run, tmp_path: Path) -> None:
    tensors = finetuned(tiny_tensors(), 1)
    tensors[BIAS] = np.zeros(7, np.float32)
    write_model(tmp_path / "odd", tensors)
    failed(run(*FUSE, "ann", "odd"), "odd", BIAS)
    tensors[BIAS] = np.full(6, np.nan, np.float32)
    write_model(tmp_path / "odd", tensors)
    failed(run(*FUSE, "ann", "odd"), "odd", BIAS, "NaN")


def test_with_json_an_error_is_json_too(run: Run) -> None:
    ended = run(*FUSE, *MODELS, "--method", "magic", "--json")
    assert ended.code == 1
    assert ended.json()["error"]["code"] == "unknown_name"


@pytest.mark.parametrize("arguments", [["--threads", "0"], ["--threads", "x"], ["--dare", "x"],
                                       ["--nonsense"], ["--pull", "x"]])  # fmt: skip
def test_wrong_usage_is_2_and_writes_nothing(
    arguments: list[str], run: Run, tmp_path: Path
) -> None:
    before = all_files(tmp_path)
    assert run(*FUSE, *MODELS, *arguments).code == 2
    assert all_files(tmp_path) == before


def test_help_is_0(run: Run) -> None:
    for arguments in (["fuse", "--help"], ["methods", "--help"]):
        assert run(*arguments).code == 0


# The list of methods.


def test_methods_lists_every_method_and_optimizer_with_its_parameters(run: Run) -> None:
    shown = run("methods")
    assert shown.code == 0
    listed = run("methods", "--json").json()
    assert [entry["name"] for entry in listed["before"]] == ["dare"]
    registries: dict[str, Any] = {"methods": discover(), "optimizers": optimizers.discover()}
    for kind, registry in registries.items():
        assert [entry["name"] for entry in listed[kind]] == list(registry)
        for entry in listed[kind]:
            assert entry["summary"] in shown.out and entry["paper"] in shown.out
            assert f"  {entry['name']}: " in shown.out
            fields = registry[entry["name"]].parameters.model_fields
            described = {item["name"]: item["description"] for item in entry["parameters"]}
            assert described == {name: field.description for name, field in fields.items()}
            assert all(text in shown.out for text in described.values())


def test_one_method_or_optimizer_is_described(run: Run) -> None:
    shown = run("methods", "ties").out
    assert "ties: " in shown and "--param density=0.2" in shown and "krum" not in shown
    one = run("methods", "adam", "--json").json()
    assert [entry["name"] for entry in one["optimizers"]] == ["adam"]
    assert one["methods"] == [] and one["before"] == []
    assert "median: " in run("methods", "median").out
    assert "--dare" in run("methods", "dare").out


def test_an_optimizers_parameters_are_given_by_their_own_option(run: Run) -> None:
    assert "--optimizer-param beta=0.9" in run("methods", "momentum").out


def test_an_unknown_method_is_said(run: Run) -> None:
    ended = run("methods", "magic")
    assert ended.code == 1 and "magic" in ended.err and "methods lists them" in ended.err


def test_a_companion_file_of_fisher_information_is_used(run: Run, tmp_path: Path) -> None:
    names = [name for name, array in tiny_tensors().items() if array.dtype == np.float32]
    for name in MODELS:
        ones = {tensor: np.ones_like(tiny_tensors()[tensor]) for tensor in names}
        write_file(tmp_path / name / "fisher.safetensors", ones)
    assert run(*FUSE, *MODELS, "--method", "fisher").code == 0
    fused = read_model(tmp_path / "out")
    assert np.allclose(fused[BIAS], mean_of(models(tmp_path), BIAS), rtol=0, atol=1e-6)


@pytest.mark.parametrize("cap", [0.0001, 5])
def test_a_step_is_no_longer_than_its_cap_and_that_is_told(
    cap: float, run: Run, tmp_path: Path
) -> None:
    ended = run(*FUSE, *MODELS, "--step-cap", str(cap))
    assert ended.code == 0, ended.err
    report = json.loads((tmp_path / "out" / "fusion.json").read_text())
    share = report["step_norm"] / report["base_norm"]
    assert f"the base moves by {100 * share:.3g}% of its norm" in ended.out
    if cap == 5:
        assert share < 0.1 and report["step_factor"] is None and "--step-cap" not in ended.out
    else:
        assert share == pytest.approx(cap, rel=1e-9) and 0 < report["step_factor"] < 1
        assert f", scaled by {report['step_factor']:.3g} for --step-cap" in ended.out


# Options without use, and values that are none.


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--weight", "ann=3"], ["takes no weights", "weighted_mean"]),
        (["--seed", "3"], ["--seed", "--dare"]),
        (["--origin", "base"], ["--origin", "--pull"]),
        (["--server-lr-cap", "2"], ["--server-lr-cap", "auto"]),
        (["--score", "true"], ["--score", "mean"]),
        (["--age", "ann=" + "9" * 400], ["--age", "between"]),
        (["--step-cap", "0"], ["--step-cap", "greater than 0"]),
        (["--step-cap", "nan"], ["--step-cap"]),
        (["--method", "ties", "--param", "density=true"], ["density"]),
    ],
    ids=str,
)
def test_options_without_use_are_refused(options: list[str], words: list[str], run: Run) -> None:
    failed(run(*FUSE, *MODELS, *options), *words)


def test_a_name_with_an_equals_sign_can_have_a_weight(run: Run, tmp_path: Path) -> None:
    write_model(tmp_path / "x=y", finetuned(tiny_tensors(), 7))
    options = ["--method", "weighted_mean", "--weight", "x=y=3"]
    report = json.loads(run(*FUSE, "ann", "x=y", *options, "--json").out)
    assert [item["prior"] for item in report["contributions"]] == [1, 3]
