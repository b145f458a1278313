"""``evaluate``: real measurements of a tiny model, with a Repository in memory."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from coldfusion_client import Client, subjects
from coldfusion_client.bases import Source
from coldfusion_client.cli.app import app
from coldfusion_client.cli.scores import essence, table, told
from coldfusion_client.evaluating import Order, Outcome, Place, evaluate, post
from coldfusion_client.subjects import BaseName
from coldfusion_shared import errors
from coldfusion_shared.data import Split
from coldfusion_shared.evaluate.protocols import Measured as OneScore
from coldfusion_shared.evaluate.protocols.frozen import Frozen
from coldfusion_shared.evaluate.results import Evaluated
from tests.client.helpers import Notes
from tests.client.repository import MODEL, TOKEN, Repository, once, problem, served
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
    repository.faults.append(once(method, path, GONE))
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
    folder = run("evaluate", MODEL, "--suite", suite, "--seeds", "1")
    assert "add --version latest" in folder.err
    assert f"{MODEL}: " in folder.out
    model = run("evaluate", MODEL, "--version", "latest", "--suite", suite, "--seeds", "1")
    assert f"{MODEL} v1: " in model.out and "--version" not in model.err


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


def test_the_suite_that_the_page_shows_is_one(tmp_path: Path) -> None:
    from coldfusion_shared.evaluate.suite_file import read_suite_file

    page = Path(__file__).parents[2] / "docs" / "how-to" / "evaluate.md"
    (shown,) = re.findall(r"^```yaml\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)
    file = tmp_path / "suite.yaml"
    file.write_text(shown)
    found = read_suite_file(file)
    # What it calls the usual values are those.
    bare = {"name": found.name, "datasets": [{"data": one.data} for one in found.datasets]}
    file.write_text(yaml.safe_dump(bare))
    usual = read_suite_file(file)
    for part in ("limits", "max_length", "seed", "few_shot"):
        assert getattr(found, part) == getattr(usual, part)


def test_the_servers_routes(connect: Callable[..., Any], repository: Repository) -> None:
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=[])

    assert connect(handle=handle).suites() == []
    assert (seen[0].method, seen[0].url.path) == ("GET", "/v1/suites")
