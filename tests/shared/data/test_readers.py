"""Whatever the format: the same texts and labels come out that went in."""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from coldfusion_shared.data import Split, TextDataset, load_dataset
from coldfusion_shared.data.formats.parquet import read_parquet

Rows = Sequence[tuple[str, str, str]]
HEADER = ("text", "text_pair", "label")


def write_csv(path: Path, rows: Rows) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([HEADER, *rows])
    return path


def write_tsv(path: Path, rows: Rows) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t").writerows([HEADER, *rows])
    return path


def write_jsonl(path: Path, rows: Rows) -> Path:
    lines = (json.dumps(dict(zip(HEADER, row, strict=True)), ensure_ascii=False) for row in rows)
    path.write_bytes("\n".join(lines).encode("utf-8"))
    return path


def write_parquet(path: Path, rows: Rows) -> Path:
    columns = dict(zip(HEADER, zip(*rows, strict=True), strict=True))
    parquet.write_table(pyarrow.table(columns), path)
    return path


WRITERS: dict[str, Callable[[Path, Rows], Path]] = {
    ".csv": write_csv, ".tsv": write_tsv, ".jsonl": write_jsonl, ".parquet": write_parquet,
}  # fmt: skip

texts = st.text(max_size=20).map(lambda text: f"{text}x")
labels = st.sampled_from(["a", "b", "2", 'quoted "c"', "d, e"])
row_lists = st.lists(st.tuples(texts, texts, labels), min_size=20, unique_by=lambda row: row[:2])


def rows_of(dataset: TextDataset) -> Counter[tuple[str, str | None, str]]:
    return Counter(
        (text, pair, dataset.labels[label])
        for split in dataset.splits.values()
        for text, pair, label in split.keys(["text", "text_pair", "label"])
    )


@given(rows=row_lists.filter(lambda rows: len({row[2] for row in rows}) > 1))
def test_what_was_written_is_read(rows: Rows) -> None:
    with tempfile.TemporaryDirectory() as folder:
        read = [
            load_dataset(str(write(Path(folder, f"data{suffix}"), rows)))
            for suffix, write in WRITERS.items()
        ]
    for dataset in read:
        assert rows_of(dataset) == Counter(rows)
        assert dataset.labels == tuple(sorted({row[2] for row in rows}))
    assert len({dataset.digest for dataset in read}) == 1


def write(path: Path, header: str, count: int = 40) -> str:
    fields = len(header.split(","))
    rows = (",".join([f"t{i}", f"p{i}"][: fields - 1] + [f"{i % 2}"]) for i in range(count))
    path.write_text("\n".join([header, *rows]))
    return str(path)


@pytest.mark.parametrize(
    ("header", "has_pairs"),
    [
        ("text,label", False),
        ("Review,Sentiment", False),
        ("content,category", False),
        ("title,text,label", False),
        ("sentence1,sentence2,label", True),
        ("premise,hypothesis,gold_label", True),
        ("question,sentence,label", True),
    ],
)
def test_columns_are_found_by_usual_names(tmp_path: Path, header: str, has_pairs: bool) -> None:
    dataset = load_dataset(write(tmp_path / "d.csv", header))
    assert ("text_pair" in dataset.train.columns) is has_pairs
    assert dataset.labels == ("0", "1")
    assert set("".join(dataset.train["text"])) <= set("tp0123456789")


def test_columns_can_be_named(tmp_path: Path) -> None:
    file = write(tmp_path / "d.csv", "left,right,verdict")
    columns = {"text": "right", "text_pair": "left", "label": "verdict"}
    dataset = load_dataset(file, columns=columns)
    assert dataset.train["text"][0].startswith("p")
    assert dataset.train["text_pair"][0].startswith("t")


def test_a_file_is_split_by_the_seed_and_says_so(tmp_path: Path) -> None:
    file = write(tmp_path / "films.csv", "text,label", count=100)
    dataset = load_dataset(file)
    assert [len(s) for s in (dataset.train, dataset.validation, dataset.test)] == [70, 15, 15]
    assert all(6 <= sum(split["label"]) <= 9 for split in (dataset.validation, dataset.test))
    assert [note.split(":")[0] for note in dataset.notes] == [
        "Columns",
        "There is no validation split",
        "There is no test split",
    ]
    assert load_dataset(file).digest == dataset.digest
    assert load_dataset(file, seed=1).digest != dataset.digest


def test_copies_of_an_example_stay_together(tmp_path: Path) -> None:
    lines = [f"text {i % 25},{i % 2}" for i in range(100)]
    (tmp_path / "d.csv").write_text("\n".join(["text,label", *lines]))
    dataset = load_dataset(str(tmp_path / "d.csv"))
    parts = [set(split["text"]) for split in dataset.splits.values()]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 25


def test_a_folder_keeps_its_splits_and_makes_the_missing_one(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "text,label", count=100)
    write(tmp_path / "Test.csv", "text,label", count=7)
    (tmp_path / "notes.txt").write_text("no data")
    dataset = load_dataset(str(tmp_path))
    assert dataset.name == tmp_path.name
    assert [len(s) for s in (dataset.train, dataset.validation, dataset.test)] == [85, 15, 7]
    assert len(dataset.notes) == 2


