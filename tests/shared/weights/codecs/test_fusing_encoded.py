"""A fuse takes encoded updates as it takes whole models: by what they decode to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coldfusion_shared.errors import NonFiniteWeights
from coldfusion_shared.fusion.executor import threads
from coldfusion_shared.fusion.updates import Update
from coldfusion_shared.schemas.recipes import Recipe
from coldfusion_shared.weights.codecs.encoding import UPDATE_FILE
from tests.shared.checkpoints import BFLOAT16, Array, file_bytes
from tests.shared.fusion.fusing import fuse
from tests.shared.weights.codecs.encoded import ALL, Pair, normal

BASE: dict[str, Array] = {
    "embedding": normal(300, 768, scale=0.02, seed=100),
    "layer": normal(200, 300, scale=0.02, seed=101),
    "bias": normal(300, scale=0.02, seed=102),
}


def pairs(folder: Path) -> dict[str, Pair]:
    """Return a contribution by encoding; each left one tensor as it was."""
    found = {}
    for place, encoding in enumerate(ALL):
        update = {
            name: normal(*values.shape, scale=1e-3, seed=place) for name, values in BASE.items()
        }
        frozen = list(BASE)[place % 3]
        update[frozen] = np.zeros_like(update[frozen])
        found[encoding] = Pair(folder / encoding, update, BASE)
    return found


@pytest.mark.parametrize("method", ["mean", "norm_clipped_mean", "trimmed_mean", "median"])
def test_all_encodings_in_one_round(method: str, tmp_path: Path) -> None:
    made = pairs(tmp_path)
    decoded = {encoding: pair.round_trip(encoding) for encoding, pair in made.items()}
    base = made["full"].base
    updates = [
        Update(encoding, pair.open(encoding), discount=0.5 if encoding == "delta" else 1)
        for encoding, pair in made.items()
    ]
    # The same updates, as differences in float32.
    plain = [
        Update(update.id, _Dense(decoded[update.id]), discount=update.discount)
        for update in updates
    ]
    recipe = Recipe(method=method)
    found = fuse(base, updates, recipe)["weights"]
    wanted = fuse(base, plain, recipe)["weights"]
    threaded = fuse(base, updates, recipe, executor=threads(3))["weights"]
    for name in BASE:
        assert found[name].tobytes() == threaded[name].tobytes()
        np.testing.assert_allclose(found[name], wanted[name], rtol=0, atol=8e-9)
        assert not np.array_equal(found[name], BASE[name])


def test_many_updates_are_read_in_parts_of_blocks(tmp_path: Path) -> None:
    made = pairs(tmp_path)["delta-sparse"]
    decoded = made.round_trip("delta-sparse")
    reader = made.open("delta-sparse")
    updates = [Update(f"c{place}", reader) for place in range(130)]
    found = fuse(made.base, updates, Recipe(method="median"))["weights"]
    for name, values in BASE.items():
        np.testing.assert_allclose(found[name], values + decoded[name], rtol=0, atol=8e-9)


def test_a_difference_that_is_not_finite_is_told_with_its_contribution(tmp_path: Path) -> None:
    made = pairs(tmp_path)["delta"]
    update = normal(300).astype(BFLOAT16)
    update[7] = np.inf
    (made.folder / UPDATE_FILE).write_bytes(file_bytes({"bias": update}))
    with pytest.raises(NonFiniteWeights, match="Contribution c7 .*'bias'"):
        fuse(made.base, [Update("c7", made.open("delta"))], Recipe())


class _Dense:
    """An update in memory."""

    def __init__(self, tensors: dict[str, Array]) -> None:
        self.tensors = tensors

    def read(self, span, start, stop, out, scratch) -> None:  # type: ignore[no-untyped-def]
        out[:] = self.tensors[span.name].reshape(-1)[start:stop]

    def terms(self, span) -> None:  # type: ignore[no-untyped-def]
        return
