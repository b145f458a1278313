"""What was made is made once, appears whole or not at all, and weights go and come again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coldfusion_shared.errors import InvalidRequest
from experiments.cache import MODEL, Cache

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
    with pytest.raises(InvalidRequest, match="came out otherwise"):
        cache.weights("kind", {"seed": 0}, Builder(digest="other"))
