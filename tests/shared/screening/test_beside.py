"""The outcome of a screening beside others that came meanwhile: by numbers, with no file open."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coldfusion_shared.screening import discover
from coldfusion_shared.screening.history import Past
from coldfusion_shared.screening.screen import Encoded, Screening, screen
from coldfusion_shared.weights.checkpoint import Checkpoint, FileSource
from tests.shared.checkpoints import Array, write_file
from tests.shared.screening.known import concluded, measures, other, past

LAYER = np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)
# Two matrices that are one: what looks at them again needs the base.
BASE: dict[str, Array] = {"one.weight": LAYER, "two.weight": LAYER, "bias": LAYER[0]}


def screened(folder: Path) -> Screening:
    """Screen an update that has the two matrices apart, and close everything."""
    rng = np.random.default_rng(3)
    moved = {
        name: (array + 1e-3 * rng.standard_normal(array.shape)).astype(np.float32)
        for name, array in BASE.items()
    }
    write_file(folder / "base.safetensors", BASE)
    write_file(folder / "upload", moved)
    with Checkpoint.from_file(folder / "base.safetensors") as base:
        source = FileSource(folder / "upload")
        try:
            sent, told = Encoded("full", {"model.safetensors": source}), {"action": "warn"}
            return screen(sent, base, parameters={"tied": told})
        finally:
            source.close()


def test_a_copy_that_came_meanwhile_is_found_and_nothing_else_changes(tmp_path: Path) -> None:
    before = screened(tmp_path)
    assert (before.verdict, before.measures is not None) == ("warn", True), "the matrices are apart"
    assert before.measures is not None
    known = past([other(1, sketch=before.measures.sketch, digest="0" * 64)])
    after = before.beside(known)
    assert after.verdict == "quarantine"
    changed = [a.check for a, b in zip(after.findings, before.findings, strict=True) if a != b]
    assert changed == ["copies"]
    # As it was, where nobody came.
    assert before.beside(Past()).findings == before.findings


def test_what_was_not_measured_stays_as_it_was() -> None:
    outcome = Screening([])
    assert outcome.beside(past([other(1)])) is outcome


@pytest.mark.parametrize("name", sorted(discover()))
def test_a_check_that_goes_by_others_says_so(name: str) -> None:
    odd = measures(norm=900.0, tensor_norms={"words.weight": 0.9, "layer.0.weight": 0.001})
    unlike = past([other(number) for number in range(1, 12)])
    alike = past([other(n, sketch=odd.sketch, digest=odd.digest) for n in range(1, 12)])
    messages = {concluded(name, odd, history).message for history in (past([]), unlike, alike)}
    assert discover()[name].compares == (len(messages) > 1)
