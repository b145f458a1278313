"""The demo's data sets are what `examples/make_data.py` writes, and are well formed."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
DATA = EXAMPLES / "data"
NAMES = ("hive_log", "kitchen_notes", "ship_log", "shop_tickets")
SPLITS = ("train", "validation", "test")


def card(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((DATA / name / "dataset.json").read_text("utf-8"))
    return loaded


def rows(name: str, split: str) -> list[dict[str, Any]]:
    text = (DATA / name / f"{split}.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def inputs(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(row[field] for field in ("text", "text_pair") if field in row)


def files_under(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_script_writes_the_committed_bytes(tmp_path: Path) -> None:
    script = [sys.executable, str(EXAMPLES / "make_data.py"), "--out", str(tmp_path)]
    subprocess.run(script, check=True)
    made = files_under(tmp_path)
    assert len(made) == len(NAMES) * (len(SPLITS) + 1)
    assert made == {path: data for path, data in files_under(DATA).items() if path in made}


def test_there_are_no_other_data_sets() -> None:
    assert sorted(path.name for path in DATA.iterdir() if path.is_dir()) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_card_describes_the_files(name: str) -> None:
    described = card(name)
    assert set(described) == {"name", "task", "labels", "source", "license", "sizes", "notes"}
    assert described["name"] == name
    assert described["license"] == "Apache-2.0"
    assert described["sizes"] == {split: len(rows(name, split)) for split in SPLITS}
    assert sum(described["sizes"].values()) >= 300


@pytest.mark.parametrize("name", NAMES)
def test_every_row_has_the_form_of_its_task(name: str) -> None:
    described = card(name)
    pair = {"text_pair"} if described["task"] == "pair-classification" else set()
    for split in SPLITS:
        for row in rows(name, split):
            assert set(row) == {"text", "label"} | pair
            assert row["label"] in range(len(described["labels"]))
            for text in inputs(row):
                assert text == text.strip()
                assert text[0].isupper()
                assert not set(text) & set("{}_/")
                assert "  " not in text


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("split", SPLITS)
def test_every_label_is_equally_frequent(name: str, split: str) -> None:
    counts = Counter(row["label"] for row in rows(name, split))
    assert len(counts) == len(card(name)["labels"])
    assert len(set(counts.values())) == 1


@pytest.mark.parametrize("name", NAMES)
def test_no_example_comes_twice_in_or_across_splits(name: str) -> None:
    seen = Counter(inputs(row) for split in SPLITS for row in rows(name, split))
    assert seen.most_common(1)[0][1] == 1


@pytest.mark.parametrize("name", NAMES)
def test_the_test_set_has_words_that_training_never_saw(name: str) -> None:
    def words(split: str) -> set[str]:
        return {word for row in rows(name, split) for word in " ".join(inputs(row)).split()}

    assert len(words("test") - words("train")) >= 20
