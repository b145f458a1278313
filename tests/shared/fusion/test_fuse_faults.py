"""Fuses that cannot be done, or are cut short: one sentence, nothing half-made, nothing left."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coldfusion_shared.errors import (
    BadModel,
    ColdFusionError,
    IncompatibleWeights,
    InvalidRequest,
    MalformedWeights,
    NonFiniteWeights,
    StorageFull,
    UnknownName,
)
from coldfusion_shared.fusion.folders import Contribution, Job, fuse_folders
from coldfusion_shared.fusion.new_folder import new_folder
from coldfusion_shared.fusion.plan import COMPARING, FUSING, PREPARING
from coldfusion_shared.schemas.recipes import Recipe
from coldfusion_shared.weights.checkpoint import CHUNK_ELEMENTS
from tests.shared.checkpoints import Array, Tensors, write_file
from tests.shared.fusion.model_folders import (
    all_files,
    finetuned,
    fuse,
    read_model,
    tiny_tensors,
    write_line,
    write_model,
)

DENSE = "encoder.layer.0.dense.weight"


def line(folder: Path, count: int = 2) -> tuple[Path, list[Contribution]]:
    base = tiny_tensors()
    return write_line(folder, base, [finetuned(base, seed) for seed in range(count)])


def refused(
    kind: type[ColdFusionError], base: Path, contributions: list[Contribution], **options: Any
) -> ColdFusionError:
    """Check that the fuse is refused in one sentence and leaves nothing; return the error."""
    folder = base.parent
    before = all_files(folder)
    with pytest.raises(kind) as caught:
        fuse(base, contributions, folder / "out", **options)
    assert type(caught.value) is kind
    assert "\n" not in caught.value.message and caught.value.message.endswith(".")
    assert all_files(folder) == before
    assert not (folder / "out").exists() and not list(folder.glob(".out*"))
    return caught.value


def no_threads_are_left() -> bool:
    return not [one for one in threading.enumerate() if one.name.startswith("fuse")]


# The place where the result goes.


def test_a_folder_with_something_in_it_is_not_overwritten(tmp_path: Path) -> None:
    base, contributions = line(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("precious")
    with pytest.raises(InvalidRequest, match=r"out' is there already and not empty"):
        fuse(base, contributions, tmp_path / "out")
    assert all_files(tmp_path / "out") == {"mine": b"precious"}


def test_a_file_is_not_overwritten(tmp_path: Path) -> None:
    base, contributions = line(tmp_path)
    (tmp_path / "out").write_text("precious")
    with pytest.raises(InvalidRequest, match=r"out' is there already, and no folder"):
        fuse(base, contributions, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "precious"


def test_the_base_is_not_overwritten(tmp_path: Path) -> None:
    base, contributions = line(tmp_path)
    before = all_files(base)
    with pytest.raises(InvalidRequest):
        fuse(base, contributions, base)
    assert all_files(base) == before


def test_an_empty_folder_or_a_new_path_is_taken(tmp_path: Path) -> None:
    base, contributions = line(tmp_path)
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "empty", tmp_path / "deep" / "er" / "out"):
        fuse(base, contributions, out)
        assert (out / "model.safetensors").is_file()
        assert [path.name for path in out.parent.glob(".*")] == []


def test_the_folder_is_readable_as_the_umask_says(tmp_path: Path) -> None:
    base, contributions = line(tmp_path)
    before = os.umask(0o027)
    try:
        fuse(base, contributions, tmp_path / "out")
    finally:
        os.umask(before)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "out" / "model.safetensors").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("name", [".", "link", "broken"])
def test_what_cannot_become_the_folder_is_said_before_the_work(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, contributions = line(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    if name != ".":
        Path(name).symlink_to(tmp_path / ("empty" if name == "link" else "nowhere"))
    read: list[int] = []
    job = Job(base, contributions, Recipe(), Path(name))
    with suppress(InvalidRequest):
        fuse_folders(job, 1, lambda phase, size: read.append(size))
    assert not read or (Path(name) / "model.safetensors").is_file()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    base, contributions = line(tmp_path)
    (tmp_path / "closed").mkdir(0o500)
    with pytest.raises(InvalidRequest, match="cannot be written"):
        fuse(base, contributions, tmp_path / "closed" / "out")


def test_a_place_below_a_file_is_said(tmp_path: Path) -> None:
    base, contributions = line(tmp_path)
    with pytest.raises(InvalidRequest, match="cannot be written"):
        fuse(base, contributions, base / "config.json" / "out")


# Inputs that do not fit.


def spoiled(folder: Path, change: Callable[[dict[str, Array]], object]) -> list[Any]:
    """Return a base and two contributions, of which `change` was applied to c1."""
    base = tiny_tensors()
    model = finetuned(base, 2)
    change(model)
    return list(write_line(folder, base, [finetuned(base, 1), model]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "recipe",
    [{}, {"method": "norm_clipped_mean"}, {"method": "median"}, {"method": "ties"},
     {"dare": {"density": 0.9}}, {"optimizer": "adam"}],
    ids=str,
)  # fmt: skip
def test_what_is_not_finite_is_named(recipe: dict[str, Any], value: float, tmp_path: Path) -> None:
    base, contributions = spoiled(tmp_path, lambda model: model[DENSE].__setitem__((3, 3), value))
    error = refused(NonFiniteWeights, base, contributions, recipe=recipe, threads=2)
    assert "c1" in error.message and DENSE in error.message
    assert error.tensors == (DENSE,)


def test_what_is_not_finite_is_named_without_comparing_too(tmp_path: Path) -> None:
    base, contributions = spoiled(tmp_path, lambda model: model[DENSE].__setitem__((3, 3), np.nan))
    error = refused(NonFiniteWeights, base, contributions, compare=False)
    assert "c1" in error.message and DENSE in error.message


CHANGES: dict[str, Callable[[dict[str, Array]], object]] = {
    "missing": lambda model: model.pop(DENSE),
    "shape": lambda model: model.update({DENSE: np.zeros((6, 7), np.float32)}),
    "dtype": lambda model: model.update({DENSE: np.zeros((6, 6), np.float16)}),
    "integers": lambda model: model.update({DENSE: np.zeros((6, 6), np.int32)}),
    "transposed": lambda model: model.update(
        {"embeddings.word_embeddings.weight": np.zeros((6, 13), np.float32)}
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_another_architecture_is_named(name: str, tmp_path: Path) -> None:
    base, contributions = spoiled(tmp_path, CHANGES[name])
    error = refused(IncompatibleWeights, base, contributions)
    assert "c1" in error.message
    assert len(error.tensors) == 1 and error.tensors[0] in error.message


def test_another_model_altogether_is_named(tmp_path: Path) -> None:
    base, contributions = line(tmp_path, 1)
    other = write_model(tmp_path / "gpt", {"h.0.weight": np.ones((2, 2), np.float32)})
    error = refused(IncompatibleWeights, base, [*contributions, Contribution("gpt", other)])
    assert "gpt" in error.message and "4 missing" in error.message


def test_a_made_from_of_another_architecture_is_named(tmp_path: Path) -> None:
    base, contributions = line(tmp_path, 1)
    other = write_model(tmp_path / "gpt", {"h.0.weight": np.ones((2, 2), np.float32)})
    odd = Contribution("odd", contributions[0].folder, made_from=other)
    assert "The base of odd" in refused(IncompatibleWeights, base, [odd]).message


def test_an_origin_of_another_architecture_is_named(tmp_path: Path) -> None:
    base, contributions = line(tmp_path, 1)
    other = write_model(tmp_path / "gpt", {"h.0.weight": np.ones((2, 2), np.float32)})
    error = refused(IncompatibleWeights, base, contributions, recipe={"pull": 0.1}, origin=other)
    assert "pretrained model" in error.message


def cut(folder: Path, size: int) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(size)


@pytest.mark.parametrize("size", [0, 5, 100, 1000])
def test_a_truncated_file_is_named(size: int, tmp_path: Path) -> None:
    base, contributions = line(tmp_path)
    cut(contributions[1].folder, size)
    assert "c1" in refused(MalformedWeights, base, contributions).message


def test_a_truncated_base_is_named(tmp_path: Path) -> None:
    base, contributions = line(tmp_path)
    cut(base, 1000)
    assert "The base" in refused(MalformedWeights, base, contributions).message


def no_models(folder: Path) -> Iterator[Path]:
    """Yield folders that are no model, and paths that are no folder."""
    (folder / "empty").mkdir()
    yield folder / "empty"
    yield folder / "nowhere"
    pickles = folder / "pickles"
    pickles.mkdir()
    (pickles / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    yield pickles
    sharded = write_model(folder / "sharded", tiny_tensors(), 3)
    (sharded / "model-00002-of-00003.safetensors").unlink()
    yield sharded
    yield folder / "base" / "model.safetensors"


def test_a_folder_that_is_no_model_is_named(tmp_path: Path) -> None:
    base, contributions = line(tmp_path, 1)
    for place in list(no_models(tmp_path)):
        error = refused(BadModel, base, [*contributions, Contribution("odd", place)])
        assert "odd" in error.message
        assert "The base" in refused(BadModel, place, contributions).message


def test_two_shards_with_one_tensor_are_refused(tmp_path: Path) -> None:
    base, _ = line(tmp_path, 1)
    twice = write_model(tmp_path / "twice", tiny_tensors(), 2)
    write_file(twice / "model-00002-of-00002.safetensors", tiny_tensors())
    error = refused(MalformedWeights, base, [Contribution("twice", twice)])
    assert "twice" in error.message


def test_two_contributions_of_one_name_are_refused(tmp_path: Path) -> None:
    base, contributions = line(tmp_path, 1)
    error = refused(InvalidRequest, base, contributions * 2)
    assert "same name" in error.message


def test_no_contribution_is_refused(tmp_path: Path) -> None:
    base, _ = line(tmp_path, 1)
    assert "no contribution" in refused(InvalidRequest, base, []).message


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"method": "trimmed_mean", "parameters": {"beta": 0.7}}, ["beta"]),
        ({"method": "ties", "parameters": {"densty": 0.7}}, ["densty", "ties"]),
        ({"method": "krum"}, ["krum", "at least"]),
        ({"method": "bulyan"}, ["bulyan", "at least"]),
        ({"method": "model_stock"}, ["model_stock", "at least 2"]),
        ({"optimizer": "adam", "optimizer_parameters": {"beta": 2}}, ["adam", "beta"]),
    ],
    ids=str,
)
def test_parameters_that_do_not_fit_are_named(
    recipe: dict[str, Any], words: list[str], tmp_path: Path
) -> None:
    base, contributions = line(tmp_path, 1)
    error = refused(InvalidRequest, base, contributions, recipe=recipe)
    for word in words:
        assert word in error.message


@pytest.mark.parametrize("recipe", [{"method": "magic"}, {"optimizer": "magic"}])
def test_unknown_methods_and_optimizers_are_named(recipe: dict[str, str], tmp_path: Path) -> None:
    base, contributions = line(tmp_path, 1)
    assert "magic" in refused(UnknownName, base, contributions, recipe=recipe).message


@pytest.mark.parametrize("priors", [(0, 0), (-1, 2), (np.nan, 1), (np.inf, 1)])
def test_weights_that_are_none_are_refused(priors: tuple[float, float], tmp_path: Path) -> None:
    base, contributions = line(tmp_path, 2)
    weighted = [
        Contribution(item.name, item.folder, prior=prior)
        for item, prior in zip(contributions, priors, strict=True)
    ]
    assert "weights" in refused(InvalidRequest, base, weighted).message


# Files that change, disks that are full.


def large(folder: Path) -> tuple[Path, list[Contribution]]:
    """Return a base and two contributions of ten chunks."""
    rng = np.random.default_rng(0)
    base = {"encoder.weight": rng.standard_normal((10, CHUNK_ELEMENTS)).astype(np.float32)}
    return write_line(folder, base, [finetuned(base, seed) for seed in range(2)])


SHRINKING = [
    ({}, FUSING, "base"), ({}, FUSING, "c0"), ({}, FUSING, "c1"),
    ({"method": "norm_clipped_mean"}, COMPARING, "c1"), ({"method": "ties"}, PREPARING, "c0"),
    ({"method": "median"}, FUSING, "base"), ({"optimizer": "momentum"}, FUSING, "c0"),
]  # fmt: skip


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("recipe", "when", "who"), SHRINKING, ids=str)
def test_a_file_that_shrinks_while_it_is_read_is_an_error(
    recipe: dict[str, Any], when: str, who: str, threads: int, tmp_path: Path
) -> None:
    base, contributions = large(tmp_path)

    def shrink(phase: str, size: int) -> None:
        if phase == when:
            cut(tmp_path / who, 100_000)

    job = Job(base, contributions, Recipe.model_validate(recipe), tmp_path / "out")
    with pytest.raises(MalformedWeights, match="became shorter while it was read") as caught:
        fuse_folders(job, threads, shrink)
    assert "\n" not in caught.value.message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "c0", "c1"]
    assert no_threads_are_left()


def test_whose_file_shrank_is_said(tmp_path: Path) -> None:
    base, contributions = large(tmp_path)
    job = Job(base, contributions, Recipe(), tmp_path / "out")
    with pytest.raises(MalformedWeights) as caught:
        fuse_folders(job, 1, lambda phase, size: cut(tmp_path / "c1", 100_000))
    assert "c1" in caught.value.message


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_cannot_promise_the_room_is_full(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, contributions = line(tmp_path)

    def full(file: int, start: int, size: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", full)
    read: list[str] = []
    job = Job(base, contributions, Recipe(), tmp_path / "out")
    with pytest.raises(StorageFull, match="out could not be written") as caught:
        fuse_folders(job, 1, lambda phase, size: read.append(phase))
    assert caught.value.hint is not None and str(tmp_path) in caught.value.hint
    assert FUSING not in read
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "c0", "c1"]


def test_a_file_system_that_never_promises_is_written_to_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, contributions = line(tmp_path)
    fuse(base, contributions, tmp_path / "promised")

    def unknown(file: int, start: int, size: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "no")

    monkeypatch.setattr(os, "posix_fallocate", unknown)
    fuse(base, contributions, tmp_path / "out")
    assert all_files(tmp_path / "out") == all_files(tmp_path / "promised")


@pytest.mark.parametrize("name", ["fsync", "write_text", "copyfile", "mkdtemp"])
def test_a_disk_that_fills_up_on_the_way_leaves_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    base, contributions = line(tmp_path)
    owner: Any = {"fsync": os, "write_text": Path, "copyfile": shutil, "mkdtemp": tempfile}[name]
    monkeypatch.setattr(owner, name, full)
    refused(StorageFull, base, contributions)


def test_a_write_that_fails_in_the_middle_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, contributions = large(tmp_path)
    written = [0]
    opened = Path.open

    class Full:
        """A file on a disk with room for 1 MiB."""

        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def write(self, data: memoryview) -> int:
            written[0] += len(data)
            if written[0] > 2**20:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return int(self.file.write(data))

    def on_a_small_disk(self: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        file = opened(self, mode, *rest, **options)
        return Full(file) if mode == "wb" else file

    monkeypatch.setattr(Path, "open", on_a_small_disk)
    with pytest.raises(StorageFull):
        fuse(base, contributions, tmp_path / "out", threads=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "c0", "c1"]
    assert no_threads_are_left()


def test_a_disk_that_fills_up_while_scoring_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    base, contributions = line(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFull):
        fuse(base, contributions, tmp_path / "out", {"method": "greedy_soup"},
             score=lambda folder: 1.0)  # fmt: skip


def test_an_input_that_cannot_be_read_is_not_blamed_on_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, contributions = large(tmp_path)
    broken: list[int] = []
    reading = os.preadv

    def failing(file: int, buffers: Any, start: int) -> int:
        if broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return reading(file, buffers, start)

    monkeypatch.setattr(os, "preadv", failing)
    job = Job(base, contributions, Recipe(), tmp_path / "out")
    with pytest.raises(ColdFusionError) as caught:
        fuse_folders(job, 1, lambda phase, size: broken.append(1))
    assert "cannot be written" not in caught.value.message


# What processes leave behind.


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    base, contributions = large(tmp_path)

    def interrupt(phase: str, size: int) -> None:
        assert list(tmp_path.glob(".out.partial-*"))
        raise KeyboardInterrupt

    for threads in (1, 2):
        job = Job(base, contributions, Recipe(), tmp_path / "out")
        with pytest.raises(KeyboardInterrupt):
            fuse_folders(job, threads, interrupt)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "c0", "c1"]


def leftover(folder: Path, name: str) -> Path:
    made = folder / name
    made.mkdir()
    (made / "model.safetensors").write_bytes(b"half")
    return made


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    base, contributions = line(tmp_path)
    old = leftover(tmp_path, ".out.partial-abcd1234")
    others = [leftover(tmp_path, name) for name in (".other.partial-abcd1234", "out.partial-1")]
    fuse(base, contributions, tmp_path / "out")
    assert not old.exists()
    assert all(other.exists() for other in others)


def test_what_was_left_is_removed_whatever_the_name(tmp_path: Path) -> None:
    base, contributions = line(tmp_path)
    old = leftover(tmp_path, ".out[1].partial-abcd1234")
    fuse(base, contributions, tmp_path / "out[1]")
    assert not old.exists()


def test_what_others_left_is_not_removed_whatever_the_name(tmp_path: Path) -> None:
    base, contributions = line(tmp_path)
    other = leftover(tmp_path, ".other.partial-abcd1234")
    fuse(base, contributions, tmp_path / "o*")
    assert other.exists()


HOLDING = """
import sys, time
from pathlib import Path
from coldfusion_shared.fusion.new_folder import new_folder
with new_folder(Path(sys.argv[1])) as folder:
    (folder / "model.safetensors").write_bytes(b"half")
    print(folder, flush=True)
    time.sleep(600)
