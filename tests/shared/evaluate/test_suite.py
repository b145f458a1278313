from __future__ import annotations

import json
import stat
from collections import Counter
from pathlib import Path

import pytest
import yaml

from coldfusion_shared.data import Split
from coldfusion_shared.data.readers import load_dataset
from coldfusion_shared.errors import BadSuite, SuiteChanged
from coldfusion_shared.evaluate.drawing import drawn
from coldfusion_shared.evaluate.suite import pin, read_suite
from tests.shared.evaluate.suites import films, ratings, write_split, write_suite


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    films(tmp_path / "data" / "films")
    ratings(tmp_path / "data" / "ratings")
    return tmp_path


TWO = """
  - data: data/films
    seen: true
  - data: data/ratings
    name: how warm
    metric: Spearman
"""


def test_a_suite_says_all_that_its_scores_depend_on(folder: Path) -> None:
    more = "limits: {train: 40, validation: 15, test: 25}\nfew_shot: 12\ntraining: {lr: 5e-4}\n"
    loaded = read_suite(write_suite(folder, TWO, more))
    suite = loaded.suite
    assert (suite.name, suite.max_length, suite.seed, suite.few_shot) == ("toys", 24, 13, 12)
    assert suite.training == {"lr": 5e-4}
    first, second = suite.datasets
    assert (first.name, first.task, first.metric) == ("films", "classification", "accuracy")
    assert (first.labels, first.seen) == (3, True)
    assert (first.train, first.validation, first.test) == (40, 15, 25)
    assert first.digest == load_dataset(str(folder / "data" / "films")).digest
    assert (second.name, second.task, second.metric) == ("how warm", "regression", "Spearman")
    assert (second.labels, second.seen) == (0, None)


def test_the_scored_examples_are_the_same_for_all_seeds_and_the_learnt_ones_are_not(
    folder: Path,
) -> None:
    more = "limits: {train: 40, validation: 15, test: 25}\nfew_shot: 12\n"
    first = read_suite(write_suite(folder, TWO, more)).datasets[0]
    one, again, other = first.draw(0), first.draw(0), first.draw(1)
    assert one.train == again.train != other.train
    assert one.test == other.test and len(one.test) == 25
    assert one.validation == other.validation and len(one.validation) == 15
    assert len(one.train) == 40 and len(first.few(0).train) == 12


def test_the_digest_of_a_suite_tells_other_scores_and_nothing_else(folder: Path) -> None:
    digest = read_suite(write_suite(folder, TWO)).suite.digest()
    assert read_suite(write_suite(folder, TWO, name="other")).suite.digest() == digest
    assert read_suite(write_suite(folder, TWO, "seed: 14\n")).suite.digest() != digest
    write_split(folder / "data" / "films" / "test.jsonl", [{"text": "a film", "label": 1}] * 9)
    assert read_suite(write_suite(folder, TWO)).suite.digest() != digest


def labelled(*labels: int) -> Split:
    return Split({"text": tuple(str(i) for i in range(len(labels))), "label": labels})


def test_a_sample_holds_the_rarest_label_even_where_it_comes_last() -> None:
    split = labelled(*[0] * 500, *[1] * 300, 2)
    for seed in range(20):
        few = drawn(split, 10, seed)
        assert len(few) == 10 and len(set(few["text"])) == 10
        assert Counter(few["label"]).keys() == {0, 1, 2}
    large = Counter(drawn(split, 400, 1)["label"])
    assert abs(large[0] - 250) < 3 and large[2] == 1


def test_of_no_more_examples_than_wanted_a_seed_draws_again_and_again() -> None:
    split = labelled(*[0] * 50, *[1] * 30, 2)
    seeds = [drawn(split, size, seed) for seed in range(5) for size in (81, 1000)]
    assert all(Counter(one["label"]) == Counter(split["label"]) for one in seeds)
    assert len({one["text"] for one in seeds}) == 5
    # As a bootstrap sample does, it holds about 63 percent of the examples.
    assert all(40 < len(set(one["text"])) < 62 for one in seeds)


