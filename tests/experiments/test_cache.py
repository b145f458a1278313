"""What was made is made once, appears whole or not at all, and weights go and come again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from threading import Event
from typing import Any

import pytest

from experiments.cache import GOING, MADE, MODEL, Cache
from experiments.digests import ENGINE, SHARED, digest_of, engine
from experiments.faults import Fault

INPUTS = {"base": "a", "seed": 1}


class Builder:
    """Writes weights of some bytes, and counts how often."""

    def __init__(self, size: int = 100, digest: str = "d") -> None:
        self.size, self.digest, self.count = size, digest, 0

    def __call__(self, folder: Path) -> dict[str, Any]:
        self.count += 1
        (folder / MODEL).mkdir()
        (folder / MODEL / "weights").write_bytes(b"x" * self.size)
        return {"digest": self.digest}


def test_the_same_inputs_are_made_once(tmp_path: Path) -> None:
    build = Builder()
    first = Cache(tmp_path, 10**6).make("kind", INPUTS, build)
    again = Cache(tmp_path, 10**6).make("kind", INPUTS, build)
    assert (build.count, again) == (1, first)


@pytest.mark.parametrize("other", [{**INPUTS, "seed": 2}, {**INPUTS, "base": "b"}])
def test_other_inputs_are_made_anew(tmp_path: Path, other: dict[str, Any]) -> None:
    cache, build = Cache(tmp_path, 10**6), Builder()
    cache.make("kind", INPUTS, build)
    cache.make("kind", other, build)
    cache.make("other kind", INPUTS, build)
    assert build.count == 3


def test_what_other_code_made_is_made_anew(tmp_path: Path) -> None:
    build = Builder()
    for code in ("one", "other", "one"):
        Cache(tmp_path, 10**6, code).make("kind", INPUTS, build)
    assert build.count == 2


def test_the_code_that_decides_weights_and_scores_is_known_by_its_text(tmp_path: Path) -> None:
    assert all((SHARED / part).is_dir() for part in ENGINE)
    assert engine() == engine()
    file = tmp_path / "codec.py"
    digests = []
    for text in ("scale = 1\n", "scale = 2\n"):
        file.write_text(text)
        digests.append(digest_of(tmp_path, [file]))
    assert len({engine(), *digests}) == 3


class Slow(Builder):
    """Begins, and goes on when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go_on = Event(), Event()

    def __call__(self, folder: Path) -> dict[str, Any]:
        self.begun.set()
        assert self.go_on.wait(60)
        return super().__call__(folder)


@contextmanager
def another(build: Slow, job: Callable[[], Any]) -> Iterator[Future[Any]]:
    """Do a job beside us, which is under way when the block begins."""
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(job)
        try:
            assert build.begun.wait(60)
            yield found
        finally:
            build.go_on.set()


def test_what_another_process_makes_is_waited_for(tmp_path: Path) -> None:
    slow, unused, told = Slow(), Builder(), []

    def waiting() -> None:
        told.append("waits")
        slow.go_on.set()

    with another(slow, lambda: Cache(tmp_path, 10**6).make("kind", INPUTS, slow)) as theirs:
        ours = Cache(tmp_path, 10**6).make("kind", INPUTS, unused, waiting)
        assert ours == theirs.result()
    assert (slow.count, unused.count, told) == (1, 0, ["waits"])
    assert not list(tmp_path.rglob("*.lock"))


def test_who_waits_for_what_fails_makes_it(tmp_path: Path) -> None:
    slow, build = Slow(), Builder()

    def fail(folder: Path) -> dict[str, Any]:
        slow(folder)
        raise ValueError

    with another(slow, lambda: Cache(tmp_path, 10**6).make("kind", INPUTS, fail)) as theirs:
        Cache(tmp_path, 10**6).make("kind", INPUTS, build, slow.go_on.set)
        assert isinstance(theirs.exception(), ValueError)
    assert build.count == 1


def test_weights_that_another_process_makes_again_are_waited_for(tmp_path: Path) -> None:
    cache, slow, unused = Cache(tmp_path, 150), Slow(), Builder()
    for seed in range(2):
        cache.make("kind", {"seed": seed}, Builder())
    with another(slow, lambda: cache.weights("kind", {"seed": 0}, slow)) as theirs:
        other = Cache(tmp_path, 150)
        ours = other.weights("kind", {"seed": 0}, unused, slow.go_on.set)
        assert ours == theirs.result() and (ours / "weights").is_file()
    assert (slow.count, unused.count) == (1, 0)


def test_weights_whose_removal_was_cut_off_are_taken_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, build = Cache(tmp_path, 150), Builder()
    first = cache.make("kind", {"seed": 0}, build)

    def killed(folder: Path, **options: Any) -> None:
        if folder.name == MODEL or folder.name.startswith(GOING):
            (folder / "weights").unlink()
            raise KeyboardInterrupt
        rmtree(folder, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("shutil.rmtree", killed)
        cache.make("kind", {"seed": 1}, build)
    assert list(first.folder.glob(f"{GOING}*"))
    assert (cache.weights("kind", {"seed": 0}, build) / "weights").is_file()
    assert build.count == 3
    assert not list(tmp_path.rglob(f"{GOING}*"))


def test_what_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 10**6)

    def fail(folder: Path) -> dict[str, Any]:
        (folder / "half").write_text("done")
        raise ValueError

    with pytest.raises(ValueError):
        cache.make("kind", INPUTS, fail)
    assert cache.find("kind", INPUTS) is None
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_weights_that_were_not_used_for_long_go_and_are_made_again(tmp_path: Path) -> None:
    cache, build = Cache(tmp_path, 250), Builder()
    made = [cache.make("kind", {"seed": seed}, build) for seed in range(3)]
    assert not (made[0].folder / MODEL).exists()
    assert (made[2].folder / MODEL).exists()
    # What there is to say of them stays, and nothing is made to say it.
    assert cache.make("kind", {"seed": 0}, build).facts == made[0].facts and build.count == 3
    assert (cache.weights("kind", {"seed": 0}, build) / "weights").read_bytes() == b"x" * 100
    assert build.count == 4


def test_weights_that_come_out_otherwise_are_refused(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 150)
    cache.make("kind", {"seed": 0}, Builder())
    cache.make("kind", {"seed": 1}, Builder())
    with pytest.raises(Fault, match="came out otherwise"):
        cache.weights("kind", {"seed": 0}, Builder(digest="other"))


def test_to_look_for_an_entry_is_no_use_of_its_weights(tmp_path: Path) -> None:
    cache, builder = Cache(tmp_path, 250), Builder()
    inputs = [{"number": number} for number in range(3)]
    made = [cache.make("kind", one, builder) for one in inputs[:2]]
    for age, one in enumerate(made):
        os.utime(one.folder / MADE, (age, age))
    cache.weights("kind", inputs[0], builder)
    # As every process does with all entries, in the order of the protocol, again and again.
    assert cache.find("kind", inputs[1])
    cache.make("kind", inputs[2], builder)
    assert [(one.folder / MODEL).is_dir() for one in made] == [True, False]