def test_dataset_json_names_the_labels(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text('{"name": "stars", "labels": ["2", "1", "never"]}')
    for split in ("train", "validation", "test"):
        rows = [json.dumps({"text": f"{split}{i}", "label": i % 2}) for i in range(20)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(rows))
    dataset = load_dataset(str(tmp_path))
    assert (dataset.name, dataset.labels) == ("stars", ("2", "1", "never"))
    assert len(dataset.notes) == 1
    # A number is an index; the same digits as text are the name of another label.
    assert dataset.train["label"][:3] == (0, 1, 0)
    write(tmp_path / "train.csv", "text,label")
    (tmp_path / "train.jsonl").unlink()
    assert load_dataset(str(tmp_path)).train["label"][:3] == (0, 1, 0)


def test_numbers_sort_by_value_and_a_byte_order_mark_is_no_letter(tmp_path: Path) -> None:
    lines = [f"t{i},{(i % 4) * 5}" for i in range(40)]
    (tmp_path / "d.csv").write_text("\n".join(["text,label", *lines]), encoding="utf-8-sig")
    assert load_dataset(str(tmp_path / "d.csv")).labels == ("0", "5", "10", "15")


def test_a_tsv_may_hold_quotation_marks_that_mean_nothing(tmp_path: Path) -> None:
    lines = [f'"quoted" {i} "\t{i % 2}' for i in range(20)]
    (tmp_path / "d.tsv").write_text("\n".join(["text\tlabel", *lines]))
    assert '"quoted" 3 "' in load_dataset(str(tmp_path / "d.tsv")).train["text"]


def split(labels: Sequence[int]) -> Split:
    texts = tuple(f"t{i}" for i in range(len(labels)))
    return Split({"text": texts, "label": tuple(labels)})


@given(labels=st.lists(st.integers(0, 3), min_size=1), size=st.integers(1, 60), seed=st.integers())
def test_a_sample_has_the_labels_shares(labels: list[int], size: int, seed: int) -> None:
    whole = split(labels)
    sample = whole.sample(size, seed)
    assert len(sample) == min(size, len(whole))
    kept = set(sample["text"])
    assert list(sample["text"]) == [text for text in whole["text"] if text in kept]
    for label, count in Counter(sample["label"]).items():
        assert abs(count - labels.count(label) * len(sample) / len(whole)) <= len(set(labels))


def test_capping() -> None:
    parts = split([0, 1] * 20), split([0, 1] * 5), split([0, 1])
    dataset = TextDataset("d", "classification", ("a", "b"), *parts)
    capped = dataset.capped(train=10, test=100, seed=3)
    assert [len(s) for s in (capped.train, capped.validation, capped.test)] == [10, 10, 2]
    assert Counter(capped.train["label"]) == {0: 5, 1: 5}
    assert capped.digest == dataset.capped(train=10, seed=3).digest != dataset.digest


def test_plain_text_is_an_example_a_line(tmp_path: Path) -> None:
    lines = [f"  line {i}" if i % 3 else "" for i in range(40)]
    (tmp_path / "d.txt").write_text("\n".join(lines), encoding="utf-8-sig")
    dataset = load_dataset(str(tmp_path / "d.txt"), architecture="encoder")
    assert dataset.task == "masked-language-modelling"
    read = {text for split in dataset.splits.values() for text in split["text"]}
    assert read == {line.strip() for line in lines} - {""}
    assert load_dataset(str(tmp_path / "d.txt"), architecture="decoder").task.startswith("causal")


def test_a_parquet_file_may_hold_lists_and_vectors(tmp_path: Path) -> None:
    columns = {
        "text": [f"film {i}" for i in range(40)],
        "labels": [["a"], ["b", "a"]] * 20,
        "vector": [[0.5, 0.1]] * 40,
        "image": [{"bytes": b"x", "path": "y"}] * 40,
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "d.parquet")
    assert list(read_parquet(tmp_path / "d.parquet").columns) == ["text", "labels"]
    dataset = load_dataset(str(tmp_path / "d.parquet"))
    assert (dataset.task, dataset.labels) == ("multi-label", ("a", "b"))


FILMS = [(f'film {i}, a "good" one\r\nor {i % 3}', "good" if i % 2 else "bad") for i in range(20)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_spreadsheets_separate_by_what_is_usual_in_their_country(
    tmp_path: Path, delimiter: str, encoding: str
) -> None:
    with (tmp_path / "d.csv").open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([("text", "label"), *FILMS])
    dataset = load_dataset(str(tmp_path / "d.csv"))
    assert {row[:1] + row[2:] for row in rows_of(dataset)} == set(FILMS)


def test_a_comma_among_the_names_of_columns_need_not_separate_them(tmp_path: Path) -> None:
    lines = ["text;label;seen, or not", *(f"film {i};{i % 2};yes" for i in range(20))]
    (tmp_path / "d.csv").write_text("\n".join(lines))
    assert load_dataset(str(tmp_path / "d.csv")).labels == ("0", "1")
    lines = ["text,label,a;b", *(f"film; {i},{i % 2},c" for i in range(20))]
    (tmp_path / "d.csv").write_text("\n".join(lines))
    assert load_dataset(str(tmp_path / "d.csv")).train["text"][0].startswith("film; ")


def test_a_name_that_is_no_text_can_be_written_down(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"gr\xfcn")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this system's file names are all text")
    lines = ["text,label", *(f"film {i},{i % 2}" for i in range(20))]
    (folder / os.fsdecode(b"gr\xfcn.csv")).write_text("\n".join(lines))
    (folder / "train.csv").write_text("\n".join(lines))
    for source in (folder, folder / os.fsdecode(b"gr\xfcn.csv")):
        assert load_dataset(str(source)).name == "gr?n"