def test_what_a_split_was_made_of_is_said(folder: Path) -> None:
    (folder / "data" / "films" / "validation.jsonl").unlink()
    told: list[str] = []
    read_suite(write_suite(folder, TWO), told.append)
    assert len(told) == 1
    assert told[0].startswith("films: There is no validation split")


def refusal(path: Path) -> BadSuite:
    with pytest.raises(BadSuite) as caught:
        read_suite(path)
    assert str(path) in caught.value.message and caught.value.hint
    return caught.value


def test_without_a_test_split_there_is_nothing_to_be_scored_on(folder: Path) -> None:
    (folder / "data" / "films" / "test.jsonl").unlink()
    refused = refusal(write_suite(folder, TWO))
    assert "data set 1 (data/films)" in refused.message and "no test split" in refused.message
    assert refused.hint and "test.jsonl" in refused.hint


@pytest.mark.parametrize(
    ("datasets", "says", "hint"),
    [
        ("  - data: data/films\n    metric: Pearson", "'Pearson' does not fit", "macro F1"),
        ("  - data: data/ratings\n    metric: accuracy", "does not fit the task regr", "Spearman"),
        ("  - data: data/films\n  - data: data/films", "called 'films', too", "name: NAME"),
        ("  - data: data/nothing.csv", "data/nothing.csv does not exist", "Check the path"),
        ("  - data: data/films\n    columns: {label: stars}", "no column 'stars'", "'text'"),
        ("  - data: data/films\n    task: guessing", "named 'guessing'", "classification"),
        ("  - data: data/films\n    columns: {colour: x}", "columns: {colour: x}", "Known are"),
        ("  - data: data/films\n    metrics: x", "metrics: nothing of that name", "metric,"),
        ("  - metric: accuracy", "data set 1, data: it is missing", "Correct"),
        ("  - data: data/films\n    digest: abc", "data set 1 (data/films), digest", "Correct"),
        ("  - data/films", "data set 1: ", "Correct"),
        ("  []", "datasets: ", "Correct"),
    ],
)
def test_a_data_set_that_cannot_be_measured_is_named(
    folder: Path, datasets: str, says: str, hint: str
) -> None:
    refused = refusal(write_suite(folder, datasets + "\n"))
    assert says in refused.message
    assert refused.hint and hint in refused.hint


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("limits: {tests: 5}\n", "limits, tests: nothing of that name is known"),
        ("limits: {train: 0}\n", "limits, train: "),
        ("training: {lr: 0}\n", "training: lr: Input should be greater than 0"),
        ("training: {epochs: .nan}\n", "training: epochs: "),
        ("training: {lora: true}\n", "training, lora: nothing of that name"),
        ("few_shot_training: {lr: 0}\n", "few_shot_training: lr: Input should be greater"),
        ("few_shot_training: {lora: true}\n", "few_shot_training, lora: nothing of that"),
        ("seed: -1\n", "seed: "),
        ("few_shot: many\n", "few_shot: "),
        ("seed: [1\n", "line "),
        ("seed: 2024-13-45\n", "no YAML"),
        ("\t\n", "line 3"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(folder: Path, more: str, says: str) -> None:
    assert says in refusal(write_suite(folder, TWO, more)).message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: a\ndatasets: [{data: data/films}]\nname: b\n", "line 3: 'name' is given twice"),
        (f"name: a\ndatasets:{TWO}datasets:{TWO}", "line 8: 'datasets' is given twice"),
        ("name: a\ndatasets:\n- data: data/films\n  data: x\n", "line 4: 'data' is given twice"),
        ("name: a\nlimits: {test: 1, test: 2}\n", "line 2: 'test' is given twice"),
    ],
)
def test_what_is_said_twice_is_named(folder: Path, text: str, says: str) -> None:
    path = folder / "suite.yaml"
    path.write_text(text)
    assert says in refusal(path).message


