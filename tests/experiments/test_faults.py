"""A failure of the machine, or a mistake, ends a run; what fails by its numbers is a result."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coldfusion_shared.errors import ColdFusionError, InvalidRequest, StorageFull, TrainingFailed
from coldfusion_shared.finetune.failures import diverged, named_failures
from coldfusion_shared.fusion.new_folder import new_folder
from experiments.cache import MODEL
from experiments.faults import Fault
from experiments.records import read
from tests.experiments.conftest import Inputs
from tests.experiments.labs import lab_of

INPUTS = {"seed": 0}


def named(error: Exception) -> None:
    """Raise what a finetuning makes of an error of torch or the system."""
    with named_failures():
        raise error


def unwritable() -> None:
    with new_folder(Path("/proc/nowhere/model")):
        pass


def refused() -> None:
    raise InvalidRequest("needs at least 3 contributions")


def not_finite() -> None:
    raise diverged(3, 0.1)


@pytest.mark.parametrize(
    ("kind", "job"),
    [("finetune", not_finite), ("fuse", refused), ("soup", refused)],
)
def test_what_comes_to_nothing_by_its_numbers_is_noted(
    kind: str, job: Callable[[], Any], inputs: Inputs, tmp_path: Path
) -> None:
    lab = lab_of(inputs, tmp_path)
    with lab.failing("arm", 1, 0):
        lab.make(kind, "something", INPUTS, 1, lambda _: job() or {})
    [record] = read(lab.notebook.records.path)
    assert (record.kind, record.arm, record.iteration) == ("failure", "arm", 1)
    assert record.note


@pytest.mark.parametrize(
    ("kind", "job"),
    [
        ("finetune", refused),
        ("serve", refused),
        ("fuse", unwritable),
        ("finetune", lambda: named(MemoryError())),
        ("finetune", lambda: named(RuntimeError("CUDA error: an illegal memory access"))),
        ("finetune", lambda: named(OSError(errno.EIO, "Input/output error"))),
        ("probe", lambda: Path("/proc/nowhere").read_text()),
    ],
)
def test_what_the_machine_got_wrong_ends_the_run(
    kind: str, job: Callable[[], Any], inputs: Inputs, tmp_path: Path
) -> None:
    lab = lab_of(inputs, tmp_path)
    with pytest.raises(Fault, match=f"{kind} something: "), lab.failing("arm"):
        lab.make(kind, "something", INPUTS, 1, lambda _: job() or {})
    assert not lab.notebook.records.path.exists()


@pytest.mark.parametrize("error", [StorageFull("full"), TrainingFailed("of itself")])
def test_other_errors_stay_what_they_are(
    error: ColdFusionError, inputs: Inputs, tmp_path: Path
) -> None:
    def fail(_: Path) -> dict[str, Any]:
        raise error

    with pytest.raises(type(error)):
        lab_of(inputs, tmp_path).make("finetune", "something", INPUTS, 1, fail)


def test_weights_that_come_out_otherwise_end_the_run(inputs: Inputs, tmp_path: Path) -> None:
    lab, built = lab_of(inputs, tmp_path), []

    def build(folder: Path) -> dict[str, Any]:
        built.append(folder)
        (folder / MODEL).mkdir()
        (folder / MODEL / "config.json").write_text(str(len(built)))
        (folder / MODEL / "model.safetensors").write_bytes(b"")
        return {}

    model = lab.make_model("finetune", "something", INPUTS, 1, build)
    for file in model.folder().iterdir():
        file.unlink()
    (lab.cache.make("finetune", INPUTS, build).folder / MODEL).rmdir()
    with pytest.raises(Fault, match="came out otherwise") as caught, lab.failing("arm"):
        model.folder()
    assert "cache_gb" in (caught.value.hint or "")
