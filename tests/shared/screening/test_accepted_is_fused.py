"""What screening accepts can be fused: otherwise its round would never come to an end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coldfusion_shared.fusion import optimizers
from coldfusion_shared.fusion.engine import Onto, fused
from coldfusion_shared.fusion.methods import discover
from coldfusion_shared.fusion.plan import kinds, make_plan
from coldfusion_shared.fusion.updates import Update, together_in_update
from coldfusion_shared.fusion.views import (
    MASTER,
    WEIGHTS,
    View,
    master_view,
    needs_master,
    state_views,
    weights_view,
)
from coldfusion_shared.schemas.recipes import Dare, Recipe
from coldfusion_shared.screening import discover as checks
from coldfusion_shared.screening.check import Tunable
from coldfusion_shared.screening.screen import Encoded, screen
from coldfusion_shared.weights.body import body
from coldfusion_shared.weights.checkpoint import Checkpoint, FileSource
from coldfusion_shared.weights.codecs import discover as encodings
from coldfusion_shared.weights.codecs import open_update
from coldfusion_shared.weights.tied import fused_tensors
from tests.shared.checkpoints import BFLOAT16, Array, read_file, write_file
from tests.shared.screening.sent import Random, sent

# A round knows neither scores nor Fisher information.
METHODS = [
    name
    for name in discover()
    if not getattr(discover()[name], "needs_score", False)
    and not getattr(discover()[name], "needs_fisher", False)
]
ENCODINGS = sorted(encodings())
# What a model may set otherwise must not be what keeps a fuse from breaking.
LENIENT = {
    name: {"enabled": False}
    for name in checks()
    if issubclass(checks()[name].parameters_type, Tunable)
}
DTYPES = [np.dtype(np.float32), np.dtype(np.float16), BFLOAT16, np.dtype(np.float64)]


def base_of(rng: Random, dtype: np.dtype[Any], *, tied: bool) -> dict[str, Array]:
    """Return a base of odd shapes, a head and an integer tensor among them."""
    shapes: dict[str, tuple[int, ...]] = {
        "words.weight": (9, 6), "square.weight": (7, 7), "bias": (5,), "scale": (),
        "row.weight": (1, 8), "empty.weight": (0, 4), "deep": (2, 3, 2),
    }  # fmt: skip
    tensors = {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}
    tensors["bias"] = (rng.choice([0, 1, 3e4, 6.5e4], 5)).astype(dtype)
    tensors["classifier.weight"] = rng.standard_normal((2, 6)).astype(dtype)
    if tied:
        tensors["other.weight"] = tensors["square.weight"]
        tensors["lm_head.weight"] = tensors["words.weight"]
    return {name: np.asarray(values) for name, values in tensors.items()} | {"ids": np.arange(4)}


class Line:
    """A base and what comes of it, round by round, as the server fuses."""

    def __init__(self, folder: Path, tensors: dict[str, Array]) -> None:
        self.folder = folder
        self.number = 0
        self.base = self._opened({WEIGHTS: tensors})[WEIGHTS]
        self.master: Checkpoint | None = None
        self.state: dict[str, Checkpoint] = {}

    def _opened(self, views: dict[str, dict[str, Array]]) -> dict[str, Checkpoint]:
        self.number += 1
        home = self.folder / str(self.number)
        return {
            name: Checkpoint.from_file(write_file(home / f"{name}.safetensors", tensors))
            for name, tensors in views.items()
        }

    def accepted(self, contributions: Sequence[Encoded]) -> list[Encoded]:
        return [
            one
            for one in contributions
            if not screen(one, self.base, parameters=LENIENT).rejections
        ]

    def fuse(self, contributions: Sequence[Encoded], recipe: Recipe) -> int:
        """Fuse what was accepted; return how many values stayed as they were."""
        readers = [open_update(c.encoding, c.sources, self.base.tensors) for c in contributions]
        spans = self.base.spans()
        tensors = fused_tensors(self.base, [together_in_update(r, spans) for r in readers])
        updates = [Update(f"c{place}", reader) for place, reader in enumerate(readers)]
        plan = make_plan(tensors.spans, updates, recipe)
        # What the manifest says of it.
        assert np.isfinite([plan.server_lr, *(plan.mean_weights or ())]).all()
        onto = Onto(
            base=self.master or self.base,
            origin=self.base.tensors if recipe.pull else None,
            state={name: state.tensors for name, state in self.state.items()},
            steps=bool(self.state),
            tied=tensors.tied,
        )
        weights = weights_view(spans)
        views: list[View] = [weights, *([master_view(spans)] if needs_master(weights) else [])]
        views += state_views(plan.kinds.optimizer.state, tensors.body)
        raw: dict[str, bytearray] = defaultdict(bytearray)
        stayed: list[int] = []
        for piece in fused(plan, onto, views, stays=lambda _, values: stayed.append(values)):
            raw[piece.view] += piece.data
        found = self._opened({name: read_file(bytes(data)) for name, data in raw.items()})
        self.base, self.master = found.pop(WEIGHTS), found.pop(MASTER, None)
        self.state = found
        return sum(stayed)

    def is_sound(self) -> bool:
        return all(
            np.isfinite(tensor.values(0, tensor.span.elements)).all()
            for name, tensor in self.base.tensors.items()
            if name in body(self.base.spans())
        )


def recipe_of(rng: Random, method: str) -> Recipe:
    names = sorted(optimizers.discover())
    steps: list[float | Literal["auto"] | None] = [None, "auto", 100.0]
    recipe = Recipe(
        method=method,
        optimizer=str(rng.choice(names)),
        server_lr=steps[int(rng.integers(3))],
        pull=float(rng.choice([0, 0.1])),
    )
    if rng.random() < 0.2:
        recipe = recipe.model_copy(update={"dare": Dare(density=0.01)})
    return recipe


@given(
    seed=st.integers(0, 2**32),
    method=st.sampled_from(METHODS),
    dtype=st.sampled_from(DTYPES),
    tied=st.booleans(),
    sent_as=st.lists(st.sampled_from(ENCODINGS), min_size=1, max_size=4),
)
@settings(max_examples=150)
def test_every_accepted_contribution_can_be_fused(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    method: str,
    dtype: np.dtype[Any],
    tied: bool,
    sent_as: list[str],
) -> None:
    rng = np.random.default_rng(seed)
    line = Line(tmp_path_factory.mktemp("line"), base_of(rng, dtype, tied=tied))
    recipe = recipe_of(rng, method)
    kind = kinds(recipe)
    for _ in range(2):
        shared = body(line.base.spans())
        tensors = {
            name: tensor.values(0, tensor.span.elements).reshape(tensor.span.shape)
            for name, tensor in line.base.tensors.items()
            if name in shared
        }
        given_in = [sent(rng, encoding, tensors, line.folder) for encoding in sent_as]
        accepted = line.accepted(given_in)[: kind.method.maximum]
        if not accepted:
            continue
        while len(accepted) < kind.method.minimum(kind.parameters):
            accepted.append(accepted[-1])
        line.fuse(accepted, recipe)
        assert line.is_sound()


@pytest.mark.parametrize(("step", "taken"), [(2.0**32, 1), (-(2.0**33), 0), (3e38, 0)])
def test_what_a_method_would_scale_to_infinity_is_not_accepted(
    tmp_path: Path, step: float, taken: int
) -> None:
    line = Line(tmp_path, {"weight": np.ones((2, 3), np.float32)})
    moved = write_file(
        tmp_path / "m" / "update.safetensors", {"weight": np.full((2, 3), step, BFLOAT16)}
    )
    one = Encoded("delta", {moved.name: FileSource(moved)})
    accepted = line.accepted([one])
    assert len(accepted) == taken
    if accepted:
        line.fuse(accepted, Recipe(dare=Dare(density=0.01), optimizer="adam", server_lr=100.0))
        assert line.is_sound()


@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16])
def test_what_leaves_the_range_stays_in_all_rounds_to_come(
    tmp_path: Path, dtype: np.dtype[Any]
) -> None:
    start = {"weight": np.array([1, 2, 6e4], dtype), "bias": np.zeros(2, dtype)}
    line = Line(tmp_path, start)
    step = {"weight": np.array([0.5, 0, 5e3], np.float32), "bias": np.ones(2, np.float32)}
    recipe = Recipe(server_lr=2.0, optimizer="momentum")
    stayed: list[int] = []
    for _ in range(3):
        tensors = {
            name: (tensor.values(0, tensor.span.elements).astype(np.float32) + step[name])
            for name, tensor in line.base.tensors.items()
        }
        path = write_file(tmp_path / f"tuned{len(stayed)}" / "model.safetensors", tensors)
        one = Encoded("full", {path.name: FileSource(path)})
        assert len(line.accepted([one])) == 1
        stayed.append(line.fuse([one], recipe))
        assert line.is_sound()
    coarse = dtype == np.float16
    assert stayed == ([1, 1, 1] if coarse else [0, 0, 0])
    weight = line.base.tensors["weight"].values(0, 3).astype(np.float32)
    assert (weight[2] == np.float16(6e4)) == coarse
    assert weight[0] > 1