@pytest.mark.parametrize("data", ["~nosuch-user/x", "x" * 300, "data/" + "x" * 300, "a\0b"])
def test_a_path_that_can_be_none_is_named(folder: Path, data: str) -> None:
    refused = refusal(write_suite(folder, f"  - data: {json.dumps(data)}\n"))
    assert "data set 1" in refused.message


def test_a_path_of_a_suite_that_can_be_none(tmp_path: Path) -> None:
    for name in ("x" * 300 + ".yaml", "a\0b.yaml"):
        with pytest.raises(BadSuite, match="cannot be read"):
            read_suite(tmp_path / name)


def test_a_name_that_is_none(folder: Path) -> None:
    assert "suite.yaml: name: " in refusal(write_suite(folder, TWO, name="two words")).message


@pytest.mark.parametrize("content", [b"", b"- a\n", b"name\n", b"\xff\xfe", b"[" * 5000])
def test_a_file_that_is_no_suite(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "suite.yaml"
    path.write_bytes(content)
    refusal(path)


def test_a_suite_that_is_not_there(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "suite.yaml").message


def test_labels_outside_of_the_listed_ones_are_refused_with_their_line(folder: Path) -> None:
    rows = [{"text": "a film", "label": label} for label in (0, 1, 2, 3)]
    write_split(folder / "data" / "films" / "test.jsonl", rows)
    assert (
        "test.jsonl, line 4: the label '3' is not one of the 3"
        in refusal(write_suite(folder, TWO)).message
    )


def test_a_hint_for_the_command_line_is_told_in_the_words_of_the_file(folder: Path) -> None:
    rows = [{"text": "a film", "kind": kind} for kind in "abcab" * 10]
    for split in ("train", "test"):
        write_split(folder / "odd" / f"{split}.jsonl", rows)
    refused = refusal(write_suite(folder, "  - data: odd\n"))
    assert refused.hint and "columns: {label: NAME}" in refused.hint
    assert "--" not in refused.hint


def test_paths_begin_at_the_suite(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    suite = write_suite(folder, TWO)
    assert read_suite(suite) == read_suite(Path("..", "suite.yaml"))
    films(elsewhere / "here")
    refused = refusal(write_suite(folder, "  - data: here\n"))
    assert refused.hint and "suite file's folder" in refused.hint
    whole = f"  - data: {elsewhere / 'here'}\n"
    assert read_suite(write_suite(folder, whole)).suite.datasets[0].name == "here"


def test_a_pinned_suite_refuses_data_that_have_changed(folder: Path) -> None:
    path = write_suite(folder, TWO)
    pinned = pin(path)
    assert read_suite(path) == pinned
    test = folder / "data" / "ratings" / "test.jsonl"
    test.write_text(test.read_text().replace("warm", "cold", 1))
    with pytest.raises(SuiteChanged) as caught:
        read_suite(path)
    old = pinned.suite.datasets[1].digest
    assert "data set 2 (data/ratings)" in caught.value.message
    assert f"not {old[:12]}" in caught.value.message
    assert caught.value.hint and "new name" in caught.value.hint
    renewed = pin(path)
    assert renewed.suite.datasets[1].digest != old
    assert read_suite(path) == renewed


WRITTEN = {
    "block": """\
# What we measure by.
name: toys   # never changed
datasets:
    # the first
    - data: data/films   # films
      seen: yes

    - name: "how warm"
      columns: {label: score}
      data: 'data/ratings'
seed: 5
""",
    "pinned": """\
name: toys
datasets:
- data: data/films
  digest: FIRST
- digest:
  data: data/ratings
""",
    "flow": "{name: toys, datasets: [{data: data/films, seen: true}, {data: data/ratings}]}",
    "without a last newline": "name: toys\ndatasets:\n- data: data/ratings\n- data: data/films",
    "windows": "name: toys\r\ndatasets:\r\n- data: data/films\r\n  seen: true\r\n",
}


@pytest.mark.parametrize("form", WRITTEN)
def test_pinning_keeps_the_rest_of_the_file(folder: Path, form: str) -> None:
    path, text = folder / "suite.yaml", WRITTEN[form].replace("FIRST", "0" * 63 + "a")
    path.write_bytes(text.encode())
    path.chmod(0o640)
    suite = pin(path).suite
    written = path.read_bytes().decode()
    before, after = yaml.safe_load(text), yaml.safe_load(written)
    digests = [entry.pop("digest") for entry in after["datasets"]]
    assert digests == [dataset.digest for dataset in suite.datasets]
    for entry in before["datasets"]:
        entry.pop("digest", None)
    assert before == after
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [file.name for file in folder.iterdir() if file.name.startswith(".")] == []
    # What is new is the digests alone.
    for digest in digests:
        written = written.replace(digest, "")
    kept = [line.rstrip() for line in text.replace("0" * 63 + "a", "").splitlines()]
    for line in written.splitlines():
        if line.rstrip() in kept:
            kept.remove(line.rstrip())
    assert kept == [] or form == "flow"
    assert ("\r\n" in written) == (form == "windows")


def test_what_cannot_be_pinned_is_left_as_it_is(folder: Path) -> None:
    path = folder / "suite.yaml"
    text = "name: toys\ndatasets:\n- {<<: {data: data/films}, name: one}\n"
    path.write_text(text)
    assert len(read_suite(path).datasets) == 1
    with pytest.raises(BadSuite, match="cannot be written into a file of this form"):
        pin(path)
    assert path.read_text() == text


@pytest.mark.parametrize(
    "text",
    [
        "own: &all {datasets: [{data: data/films}]}\n<<: *all\nname: toys\n",
        "<<: {datasets: [{data: data/films}]}\nname: toys\n",
        "name: toys\ndatasets: [{? [a, b] : c, data: data/films}]\n",
        "name: toys\n? [a]\n: b\ndatasets: [{data: data/films}]\n",
        "name: toys\ndatasets:\n- &a {data: &d data/films}\n- {<<: *a, data: *d, name: b}\n",
    ],
)
def test_no_form_of_yaml_is_pinned_wrongly_or_ends_in_a_traceback(folder: Path, text: str) -> None:
    path = folder / "suite.yaml"
    path.write_text(text)
    try:
        pinned = pin(path)
    except BadSuite as error:
        assert str(path) in error.message and path.read_text() == text
    else:
        assert read_suite(path) == pinned


def test_what_a_data_set_has_from_another_one_is_pinned_with_it(folder: Path) -> None:
    path = folder / "suite.yaml"
    path.write_text(
        "name: toys\ndatasets:\n- &a {data: data/films, name: one}\n- {<<: *a, name: two}\n"
        "- {<<: *a, data: data/ratings, name: three}\n"
    )
    assert pin(path) == read_suite(path)
    assert path.read_text().count("digest:") == 2


def test_a_file_that_may_not_be_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_suite(folder, TWO)
    before = path.read_text()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("coldfusion_shared.evaluate.whole_file.os.fdopen", full)
    with pytest.raises(BadSuite, match="cannot be written: No space left"):
        pin(path)
    assert path.read_text() == before


def test_every_task_can_be_in_a_suite(folder: Path) -> None:
    rows = [
        {"question": f"who is {i}", "context": f"the film {i} was good", "answers": answer}
        for i in range(20)
        for answer in [{"text": ["film"], "answer_start": [4]}]
    ]
    for split in ("train", "test"):
        write_split(folder / "asked" / f"{split}.jsonl", rows)
    entry = read_suite(write_suite(folder, "  - data: asked\n")).suite.datasets[0]
    assert (entry.task, entry.metric, entry.labels) == ("question-answering", "F1", 0)
    assert json.loads(entry.model_dump_json())["seen"] is None
