"""``evaluate``: real measurements of a tiny model, with a Repository in memory."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import yaml

from coldfusion_client import Client, subjects
from coldfusion_client.cli.app import app
from coldfusion_client.cli.scores import essence, table, told
from coldfusion_client.evaluating import evaluate
from coldfusion_client.evaluation.order import Order, Place
from coldfusion_client.evaluation.outcome import Outcome
from coldfusion_client.evaluation.posting import post
from coldfusion_client.patience import Patience
from coldfusion_client.source import Source
from coldfusion_client.subjects import BaseName
from coldfusion_shared import errors
from coldfusion_shared.data import Split
from coldfusion_shared.evaluate.protocols import Measured as OneScore
from coldfusion_shared.evaluate.protocols.frozen import Frozen
from coldfusion_shared.evaluate.results import Evaluated
from coldfusion_shared.evaluate.suite_file import SuiteFile, read_suite_file
from coldfusion_shared.schemas.bases import Manifest, ParentBase
from coldfusion_shared.schemas.evaluations import EvaluationReport, Suite, SuiteDataset
from coldfusion_shared.schemas.files import FileEntry
from coldfusion_shared.schemas.rounds import Candidate
from tests.client.helpers import Notes
from tests.client.repository import MODEL, NOW, TOKEN, Repository, once, problem, ranged, served
from tests.tiny_models import tiny_bert
from tests.toy_data import LABELS, toy_dataset

NAMES = ["films", "plays"]


class Ran:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        return self.json["error"]


Run = Callable[..., Ran]


def model_of(seed: int, folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in tiny_bert(folder, seed=seed).iterdir()}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, bytes]]:
    return [model_of(seed, tmp_path_factory.mktemp("model")) for seed in (0, 1)]


@pytest.fixture
def repository(models: list[dict[str, bytes]]) -> Repository:
    repository = Repository(models[0])
    repository.role = "evaluator"
    repository.publish(models[1])
    return repository


@pytest.fixture
def server(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with served(repository.handle) as url:
        monkeypatch.setenv("COLDFUSION_SERVER", url)
        monkeypatch.setenv("COLDFUSION_TOKEN", TOKEN)
        yield url


@pytest.fixture
def place(source: Source) -> Place:
    return Place(source.cache, source.reporter, source.api)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def ran(*arguments: str | Path) -> Ran:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            app(list(map(str, arguments)), prog_name="coldfusion-client")
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return Ran(int(ended.value.code or 0), printed.out, printed.err)

    return ran


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A suite of two data sets in the folder of its own file, which is not the current one."""
    folder = tmp_path / "suites"
    for seed, name in enumerate(NAMES):
        write_data(folder / name, seed)
    file = folder / "toy.yaml"
    datasets = [{"data": "films", "seen": True}, {"data": "plays", "seen": False}]
    file.write_text(yaml.safe_dump({"name": "toy-2", "datasets": datasets, "max_length": 16}))
    return file


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is really measured, not taken from what is kept: data set and seed."""
    done: list[str] = []
    begin = Frozen.begin

    class Counting:
        def __init__(self, measurer: Any) -> None:
            self.measurer = measurer

        def measure(self, data: Any, seed: int, tick: Any) -> OneScore:
            score = self.measurer.measure(data, seed, tick)
            done.append(f"{data.entry.name} {seed}")
            assert isinstance(score, OneScore)
            return score

    monkeypatch.setattr(Frozen, "begin", lambda *args: Counting(begin(*args)))
    return done


def write_data(folder: Path, seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps({"name": folder.name, "labels": LABELS}))
    for name, split in toy_dataset(train=32, seed=seed).splits.items():
        (folder / f"{name}.jsonl").write_text("\n".join(rows(split)))


def rows(split: Split) -> list[str]:
    pairs = zip(split["text"], split["label"], strict=True)
    return [json.dumps({"text": text, "label": label}) for text, label in pairs]


def order(suite: Path, *versions: str, **more: Any) -> Order:
    return Order(tuple(BaseName(MODEL, one) for one in versions), suite, **more)


def test_a_table_with_standard_errors_and_a_sentence(run: Run, server: str, suite: Path) -> None:
    ran = run("evaluate", MODEL, "--suite", suite)
    assert ran.code == 0, ran.err
    titles, *lines, sentence = ran.out.splitlines()
    assert titles.split("\t") == ["data set", "metric", "score", "±"]
    cells = [line.split("\t") for line in lines]
    averages = ["average", "average, seen", "average, unseen"]
    assert [row[0] for row in cells] == [*NAMES, *averages]
    scores, noise = ([float(row[place]) for row in cells] for place in (2, 3))
    assert scores[2] == pytest.approx((scores[0] + scores[1]) / 2, abs=0.11)
    assert all(error > 0 for error in noise)
    assert sentence.startswith(f"{MODEL} v1: {scores[2]:.0f}"[:12])
    assert sentence.endswith("on average over 2 data sets (frozen, 3 seeds).")


def test_what_is_measured_is_kept(
    run: Run, server: str, suite: Path, measured: list[str], repository: Repository
) -> None:
    first = run("evaluate", MODEL, "--suite", suite, "--seeds", "2", "--json")
    assert measured == ["films 0", "films 1", "plays 0", "plays 1"]
    again = run("evaluate", MODEL, "--suite", suite, "--seeds", "3", "--json")
    assert measured[4:] == ["films 2", "plays 2"]
    scores = [one.json["models"][0]["datasets"][0]["by_seed"] for one in (first, again)]
    assert scores[1][:2] == scores[0]
    # A folder with the same weights is nothing new, either.
    run("pull", MODEL, "--out", "mine")
    assert run("evaluate", "mine", "--suite", suite).code == 0
    assert len(measured) == 6


def test_a_folder_needs_no_server(
    run: Run, suite: Path, tmp_path: Path, models: list[dict[str, bytes]]
) -> None:
    folder = tmp_path / "mein 模型"
    folder.mkdir()
    for name, data in models[0].items():
        (folder / name).write_bytes(data)
    ran = run("evaluate", folder, "--suite", suite, "--seeds", "1", "--quiet")
    assert (ran.code, ran.err) == (0, "")
    assert 0 <= float(ran.out) <= 100
    both = run("evaluate", folder, "--suite", suite, "--compare", folder, folder, "--quiet")
    assert (both.code, both.out) == (0, "no difference\n")


def test_json_is_one_document(run: Run, server: str, suite: Path) -> None:
    ran = run("evaluate", MODEL, "--version", "v0", "--suite", suite, "--json")
    found = ran.json
    assert (found["suite"], found["protocol"], found["seeds"]) == ("toy-2", "frozen", [0, 1, 2])
    assert len(found["suite_digest"]) == 64
    (one,) = found["models"]
    assert (one["name"], one["model"], one["version"]) == (f"{MODEL} v0", MODEL, "v0")
    films = one["datasets"][0]
    assert films["score"] == pytest.approx(sum(films["by_seed"]) / 3)
    assert films["standard_error"] > 0 and one["standard_error"] > 0
    assert (found["comparison"], found["posted"], found["files"]) == (None, [], [])


def test_one_seed_tells_no_error(run: Run, server: str, suite: Path) -> None:
    ran = run("evaluate", MODEL, "--suite", suite, "--seeds", "1")
    assert [line.split("\t")[-1] for line in ran.out.splitlines()[1:-1]] == ["-"] * 5
    assert "±" not in ran.out.splitlines()[-1] and "1 seed)" in ran.out


def test_versions_are_compared(run: Run, server: str, suite: Path) -> None:
    words = ("evaluate", MODEL, "--suite", suite, "--compare", "v0", "v1")
    ran = run(*words)
    titles, *lines, sentence = ran.out.splitlines()
    flips = ["neg. flips", "pos. flips"]
    assert titles.split("\t") == ["data set", "metric", "v0", "v1", "difference", *flips]
    assert len(lines) == 5
    assert "v1" in sentence and "95% interval" in sentence
    found = run(*words, "--json").json
    assert [one["version"] for one in found["models"]] == ["v0", "v1"]
    assert found["comparison"]["verdict"] == run(*words, "--quiet").out.strip()
    assert "Not known" in run(*words, "--seeds", "1").out
    assert run(*words, "--seeds", "1", "--quiet").out == "not known\n"


def test_scores_of_earlier_times_are_compared(
    run: Run, server: str, suite: Path, measured: list[str]
) -> None:
    run("evaluate", MODEL, "--version", "v0", "--suite", suite, "--out", "before")
    measured.clear()
    words = ("evaluate", MODEL, "--suite", suite, "--compare", "before/scores.json")
    found = run(*words, "v1", "--json").json
    assert [one["name"] for one in found["models"]] == ["before/scores.json", f"{MODEL} v1"]
    assert len(measured) == 6
    assert run(*words, "v1", "--seeds", "2").code == 2  # not the same seeds
    damaged = Path("damaged.json")
    damaged.write_text("{}")
    assert "no scores of an evaluation" in run(*words, damaged).err
    assert run(*words, "none.json").code == 10
    (suite.parent / "films" / "test.jsonl").write_text(rows(toy_dataset(seed=9).test)[0])
    changed = run(*words, "v1", "--json")
    assert (changed.code, changed.error["code"]) == (9, "suite_changed")


def test_files_with_the_gain_over_v0(
    run: Run, server: str, suite: Path, repository: Repository
) -> None:
    out = Path("results ü")
    ran = run("evaluate", MODEL, "--suite", suite, "--out", out, "--post", "--json")
    assert ran.code == 0, ran.err
    names = {"table.md", "scores.json", "scores-before.json", "comparison.json"}
    names |= {"gain.svg", "gain.png"}
    assert {file.name for file in out.iterdir()} == names
    assert {Path(file) for file in ran.json["files"]} == {out / name for name in names}
    assert (out / "table.md").read_text().startswith("| data set | v0 | v1 |")
    scores = Evaluated.from_json((out / "scores.json").read_bytes())
    assert scores.average == ran.json["models"][1]["average"]
    comparison = json.loads((out / "comparison.json").read_bytes())
    assert comparison == ran.json["comparison"]
    # What it is only compared with was not asked for.
    assert [version for version, _ in repository.reports] == ["v1"]
    run("evaluate", MODEL, "--version", "v0", "--suite", suite, "--out", out)
    assert {file.name for file in out.iterdir()} == {"table.md", "scores.json"}


def test_a_folder_that_cannot_be_written_is_said_before_the_work(
    run: Run, server: str, suite: Path, measured: list[str]
) -> None:
    Path("taken").write_text("a file")
    assert run("evaluate", MODEL, "--suite", suite, "--out", "taken").code == 10
    assert not measured


def test_pinned_data_must_stay(run: Run, server: str, suite: Path) -> None:
    assert run("evaluate", MODEL, "--suite", suite, "--pin", "--seeds", "1").code == 0
    pinned = yaml.safe_load(suite.read_text())
    assert all(len(entry["digest"]) == 64 for entry in pinned["datasets"])
    write_data(suite.parent / "plays", seed=7)
    ran = run("evaluate", MODEL, "--suite", suite, "--json")
    assert (ran.code, ran.error["code"]) == (9, "suite_changed")
    assert "plays" in ran.error["message"] and "films" not in ran.error["message"]
    assert "--pin" in ran.error["hint"]


def test_posting_makes_the_suite_known_and_hands_the_scores_in(
    run: Run, server: str, suite: Path, repository: Repository
) -> None:
    ran = run("evaluate", MODEL, "--suite", suite, "--post")
    assert ran.code == 0, ran.err
    assert "Posted the scores of demo/tiny v1" in ran.err
    ((version, report),) = repository.reports
    assert version == "v1"
    assert report.suite_digest == repository.suites["toy-2"].digest()
    assert report.scores.keys() == report.standard_errors.keys() == set(NAMES)
    assert (report.seeds, report.protocol) == ([0, 1, 2], "frozen")
    assert report.software is not None
    assert report.software.startswith("coldfusion-client/") and " torch/" in report.software
    found = run("evaluate", MODEL, "--suite", suite, "--post", "--json").json
    assert found["posted"] == ["v1"]
    assert repository.reports[0] == repository.reports[1]


@pytest.mark.parametrize("role", ["reader", "contributor"])
def test_who_may_not_post_is_told_before_the_data_are_read(
    run: Run, server: str, repository: Repository, role: str
) -> None:
    repository.role = role
    ran = run("evaluate", MODEL, "--suite", "not there.yaml", "--post", "--json")
    assert (ran.code, ran.error["code"]) == (4, "forbidden")
    assert role in ran.error["message"] and "evaluator" in ran.error["hint"]


def test_another_suite_of_that_name_is_told_before_the_work(
    run: Run, server: str, suite: Path, repository: Repository, measured: list[str]
) -> None:
    assert run("evaluate", MODEL, "--suite", suite, "--post").code == 0
    measured.clear()
    write_data(suite.parent / "plays", seed=7)
    ran = run("evaluate", MODEL, "--suite", suite, "--post", "--json")
    assert (ran.code, ran.error["code"]) == (9, "suite_changed")
    assert "'plays'" in ran.error["message"] and "'films'" not in ran.error["message"]
    assert "eva" in ran.error["message"]
    assert not measured
    # Without --post it is nobody else's business.
    assert run("evaluate", MODEL, "--suite", suite).code == 0


GONE = problem(404, "base_not_found", "There is no base v1.")


@pytest.mark.parametrize(("method", "path"), [("GET", "/bases/v1$"), ("POST", "/evaluations$")])
def test_a_base_that_vanished_is_told_in_a_sentence(
    run: Run, server: str, suite: Path, repository: Repository, method: str, path: str
) -> None:
    gone = once(method, path, GONE)
    # It is looked at twice: before it is measured, and before its scores are posted.
    passed = iter([True] if method == "GET" else [])

    def vanished(request: httpx.Request) -> httpx.Response | None:
        looked = request.method == method and re.search(path, request.url.path) is not None
        return None if looked and next(passed, False) else gone(request)

    repository.faults.append(vanished)
    ran = run("evaluate", MODEL, "--suite", suite, "--post")
    assert ran.code == 5
    assert "demo/tiny v1 vanished while it was measured" in ran.err
    assert "the same command posts them at once" in ran.err
    # The scores are there nevertheless.
    assert ran.out.splitlines()[0].startswith("data set")
    assert bool(repository.suites) == (method == "POST")
    assert not repository.reports
    assert run("evaluate", MODEL, "--suite", suite, "--post").code == 0
    assert len(repository.reports) == 1


def test_an_interrupted_one_goes_on(
    run: Run, server: str, suite: Path, measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from coldfusion_shared.evaluate import linear

    real, left = linear.classified, 3

    def interrupted(*args: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return real(*args)

    from coldfusion_shared.evaluate.protocols import frozen

    monkeypatch.setitem(frozen.READERS, "classification", interrupted)
    ran = run("evaluate", MODEL, "--suite", suite)
    assert ran.code == 130
    assert "The same command goes on where it stopped." in ran.err
    assert measured == ["films 0", "films 1", "films 2"]
    left = 99
    assert run("evaluate", MODEL, "--suite", suite).code == 0
    assert measured[3:] == ["plays 0", "plays 1", "plays 2"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--seeds", "0"], "0 seeds"),
        (["--seeds", "101"], "101 seeds"),
        (["--protocol", "magic"], "No protocol is named 'magic'"),
        (["--version", "3"], "no version"),
        (["--compare", "v0", "nothing"], "no version"),
        (["--version", "v0", "--compare", "v0", "v1"], "names the versions itself"),
        (["--compare", "v0"], "requires 2 arguments"),
    ],
)
def test_what_makes_no_sense_is_2(
    run: Run, server: str, suite: Path, words: list[str], said: str
) -> None:
    ran = run("evaluate", MODEL, "--suite", suite, *words)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err


def test_a_folder_has_no_versions_and_no_server(run: Run, server: str, suite: Path) -> None:
    Path("mine").mkdir()
    posted = run("evaluate", "mine", "--suite", suite, "--post")
    assert posted.code == 2 and "cannot be posted" in posted.err
    version = run("evaluate", "mine", "--suite", suite, "--version", "v0")
    assert version.code == 2 and "has no versions" in version.err
    compared = run("evaluate", "mine", "--suite", suite, "--compare", "mine", "v0")
    assert compared.code == 2 and "neither a folder" in compared.err
    empty = run("evaluate", "mine", "--suite", suite)
    assert empty.code == 8
    mixed = run("evaluate", MODEL, "--suite", suite, "--compare", "v0", "mine", "--post")
    assert mixed.code == 2 and "own bases" in mixed.err


def test_a_folder_that_is_called_like_a_model(run: Run, server: str, suite: Path) -> None:
    run("pull", MODEL, "--version", "v0", "--out", MODEL)
    words = ("--suite", suite, "--seeds", "1")
    folder = run("evaluate", MODEL, *words)
    assert f"measures the folder {MODEL}" in folder.err and "Add --version latest" in folder.err
    assert f"{MODEL}: " in folder.out
    for meant in (["--version", "latest"], ["--server", server]):
        model = run("evaluate", MODEL, *words, *meant)
        assert f"{MODEL} v1: " in model.out
        assert f"the server's model {MODEL}" in model.err and f"./{MODEL}" in model.err
    plain = run("evaluate", f"./{MODEL}", *words)
    assert f"{MODEL}: " in plain.out and "This measures" not in plain.err


def test_a_name_that_is_neither(run: Run, server: str, suite: Path) -> None:
    wrong = run("evaluate", "./nowhere", "--suite", suite)
    assert wrong.code == 2 and "is no folder, and names no model" in wrong.err
    assert run("evaluate", "./nowhere", "--suite", suite, "--post").code == 2
    assert run("evaluate", "demo/other", "--suite", suite).code == 5
    assert run("evaluate", MODEL, "--suite", suite, "--version", "v9").code == 5


def test_both_bases_are_looked_for_before_one_is_measured(
    run: Run, server: str, suite: Path, measured: list[str]
) -> None:
    assert run("evaluate", MODEL, "--suite", suite, "--compare", "v0", "v9").code == 5
    assert not measured


def test_a_missing_extra_is_said(
    run: Run, server: str, suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "coldfusion_shared.evaluate.comparison", None)
    ran = run("evaluate", MODEL, "--suite", suite)
    assert ran.code == 2
    assert "pip install 'coldfusion[train]'" in ran.err


def test_a_score_that_is_no_number(
    run: Run, server: str, suite: Path, repository: Repository
) -> None:
    from safetensors.numpy import load, save

    broken = dict(repository.bases[0][1])
    tensors = load(broken["model.safetensors"])
    tensors["embeddings.word_embeddings.weight"] = tensors[
        "embeddings.word_embeddings.weight"
    ] * float("nan")
    broken["model.safetensors"] = save(tensors, {"format": "pt"})
    repository.publish(broken)
    ran = run("evaluate", MODEL, "--suite", suite, "--post", "--json")
    assert (ran.code, ran.error["code"]) == (11, "evaluation_failed")
    assert not repository.reports


def test_progress_ends_at_its_total(place: Place, suite: Path, notes: Notes) -> None:
    outcome = evaluate(order(suite, "v0", seeds=2), place)
    assert sum(one for one in notes.moved if one <= 1) == pytest.approx(4)
    assert outcome.newest.evaluated.seeds == (0, 1)
    assert essence(outcome) == f"{outcome.newest.evaluated.average:.2f}"


def test_a_table_of_two_and_of_one(place: Place, suite: Path) -> None:
    outcome = evaluate(order(suite, "v0", "v1"), place)
    titles, cells = table(outcome)
    assert all(len(row) == len(titles) for row in cells)
    alone = Outcome(outcome.measured[:1])
    titles, cells = table(alone)
    assert all(len(row) == len(titles) for row in cells)
    assert told(alone).startswith(f"{MODEL} v0: ")
    # All that was asked for is handed in.
    assert [one.version for one in post(outcome, place)] == ["v0", "v1"]


def test_names_are_short_where_that_is_enough(
    place: Place, suite: Path, tmp_path: Path, models: list[dict[str, bytes]]
) -> None:
    folders = [tmp_path / one / "model" for one in ("a", "b")]
    for folder, files in zip(folders, models, strict=True):
        folder.mkdir(parents=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)
    one, other = folders
    outcome = evaluate(Order((BaseName(MODEL, "v1"), other), suite, seeds=1), place)
    assert outcome.labels == ("v1", "model")
    outcome = evaluate(Order((one, other), suite, seeds=1), place)
    assert outcome.labels == (str(one), str(other))


def test_from_python(server: str, suite: Path, repository: Repository) -> None:
    with Client(server, TOKEN) as client:
        found = client.evaluate(MODEL, suite, "v0", seeds=2)
        assert isinstance(found, Evaluated) and found.seeds == (0, 1)
        assert not repository.reports
        assert client.evaluate(MODEL, str(suite), "v0", seeds=2, post=True) == found
        assert len(repository.reports) == 1
        assert client.evaluate(client.pull(MODEL, "v0"), suite, seeds=2) == found
        with pytest.raises(errors.InvalidRequest, match="own bases"):
            client.evaluate(Path("tiny"), suite, post=True)
        with pytest.raises(errors.BadSuite):
            client.evaluate(MODEL, "none.yaml")


@pytest.mark.parametrize(
    ("text", "found"),
    [("v3", BaseName("a/b", "v3")), ("latest", BaseName("a/b", "latest")), ("x", Path("x"))],
)
def test_what_is_compared(text: str, found: subjects.Subject) -> None:
    Path("x").mkdir()
    assert subjects.of_model("a/b", None, (text, "s.json")) == (found, Path("s.json"))


def documented(folder: Path) -> tuple[SuiteFile, SuiteFile]:
    """The suite that the page shows, and the same with nothing but what has to be said."""
    page = Path(__file__).parents[2] / "docs" / "how-to" / "evaluate.md"
    (shown,) = re.findall(r"^```yaml\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)
    file = folder / "suite.yaml"
    file.write_text(shown)
    said = read_suite_file(file)
    bare = {"name": said.name, "datasets": [{"data": one.data} for one in said.datasets]}
    file.write_text(yaml.safe_dump(bare))
    return said, read_suite_file(file)


def test_the_suite_that_the_page_shows_is_one(tmp_path: Path) -> None:
    found, usual = documented(tmp_path)
    # What it calls the usual values are those.
    for part in ("limits", "max_length", "seed", "few_shot"):
        assert getattr(found, part) == getattr(usual, part)


def test_a_failed_posting_loses_no_scores_for_programs_either(
    run: Run, server: str, suite: Path, repository: Repository
) -> None:
    repository.faults.append(once("POST", "/bases/v1/evaluations$", GONE))
    words = ("evaluate", MODEL, "--suite", suite, "--compare", "v0", "v1", "--post", "--json")
    ran = run(*words)
    assert ran.code == 5 and "demo/tiny v1 vanished" in ran.err
    found = ran.json
    assert found["error"]["code"] == "base_not_found" and found["error"]["exit_code"] == 5
    # The first of two was posted, and all that was measured is there.
    assert found["posted"] == ["v0"]
    assert [one["version"] for one in found["models"]] == ["v0", "v1"]
    again = run(*words).json
    assert again["posted"] == ["v0", "v1"] and "error" not in again
    assert again["models"] == found["models"]


def test_versions_are_those_of_the_server_whatever_folders_there_are(
    run: Run, server: str, suite: Path
) -> None:
    for folder in (MODEL, "v1", "mine"):
        run("pull", MODEL, "--version", "v0", "--out", folder)
    words = ("--suite", suite, "--seeds", "1", "--json", "--compare")
    bases = run("evaluate", MODEL, *words, "v0", "v1")
    assert [one["version"] for one in bases.json["models"]] == ["v0", "v1"]
    assert "v1 is the server's base" in bases.err and "./v1" in bases.err
    assert "v0 is the server's base" not in bases.err
    folders = run("evaluate", MODEL, *words, "./v1", MODEL)
    assert [one["version"] for one in folders.json["models"]] == [None, None]
    mixed = run("evaluate", MODEL, *words, "v0", "./v1")
    assert [one["version"] for one in mixed.json["models"]] == ["v0", None]
    # Where the model is plainly a folder there is no server that has versions.
    local = run("evaluate", "mine", *words, "v1", "./v1")
    assert [one["version"] for one in local.json["models"]] == [None, None]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["~nosuch-user/x"], 2),
        (["x" * 300], 2),
        (["a/" + "x" * 300], 2),
        ([""], 2),
        ([MODEL, "--compare", "~nosuch-user/x", "v1"], 2),
        ([MODEL, "--compare", "~nosuch-user/x.json", "v1"], 2),
        ([MODEL, "--compare", "x" * 300 + ".json", "v1"], 10),
        ([MODEL, "--compare", "", "v1"], 2),
        ([MODEL, "--out", "x" * 300], 10),
        ([MODEL, "--suite", "x" * 300], 8),
        ([MODEL, "--suite", "~nosuch-user/x"], 8),
        ([MODEL, "--suite", "."], 8),
        ([MODEL, "--suite", ""], 8),
        ([MODEL, "--seeds", "-1"], 2),
        ([MODEL, "--seeds", "9" * 30], 2),
        ([MODEL, "--protocol", "x" * 300], 2),
        ([MODEL, "--version", "v" + "9" * 300], 2),
    ],
)
def test_strange_words_end_in_a_sentence(
    run: Run, server: str, suite: Path, words: list[str], code: int
) -> None:
    # Of an option that is given twice the last one counts.
    ran = run("evaluate", "--suite", suite, *words)
    assert (ran.code, ran.out) == (code, "")
    assert len(ran.err) < 1000


def test_a_protocol_that_does_not_fit_is_told_before_the_download(
    run: Run, server: str, suite: Path, repository: Repository
) -> None:
    rows = [{"document": f"the film {n}", "summary": "good"} for n in range(20)]
    (suite.parent / "summed").mkdir()
    for split in ("train", "test"):
        (suite.parent / "summed" / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    datasets = [{"data": "films"}, {"data": "summed", "task": "seq2seq"}]
    suite.write_text(yaml.safe_dump({"name": "mixed", "datasets": datasets}))
    suited = run("evaluate", MODEL, "--suite", suite, "--json")
    assert (suited.code, suited.error["code"]) == (8, "bad_suite")
    fitting = run("evaluate", MODEL, "--suite", suite, "--protocol", "finetuned", "--json")
    assert (fitting.code, fitting.error["code"]) == (8, "bad_model")
    assert "'summed' is for the task seq2seq" in fitting.error["message"]
    assert not repository.seen("GET", r"/files/model\.safetensors")


def test_a_base_without_a_config_is_told_before_the_download(
    run: Run, server: str, suite: Path, repository: Repository
) -> None:
    files = dict(repository.bases[0][1])
    del files["config.json"]
    repository.publish(files)
    ran = run("evaluate", MODEL, "--suite", suite)
    assert ran.code == 8 and "without a config.json" in ran.err
    assert not repository.seen("GET", "/files/")


def test_all_that_is_compared_is_looked_at_before_one_is_measured(
    run: Run, server: str, suite: Path, measured: list[str]
) -> None:
    Path("empty").mkdir()
    assert run("evaluate", MODEL, "--suite", suite, "--compare", "v0", "empty").code == 8
    assert run("evaluate", MODEL, "--suite", suite, "--compare", "v0", "x.json").code == 10
    assert not measured


def test_scores_that_do_not_belong_together_are_refused_before_the_work(
    run: Run, server: str, suite: Path, measured: list[str]
) -> None:
    words = ("evaluate", MODEL, "--suite", suite)
    run(*words, "--version", "v0", "--out", "three")
    run(*words, "--version", "v0", "--seeds", "2", "--out", "two")
    measured.clear()
    three, two = "three/scores.json", "two/scores.json"
    seeds = run(*words, "--compare", two, "v1", "--json")
    assert (seeds.code, "--seeds 2" in seeds.error["hint"]) == (2, True)
    protocol = run(*words, "--compare", three, "v1", "--protocol", "finetuned", "--json")
    assert (protocol.code, "--protocol frozen" in protocol.error["hint"]) == (2, True)
    both = run(*words, "--compare", two, three, "--json")
    assert (both.code, "2 seeds" in both.error["message"]) == (2, True)
    # With itself: what nothing is measured by does not matter.
    assert run(*words, "--compare", two, two, "--quiet").out == "no difference\n"
    other = yaml.safe_load(suite.read_text())
    suite.write_text(yaml.safe_dump({**other, "max_length": 12}))
    for files in ((three, "v1"), (three, three)):
        suited = run(*words, "--compare", *files, "--json")
        assert (suited.code, suited.error["code"]) == (9, "suite_changed")
        assert "max_length differs" in suited.error["message"]
    assert not measured


def test_scores_that_were_changed_are_refused(run: Run, server: str, suite: Path) -> None:
    words = ("evaluate", MODEL, "--suite", suite)
    run(*words, "--version", "v0", "--out", "before")
    file = Path("before/scores.json")
    document = json.loads(file.read_text())
    document["results"][0]["by_seed"][0] = 99.9
    file.write_text(json.dumps(document))
    ran = run(*words, "--compare", file, "v1", "--json")
    assert (ran.code, ran.error["code"]) == (2, "invalid_request")
    assert "'films': its score of seed 0 is 99.9" in ran.error["message"]


def test_small_data_sets_are_said_to_be_drawn_with_replacement(
    run: Run, server: str, suite: Path
) -> None:
    ran = run("evaluate", MODEL, "--suite", suite, "--seeds", "1", "--out", "results")
    assert "films: there are 32 training examples" in ran.err and "with replacement" in ran.err
    assert "so few training examples of films, plays" in Path("results/table.md").read_text()
    known = run("evaluate", MODEL, "--suite", suite, "--seeds", "1", "--json").json
    films = known["models"][0]["datasets"][0]
    assert (films["train"], films["pool"], films["with_replacement"]) == (32, 32, True)


def test_what_a_kill_left_among_the_results_is_removed_once_it_is_old(
    run: Run, server: str, suite: Path
) -> None:
    results = Path("results")
    results.mkdir()
    names = (".scores.json.12.partial", ".table.md.13.partial", ".mine.12.partial")
    for name in names:
        (results / name).write_text("half")
        os.utime(results / name, (1000, 1000))
    os.utime(results / names[1])
    run("evaluate", MODEL, "--suite", suite, "--out", results, "--seeds", "1")
    left = {path.name for path in results.iterdir() if path.name.startswith(".")}
    # What another program has left stays in any case.
    assert left == set(names[1:])


def test_the_example_of_the_page_trains_as_is_usual(tmp_path: Path) -> None:
    from coldfusion_shared.evaluate.protocols import protocol_named

    said, bare = documented(tmp_path)
    assert said.training.given() and said.few_shot_training.given()
    one = SuiteDataset(
        name="a", task="a", metric="a", labels=0, train=1, validation=1, test=1, digest="0" * 64
    )
    suites = [
        Suite(name="a", datasets=[one], max_length=128, seed=13, few_shot=100, training=training)
        for training in (said.settings(), bare.settings())
    ]
    for name in ("finetuned", "few-shot"):
        protocol: Any = protocol_named(name)
        given, usual = (protocol.training(suite, 0) for suite in suites)
        assert given == usual


def test_the_servers_routes(connect: Callable[..., Any], repository: Repository) -> None:
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"items": [], "next_cursor": "7"[: len(seen) < 2] or None})

    assert list(connect(handle=handle).suites()) == []
    assert [(one.method, one.url.path) for one in seen] == [("GET", "/v1/suites")] * 2
    assert [one.url.query for one in seen] == [b"", b"cursor=7"]


# Candidates.


class Waiting:
    """Serves candidates, one for each rate, beside the bases of a repository."""

    def __init__(self, repository: Repository, files: dict[float, dict[str, bytes]]) -> None:
        self.listed = True
        self.files = {f"{number:016x}": one for number, one in enumerate(files.values(), 1)}
        pairs = zip(self.files, files, strict=True)
        self.shown = {name: self._candidate(repository, name, rate) for name, rate in pairs}
        self.reports: list[tuple[str, EvaluationReport]] = []
        repository.faults.append(self.answer)

    def _candidate(self, repository: Repository, name: str, rate: float) -> Candidate:
        base = repository.newest
        entries = [
            FileEntry(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest())
            for path, data in self.files[name].items()
        ]
        manifest = Manifest(
            model=MODEL, version="v2", created_at=NOW, files=entries, round=2, server_lr=rate,
            parent=ParentBase(version=base.version, digest=base.digest), software="test",
        )  # fmt: skip
        return Candidate(
            id=name, model=MODEL, round=2, server_lr=rate, base=base.version,
            digest=manifest.digest(), manifest=manifest, created_at=NOW,
        )  # fmt: skip

    def answer(self, request: httpx.Request) -> httpx.Response | None:
        match = re.fullmatch(rf"/v1/models/{MODEL}/candidates(?:/(\w+)(/.+)?)?", request.url.path)
        if match is None:
            return None
        if match[1] is None:
            found = [one.model_dump(mode="json") for one in self.shown.values()]
            return httpx.Response(200, json=found if self.listed else [])
        if match[1] not in self.shown:
            return problem(404, "candidate_not_found", f"There is no candidate {match[1]}.")
        return self._one(request, match[1], match[2] or "")

    def _one(self, request: httpx.Request, name: str, rest: str) -> httpx.Response:
        if rest.startswith("/files/"):
            return ranged(request, self.files[name][rest.removeprefix("/files/")])
        if request.method == "GET":
            return httpx.Response(200, json=self.shown[name].model_dump(mode="json"))
        report = EvaluationReport.model_validate_json(request.content)
        self.reports.append((name, report))
        said = {
            **report.model_dump(mode="json"), "version": None, "candidate": name, "average": 1.0,
            "evaluator": "eva", "created_at": NOW.isoformat(),
        }  # fmt: skip
        return httpx.Response(201, json=said)


@pytest.fixture
def waiting(repository: Repository, models: list[dict[str, bytes]], tmp_path: Path) -> Waiting:
    return Waiting(repository, {0.5: models[0], 1.0: model_of(2, tmp_path / "third")})


FIRST, SECOND = f"{1:016x}", f"{2:016x}"


def test_what_waits_for_its_gate_is_measured_beside_its_base_and_posted(
    run: Run,
    server: str,
    suite: Path,
    repository: Repository,
    waiting: Waiting,
    measured: list[str],
    tmp_path: Path,
) -> None:
    words = ("evaluate", MODEL, "--candidate", "waiting", "--suite", suite, "--seeds", "2")
    repository.policy = {"gate": {"kind": "suite", "suite": "toy-2"}}
    ran = run(*words, "--post", "--out", tmp_path / "out")
    assert ran.code == 0, ran.err
    assert "may not look" not in ran.err
    assert len(measured) == 3 * len(NAMES) * 2, "the base once, and each of the two"
    titles = [line for line in ran.out.splitlines() if line.startswith("data set")]
    assert len(titles) == 2 and all("neg. flips" in title for title in titles)
    ((version, of_base),) = repository.reports
    assert (version, of_base.negative_flips) == ("v1", {})
    assert [name for name, _ in waiting.reports] == [FIRST, SECOND]
    for _, report in waiting.reports:
        assert report.negative_flips.keys() == report.scores.keys() == set(NAMES)
        assert report.suite_digest == of_base.suite_digest and report.seeds == [0, 1]
        for name in NAMES:
            gained = report.scores[name] - of_base.scores[name] + report.negative_flips[name]
            assert gained >= -1e-9, "what was not lost was kept or won"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {FIRST, SECOND}
    # Again nothing is measured, and the same is posted.
    first = [*waiting.reports]
    found = run(*words, "--post", "--json").json["candidates"]
    assert len(measured) == 12 and waiting.reports == [*first, *first]
    assert [one["posted"] for one in found] == [["v1", FIRST], [SECOND]]
    assert [one["models"][1]["candidate"] for one in found] == [FIRST, SECOND]
    flips = found[0]["comparison"]["datasets"][0]["negative_flips"]
    assert flips == pytest.approx(first[0][1].negative_flips["films"])


def test_one_candidate_by_its_id(run: Run, server: str, suite: Path, waiting: Waiting) -> None:
    words = ("--suite", suite, "--seeds", "2", "--quiet")
    ran = run("evaluate", MODEL, "--candidate", SECOND, *words)
    assert ran.code == 0, ran.err
    name, _, verdict = ran.out.strip().partition(" ")
    assert name == SECOND and verdict in ("better", "worse", "no difference")
    assert waiting.reports == []


def test_a_candidate_that_was_given_up_is_told_in_a_sentence(
    run: Run, server: str, suite: Path, repository: Repository, waiting: Waiting
) -> None:
    gone = problem(404, "candidate_not_found", "There is no such candidate.")
    repository.faults.insert(0, once("POST", f"/candidates/{FIRST}/evaluations$", gone))
    words = ("evaluate", MODEL, "--candidate", FIRST, "--suite", suite, "--seeds", "1", "--post")
    ran = run(*words)
    assert ran.code == 5
    assert "given up while it was measured" in ran.err and "--candidate waiting" in ran.err
    assert len(repository.reports) == 1, "the base's scores are worth something anyway"
    assert "asks for none: it may not look at scores of 'toy-2' by frozen" in ran.err


@pytest.mark.parametrize("asked", ["toy-2", "text-9"])
def test_the_warning_is_of_the_gate_by_which_the_round_was_closed(
    run: Run, server: str, suite: Path, repository: Repository, waiting: Waiting, asked: str
) -> None:
    # The policy was changed since: it asks for no suite any more.
    gate = {"kind": "suite", "passed": None, "reason": "It waits.", "suite": asked}
    repository.round_changes = {"number": 2, "state": "evaluating", "gate": gate}
    words = ("evaluate", MODEL, "--candidate", FIRST, "--suite", suite, "--seeds", "1", "--post")
    ran = run(*words)
    assert ran.code == 0, ran.err
    warned = f"The gate of round 2 of {MODEL} asks for 'text-9' by frozen: it may not look"
    assert (warned in ran.err) == (asked == "text-9")
    assert ("may not look" in ran.err) == (asked == "text-9")


@pytest.mark.parametrize("name", ["waiting", "ffff"])
def test_no_candidate_is_measured_where_none_waits(
    run: Run, server: str, suite: Path, waiting: Waiting, name: str
) -> None:
    waiting.listed = False
    ran = run("evaluate", MODEL, "--candidate", name, "--suite", suite, "--json")
    assert (ran.code, ran.error["code"]) == (5, "candidate_not_found")


@pytest.mark.parametrize("made_by", ["a round", "a replay"])
def test_a_candidate_that_is_given_up_is_noticed_before_the_next_data_set(
    run: Run,
    server: str,
    suite: Path,
    waiting: Waiting,
    measured: list[str],
    monkeypatch: pytest.MonkeyPatch,
    made_by: str,
) -> None:
    if made_by == "a replay":
        of_replay = {"round": None, "replay": "r7", "step": 1}
        waiting.shown[FIRST] = waiting.shown[FIRST].model_copy(update=of_replay)
    begin = Frozen.begin

    class GivingUp:
        def __init__(self, measurer: Any) -> None:
            self.measurer = measurer

        def measure(self, data: Any, seed: int, tick: Any) -> OneScore:
            if len(measured) == 1:
                del waiting.shown[FIRST]
            return cast(OneScore, self.measurer.measure(data, seed, tick))

    monkeypatch.setattr(Frozen, "begin", lambda *args: GivingUp(begin(*args)))
    words = ("evaluate", MODEL, "--candidate", FIRST, "--suite", suite, "--seeds", "2")
    ran = run(*words, "--json")
    assert (ran.code, ran.error["code"]) == (5, "candidate_not_found")
    told = {"a round": "its round was decided", "a replay": "its replay, r7, is not to be"}
    assert told[made_by] in ran.error["message"] and "--candidate waiting" in ran.error["hint"]
    assert measured == ["films 0", "films 1"], "of the base; the second data set is not begun"


def test_a_server_that_is_away_for_a_moment_ends_no_measurement(
    run: Run,
    server: str,
    suite: Path,
    repository: Repository,
    waiting: Waiting,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("coldfusion_client.connection.ONCE_MET", Patience(tries=2, first=0.001))
    looks = 0

    def away(request: httpx.Request) -> httpx.Response | None:
        nonlocal looks
        looked = request.url.path.endswith(f"/candidates/{FIRST}")
        looks += looked
        return problem(500, "server_error", "A fault.") if looked and looks > 1 else None

    repository.faults.insert(0, away)
    ran = run("evaluate", MODEL, "--candidate", FIRST, "--suite", suite, "--seeds", "1", "--quiet")
    assert ran.code == 0 and ran.out.startswith(FIRST), ran.err
    assert looks > 1


def test_a_replays_candidates_wait_beside_the_bases_that_they_stand_in_for(
    run: Run, server: str, suite: Path, repository: Repository, waiting: Waiting
) -> None:
    for step, (name, base) in enumerate(((FIRST, "v0"), (SECOND, "v1")), 1):
        manifest = waiting.shown[name].manifest.model_copy(update={"replays": base})
        of_replay = {
            "round": None, "replay": "r7", "step": step, "base": base, "manifest": manifest,
            "digest": manifest.digest(),
        }  # fmt: skip
        waiting.shown[name] = waiting.shown[name].model_copy(update=of_replay)
    words = ("evaluate", MODEL, "--candidate", "waiting", "--suite", suite, "--seeds", "1")
    ran = run(*words, "--post", "--json")
    assert ran.code == 0, ran.err
    assert [one["posted"] for one in ran.json["candidates"]] == [["v0", FIRST], ["v1", SECOND]]
    assert "may not look" not in ran.err, "no gate decides on a replay"


@pytest.mark.parametrize("manner", ["--quiet", "--json"])
def test_a_posting_that_fails_loses_nothing_that_was_measured_before(
    run: Run,
    server: str,
    suite: Path,
    repository: Repository,
    waiting: Waiting,
    measured: list[str],
    manner: str,
) -> None:
    refused = problem(403, "forbidden", "Not any more.")
    repository.faults.insert(0, once("POST", f"/candidates/{SECOND}/evaluations$", refused))
    words = ("evaluate", MODEL, "--candidate", "waiting", "--suite", suite, "--seeds", "1")
    ran = run(*words, "--post", manner)
    assert ran.code == 4 and "Not any more." in ran.err
    assert "What was measured is kept in " in ran.err and "give the same command again" in ran.err
    if manner == "--json":
        assert [one["posted"] for one in ran.json["candidates"]] == [["v1", FIRST], []]
        assert ran.error["code"] == "forbidden"
    else:
        assert [line.split()[0] for line in ran.out.splitlines()] == [FIRST, SECOND]
    once_measured = [*measured]
    again = run(*words, "--post", manner)
    assert again.code == 0 and measured == once_measured
    assert [name for name, _ in waiting.reports][-2:] == [FIRST, SECOND]


def test_a_failed_posting_with_quiet_tells_the_scores_and_where_they_are(
    run: Run, server: str, suite: Path, repository: Repository
) -> None:
    repository.faults.append(once("POST", "/bases/v1/evaluations$", GONE))
    words = ("evaluate", MODEL, "--suite", suite, "--post", "--quiet")
    ran = run(*words)
    assert ran.code == 5 and "demo/tiny v1 vanished" in ran.err
    assert "What was measured is kept in " in ran.err
    again = run(*words)
    assert again.code == 0 and again.out == ran.out
    assert float(ran.out) > 0


def test_a_candidate_whose_manifest_is_another_is_refused(
    run: Run, server: str, suite: Path, waiting: Waiting, measured: list[str]
) -> None:
    changed = {"digest": hashlib.sha256(b"another").hexdigest()}
    waiting.shown[FIRST] = waiting.shown[FIRST].model_copy(update=changed)
    ran = run("evaluate", MODEL, "--candidate", FIRST, "--suite", suite, "--json")
    assert (ran.code, ran.error["code"]) == (7, "digest_mismatch") and not measured


@pytest.mark.parametrize("replayed", [False, True])
def test_a_candidate_of_another_base_than_it_says_is_refused(
    run: Run, server: str, suite: Path, waiting: Waiting, measured: list[str], replayed: bool
) -> None:
    other = {"replays": "v1"} if replayed else {}
    manifest = waiting.shown[FIRST].manifest.model_copy(update=other)
    changed = {"base": "v0", "manifest": manifest, "digest": manifest.digest()}
    waiting.shown[FIRST] = waiting.shown[FIRST].model_copy(update=changed)
    ran = run("evaluate", MODEL, "--candidate", FIRST, "--suite", suite, "--json")
    assert (ran.code, ran.error["code"]) == (7, "digest_mismatch") and not measured


@pytest.mark.parametrize("more", [("--version", "v0"), ("--compare", "v0", "v1")])
def test_a_candidate_has_a_base_of_its_own(
    run: Run, server: str, suite: Path, more: tuple[str, ...]
) -> None:
    ran = run("evaluate", MODEL, "--candidate", FIRST, "--suite", suite, *more)
    assert ran.code == 2 and "its own base" in ran.err
