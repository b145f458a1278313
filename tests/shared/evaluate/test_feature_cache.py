from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coldfusion_shared.data import Split
from coldfusion_shared.evaluate.feature_cache import FeatureCache

NAME = ("base", 128, "fp32", "data")


class Model:
    """Makes a text's length and first letter of it, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def __call__(self, split: Split) -> Any:
        self.asked.append(split["text"])
        pairs = split.get("text_pair") or ("",) * len(split)
        rows = zip(split["text"], pairs, strict=True)
        return np.array([[len(one + two), ord(one[0])] for one, two in rows], np.float32)


def never(split: Split) -> Any:
    pytest.fail(f"asked for {split}")


def texts(*words: str) -> Split:
    return Split({"text": words, "label": tuple(range(len(words)))})


def cached(folder: Path, say: Callable[[str], None] = pytest.fail, **options: Any) -> FeatureCache:
    return FeatureCache(folder / "features", say, **options)


def test_each_text_is_computed_once_however_often_and_where_it_comes(tmp_path: Path) -> None:
    model = Model()
    train, test = texts("a", "bb", "a"), texts("ccc", "bb")
    for _ in range(2):
        first, second = cached(tmp_path).features(NAME, [train, test], model)
        assert first.tolist() == [[1, 97], [2, 98], [1, 97]]
        assert second.tolist() == [[3, 99], [2, 98]]
    assert model.asked == [("a", "bb", "ccc")]
    (third,) = cached(tmp_path).features(NAME, [texts("dddd", "bb")], model)
    assert third.tolist() == [[4, 100], [2, 98]]
    assert model.asked[1:] == [("dddd",)]


def test_pairs_are_told_apart_by_both_texts(tmp_path: Path) -> None:
    model = Model()
    split = Split({"text": ("a", "a", "aa"), "text_pair": ("b", "bb", "b")})
    (found,) = cached(tmp_path).features(NAME, [split], model)
    assert found[:, 0].tolist() == [2, 3, 3]
    assert model.asked == [("a", "a", "aa")]


def test_another_base_length_precision_or_data_set_has_features_of_its_own(tmp_path: Path) -> None:
    model = Model()
    others = [("other", *NAME[1:]), ("base", 64, *NAME[2:]), (*NAME[:2], "bf16", "data")]
    for name in [NAME, *others, (*NAME[:3], "more")]:
        cached(tmp_path).features(name, [texts("a")], model)
    assert len(model.asked) == 5


@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied"])
def test_damaged_features_are_computed_again(tmp_path: Path, place: int, damage: str) -> None:
    model = Model()
    (expected,) = cached(tmp_path).features(NAME, [texts("a", "bb")], model)
    (path,) = (tmp_path / "features").iterdir()
    content = bytearray(path.read_bytes())
    at = place * (len(content) - 1) // 4
    if damage == "flipped":
        content[at] ^= 0xFF
    path.write_bytes(content[: {"cut": at, "emptied": 0}.get(damage)])
    (found,) = cached(tmp_path).features(NAME, [texts("a", "bb")], model)
    assert (found == expected).all()
    cached(tmp_path).features(NAME, [texts("a", "bb")], never)


def test_something_else_in_the_place_of_features(tmp_path: Path) -> None:
    model = Model()
    cached(tmp_path).features(NAME, [texts("a")], model)
    (path,) = (tmp_path / "features").iterdir()
    np.savez(path, keys=np.zeros((3, 16), np.uint8), values=np.zeros((1, 2), np.float32))
    cached(tmp_path).features(NAME, [texts("a")], model)
    assert len(model.asked) == 2


def test_what_was_not_used_for_the_longest_time_goes_first(tmp_path: Path) -> None:
    model = Model()
    names = [(str(number),) for number in range(4)]
    for age, name in enumerate(names[:3]):
        cached(tmp_path).features(name, [texts("a")], model)
        for path in (tmp_path / "features").iterdir():
            os.utime(path, (1000 * age, path.stat().st_mtime - 1000))
    size = next((tmp_path / "features").iterdir()).stat().st_size
    cached(tmp_path).features(names[0], [texts("a")], model)  # used again
    cached(tmp_path, most_bytes=3 * size).features(names[3], [texts("a")], model)
    asked = len(model.asked)
    for name in (names[0], names[2], names[3]):
        cached(tmp_path).features(name, [texts("a")], model)
    assert len(model.asked) == asked
    cached(tmp_path).features(names[1], [texts("a")], model)
    assert len(model.asked) == asked + 1


def test_the_newest_stays_however_large(tmp_path: Path) -> None:
    cached(tmp_path, most_bytes=0).features(NAME, [texts("a")], Model())
    cached(tmp_path).features(NAME, [texts("a")], never)


def test_what_killed_processes_have_left_is_removed_once_it_is_old(tmp_path: Path) -> None:
    folder = tmp_path / "features"
    folder.mkdir()
    old, fresh = (folder / f".{name}.npz.abc.partial" for name in ("old", "fresh"))
    for path in (old, fresh, folder / "old.npz"):
        path.write_bytes(b"half")
        os.utime(path, (1000, 1000))
    fresh.touch()
    cached(tmp_path)
    assert {path.name for path in folder.iterdir()} == {fresh.name, "old.npz"}


def test_a_full_disk_costs_nothing_but_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    told: list[str] = []
    (found,) = cached(tmp_path, told.append).features(NAME, [texts("a")], Model())
    assert found.tolist() == [[1, 97]]
    assert len(told) == 1 and "No space left" in told[0]
    assert list((tmp_path / "features").iterdir()) == []