"""


@contextmanager
def process(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """Run Python with `arguments`; nothing is left running in the end."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    running = subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    try:
        yield running
    finally:
        running.kill()
        running.communicate()


def test_what_a_living_process_is_writing_is_left_alone_until_it_is_dead(tmp_path: Path) -> None:
    base, contributions = line(tmp_path)
    with process("-c", HOLDING, tmp_path / "out") as running:
        assert running.stdout is not None
        held = Path(running.stdout.readline().strip())
        fuse(base, contributions, tmp_path / "out")
        assert (held / "model.safetensors").read_bytes() == b"half"
    assert held.exists()
    shutil.rmtree(tmp_path / "out")
    fuse(base, contributions, tmp_path / "out")
    assert not held.exists()


def test_a_folder_that_another_process_removed_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, contributions = line(tmp_path)
    making = tempfile.mkdtemp

    def raced(*rest: Any, **options: Any) -> str:
        made = str(making(*rest, **options))
        monkeypatch.setattr(tempfile, "mkdtemp", making)
        with suppress(KeyboardInterrupt), new_folder(tmp_path / "out"):
            raise KeyboardInterrupt
        return made

    monkeypatch.setattr(tempfile, "mkdtemp", raced)
    fuse(base, contributions, tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_two_fuses_at_once_go_to_different_folders(tmp_path: Path) -> None:
    base, contributions = large(tmp_path)
    made: list[Any] = []

    def one(name: str) -> None:
        made.append(fuse(base, contributions, tmp_path / name, threads=2))

    workers = [threading.Thread(target=one, args=(name,)) for name in ("a", "a.partial-b", "b")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(300)
    assert len(made) == 3
    results = [all_files(tmp_path / name) for name in ("a", "a.partial-b", "b")]
    assert results[0] == results[1] == results[2]
    assert not list(tmp_path.glob(".*"))


# Real processes.

MEGABYTES = 100
SLOW = ("--method", "ties", "--threads", "2")


@pytest.fixture(scope="module")
def heavy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base of 100 MB and two contributions, for a fuse of some seconds."""
    folder = tmp_path_factory.mktemp("heavy")
    rng = np.random.default_rng(0)
    base = {
        f"encoder.{place}.weight": rng.standard_normal((250, 10_000), np.float32)
        for place in range(MEGABYTES // 10)
    }
    write_model(folder / "base", base)
    for seed in range(2):
        moved: Tensors = {
            name: array + np.float32(1e-3) * rng.standard_normal(array.shape, np.float32)
            for name, array in base.items()
        }
        write_model(folder / f"c{seed}", moved)
    return folder


def command(heavy: Path, out: Path, *options: str) -> list[str | Path]:
    return ["-m", "coldfusion_server", "fuse", "--base", heavy / "base", "--out", out,
            heavy / "c0", heavy / "c1", *options]  # fmt: skip


# A process that is to be ended in the middle may be through before anybody looks.
ATTEMPTS = 9


def ended_amid(
    running: subprocess.Popen[str], out: Path, how: signal.Signals, amid: Callable[[], object]
) -> tuple[str, str] | None:
    """End a process as soon as `amid` holds; return its words, null if `out` was made before."""
    end = time.monotonic() + 300
    while not amid() and running.poll() is None:
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)
    running.send_signal(how)
    said = running.communicate(timeout=300)
    # Ended while it went home, it may have ended with any number.
    return None if out.exists() else said


def is_writing(folder: Path) -> bool:
    """Whether a process has made its temporary folder."""
    return any(folder.glob(".out.partial-*/model.safetensors"))


def is_reading(running: subprocess.Popen[str], folder: Path) -> bool:
    """Whether the process holds the weights in `folder` open."""
    found = set()
    with suppress(OSError):
        for place in Path(f"/proc/{running.pid}/fd").iterdir():
            with suppress(OSError):
                found.add(str(place.readlink()))
    return str(folder / "model.safetensors") in found


@pytest.mark.parametrize("when", ["reading", "writing"])
def test_control_c_ends_with_130_and_leaves_nothing(when: str, heavy: Path, tmp_path: Path) -> None:
    for attempt in range(ATTEMPTS):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        with process(*command(heavy, folder / "out", *SLOW)) as running:
            said = ended_amid(
                running,
                folder / "out",
                signal.SIGINT,
                lambda folder=folder, running=running: (  # type: ignore[misc]
                    is_writing(folder) if when == "writing" else is_reading(running, heavy / "c1")
                ),
            )
        if said is not None:
            break
    else:
        pytest.fail("it was never ended in time")
    out, err = said
    assert running.returncode == 130, err
    assert "Traceback" not in err and out == ""
    assert list(folder.iterdir()) == []


def test_a_killed_fuse_leaves_no_model_and_the_next_one_cleans_up(
    heavy: Path, tmp_path: Path
) -> None:
    for _ in range(ATTEMPTS):
        with process(*command(heavy, tmp_path / "out", *SLOW)) as running:
            amid = ended_amid(
                running, tmp_path / "out", signal.SIGKILL, lambda: is_writing(tmp_path)
            )
            if amid is not None:
                break
        shutil.rmtree(tmp_path / "out")
    else:
        pytest.fail("it was never killed in time")
    assert running.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    assert len(list(tmp_path.glob(".out.partial-*"))) == 1
    with process(*command(heavy, tmp_path / "out")) as again:
        _, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert set(read_model(tmp_path / "out")) == set(read_model(heavy / "base"))


def test_a_fault_of_a_real_process_is_one_sentence_and_1(heavy: Path, tmp_path: Path) -> None:
    with process(*command(heavy, tmp_path / "out", "--method", "krum")) as running:
        out, err = running.communicate(timeout=300)
    assert running.returncode == 1 and out == ""
    assert err.startswith("Error: ") and "krum" in err and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []
