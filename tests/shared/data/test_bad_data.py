"""Every way in which a data set can be wrong ends in one sentence that says where."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from coldfusion_shared.data import load_dataset
from coldfusion_shared.errors import BadData

GOOD = "".join(f"film {i},{'good' if i % 2 else 'bad'}\n" for i in range(20))
JSON = "".join(f'{{"text": "film {i}", "label": {i % 2}}}\n' for i in range(20))
INVALID_JSON = '{"text": "a", "label"\n' + JSON


def refuse(source: Path | str, message: str, **options: Any) -> BadData:
    with pytest.raises(BadData, match=message) as caught:
        load_dataset(str(source), **options)
    assert caught.value.hint
    assert "\n" not in caught.value.message
    return caught.value


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return path


CSV = {
    "empty": ("", "is empty"),
    "only a header": ("text,label\n", "is empty"),
    "no text column": ("words,label\n" + GOOD, "the text; its columns are: 'words', 'label'"),
    "no label column": ("text,verdict\n" + GOOD, "the label; its columns are: 'text', 'verdict'"),
    "too few fields": ("text,label\n" + GOOD + "alone\n", "line 22: expected 2 fields, found 1"),
    "too many fields": ("text,label\na,b,c\n" + GOOD, "line 2: expected 2 fields, found 3"),
    "open quote": ("text,label\na,b\n" + 'x,"y\n' + GOOD, "line 3: the record that begins here"),
    "after a quote": ("text,label\n" + '"x"y,z\n' + GOOD, "line 2: the record that begins here"),
    "after a long record": ('text,label\n"a\nb\nc",x\nalone\n' + GOOD, "line 5: expected 2"),
    "too many semicolons": (
        "text;label\na;b;c\n" + GOOD.replace(",", ";"), "line 2: expected 2 fields, found 3",
    ),
    "either separator": ("a;b\tc;d\n" + "1;2\t3;4\n" * 9, "with several separators: ';' "),
    "twice a column": ("text,label,text\n", "two columns are named 'text'"),
    "one label": ("text,label\n" + GOOD.replace("good", "bad"), "the same label, 'bad'"),
    "missing labels": ("text,label\n" + GOOD + "x,\ny, \n", "2 of 22 .* no label .* in line 22"),
    "empty texts": ("text,label\n,good\n" + GOOD + " ,bad\n", "2 of 22 .* no text .* in line 2"),
    "few examples": ("text,label\na,x\nb,y\nc,x\nd,y\n", "has 4 examples; at least 10"),
    "measurements": (
        "text,label\n" + "".join(f"a{i},{i}\n" for i in range(1, 20)), "19 different labels",
    ),
    "two examples": ("text,label\na,x\nb,y\n", "has 2 examples; at least 10"),
    "labels like names": (
        "text,label\n" + "".join(f"a{i},b{i}\n" for i in range(40)), "40 different labels",
    ),
    "one text": ("text,label\n" + "same,a\nsame,b\n" * 10, "too few different examples"),
}  # fmt: skip


@pytest.mark.parametrize("case", CSV)
def test_csv(tmp_path: Path, case: str) -> None:
    content, message = CSV[case]
    refuse(write(tmp_path / "films.csv", content), f"films.csv.*{message}|{message}")


def test_a_hundred_thousand_labels(tmp_path: Path) -> None:
    rows = "".join(f"film {i},class {i}\n" for i in range(100_000))
    message = "100000 training examples have 100000 different labels"
    refuse(write(tmp_path / "films.csv", "text,label\n" + rows), message)
    write(tmp_path / "films" / "train.jsonl", JSON)
    card = json.dumps({"labels": [f"class {i}" for i in range(100_000)]})
    write(tmp_path / "films" / "dataset.json", card)
    message = "has 100000 different labels; more than 10000 are not supported"
    refuse(tmp_path / "films", message)


def test_a_text_of_ten_megabytes_is_a_text(tmp_path: Path) -> None:
    long = "a long film " * 900_000
    for name, content in {
        "films.csv": f"text,label\n{GOOD}{long},good\n",
        "films.tsv": f"text\tlabel\n{GOOD}".replace(",", "\t") + f"{long}\tgood\n",
    }.items():
        dataset = load_dataset(str(write(tmp_path / name, content)))
        assert max(len(text) for part in dataset.splits.values() for text in part["text"]) > 10**7


def test_the_columns_that_are_named_must_be_there(tmp_path: Path) -> None:
    file = write(tmp_path / "films.csv", "text,label\n" + GOOD)
    for role in ("text", "text_pair", "label"):
        error = refuse(file, "has no column 'nix'", columns={role: "nix"})
        assert error.hint == "Its columns are: 'text', 'label'."


@pytest.mark.parametrize(
    ("content", "line", "encoding"),
    [
        (b"text,label\ngood,a\ncaf\xe9,b\n", 3, "WINDOWS-1252"),
        ("text,label\ngood,a\n".encode("utf-16"), 1, "UTF-16"),
        ("text,label\ngood,a\n".encode("utf-16-le"), 1, "UTF-16LE"),
        ("text,label\ngood,a\n".encode("utf-16-be"), 1, "UTF-16BE"),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_not_utf_8(tmp_path: Path, content: bytes, line: int, encoding: str, suffix: str) -> None:
    error = refuse(write(tmp_path / f"films{suffix}", content), f"line {line}: the text is not UTF")
    assert error.hint and f"iconv -f {encoding} -t UTF-8 films{suffix}" in error.hint


JSONL = {
    "empty": ("\n\n", "is empty"),
    "invalid": ("\n" + INVALID_JSON, "line 2: not valid JSON"),
    "deep": ("[" * 100_000 + "\n", "line 1: not valid JSON"),
    "no object": (JSON + "[1, 2]\n", "line 21: expected a JSON object, found list"),
    "text is a number": (JSON + '{"text": 3, "label": 1}', "line 21: .* holds 3, which is not a"),
    "text is missing": (JSON + '{"label": 1}', "1 of 21 examples have no text .* in line 21"),
    "label is missing": (JSON + '{"text": "a"}', "1 of 21 examples have no label .* in line 21"),
    "label is NaN": (JSON + '{"text": "a", "label": NaN}', "no label"),
    "label is a list": (JSON + '{"text": "a", "label": [1]}', r"line 21: .* holds \[1\], which"),
    "label is an object": (
        JSON + '{"text": "a", "label": {"is": 1}}',
        "line 21: .* holds {'is': 1}",
    ),
    "text is NaN": (JSON + '{"text": NaN, "label": 1}', "1 of 21 examples have no text .* line 21"),
    "half a character in a label": (
        JSON + '{"text": "a", "label": "\\ud800"}',
        "line 21: .* half a character",
    ),
    "a long label alone": (
        JSON.replace("0}", "1}").replace("1}", f'"{"x" * 10**6}"}}'),
        "same label, 'x{1,59}\\.",
    ),
    "a zero or a one for each label": (
        JSON.replace("0}", "[0, 0, 1]}").replace("1}", "[1, 0, 1]}"),
        "column 'label' holds a zero or a one for each label",
    ),
    "all labels everywhere": (
        JSON.replace("0}", '["a", "b"]}').replace("1}", '["b", "a"]}'),
        "has the same labels",
    ),
    "half a character": (JSON + '{"text": "\\ud800", "label": 1}', "line 21: .* half a character"),
}


@pytest.mark.parametrize("case", JSONL)
def test_jsonl(tmp_path: Path, case: str) -> None:
    content, message = JSONL[case]
    refuse(write(tmp_path / "films.jsonl", content), message)


def test_parquet(tmp_path: Path) -> None:
    refuse(write(tmp_path / "films.parquet", "no parquet"), "cannot be read as Parquet: ")
    columns = {"text": [*"abcdefghijkl", None], "label": [0, 1] * 6 + [1], "vector": [[0.5]] * 13}
    parquet.write_table(pyarrow.table(columns), tmp_path / "films.parquet")
    refuse(tmp_path / "films.parquet", "1 of 13 examples have no text .* in row 13")
    refuse(tmp_path / "films.parquet", "no column 'vector'", columns={"text": "vector"})


def test_files_that_are_not_there(tmp_path: Path) -> None:
    refuse(tmp_path / "films.csv", "does not exist")
    refuse("films.csv", "does not exist")
    refuse("../no/such/folder", "does not exist")


def test_files_of_another_kind(tmp_path: Path) -> None:
    error = refuse(write(tmp_path / "films.xlsx", "x"), r"no reader knows: \.xlsx")
    assert error.hint and ".csv, .jsonl, .parquet, .tsv" in error.hint
    refuse(write(tmp_path / "films", "x"), "no reader knows: none")


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "films.csv").symlink_to("films.csv")
    refuse(tmp_path / "films.csv", "does not exist|cannot be read")
    (tmp_path / "folder.csv").mkdir()
    refuse(tmp_path / "folder.csv", "has no training data")


FOLDER = {
    "no train": ({"test.jsonl": JSON}, "has no training data"),
    "two files": ({"train.jsonl": JSON, "train.csv": GOOD}, "two files for the train split"),
    "empty split": ({"train.jsonl": JSON, "dev.jsonl": ""}, "dev.jsonl is empty"),
    "other columns": (
        {"train.jsonl": JSON, "test.csv": "text,verdict\n" + GOOD}, "test.csv has no column 'lab",
    ),
    "unseen label": (
        {"train.jsonl": JSON, "test.jsonl": JSON + '{"text": "a", "label": 7}'},
        "test.jsonl, line 21: the label '7' is not in the training data",
    ),
    "card is not JSON": ({"train.jsonl": JSON, "dataset.json": "{"}, "dataset.json is not valid"),
    "card is a list": ({"train.jsonl": JSON, "dataset.json": "[]"}, "dataset.json: expected an"),
    "labels are no names": ({"train.jsonl": JSON, "dataset.json": '{"labels": [1]}'}, "expected"),
    "labels twice": ({"train.jsonl": JSON, "dataset.json": '{"labels": ["a", "a"]}'}, "expected"),
    "label missing in one split": (
        {"train.jsonl": JSON, "test.jsonl": '{"text": "a"}'}, "test.jsonl has no column 'label'",
    ),
    "label missing in one row of a split": (
        {"train.jsonl": JSON, "test.jsonl": JSON + '{"text": "a"}'},
        "test.jsonl: 1 of 21 examples have no label in column 'label', the first in line 21",
    ),
    "label not listed": (
        {"train.jsonl": JSON, "dataset.json": '{"labels": ["a"]}'},
        "train.jsonl, line 2: the label '1' is not one of the 1 that the data set lists",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FOLDER)
def test_folder(tmp_path: Path, case: str) -> None:
    files, message = FOLDER[case]
    for name, content in files.items():
        write(tmp_path / "films" / name, content)
    refuse(tmp_path / "films", re.escape(message))
