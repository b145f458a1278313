"""Contributions made from older bases: each update counts from its own base, whatever its form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coldfusion_shared.errors import NonFiniteWeights
from coldfusion_shared.fusion.engine import Onto, Step
from coldfusion_shared.fusion.executor import Executor, Serial, threads
from coldfusion_shared.fusion.gram import Gram, extend_gram, gram_pass
from coldfusion_shared.fusion.plan import Plan, make_plan
from coldfusion_shared.fusion.updates import FullUpdate, Update, together_in_update
from coldfusion_shared.fusion.views import master_view, state_views, weights_view
from coldfusion_shared.schemas.recipes import Recipe
from coldfusion_shared.weights.body import body
from coldfusion_shared.weights.checkpoint import CHUNK_ELEMENTS, Checkpoint, FileSource
from coldfusion_shared.weights.codecs import open_update
from coldfusion_shared.weights.layout import SINGLE_FILE
from coldfusion_shared.weights.tied import fused_tensors
from tests.shared.checkpoints import BFLOAT16, Array, Tensors, write_file
from tests.shared.fusion.fusing import (
    Doubles,
    Views,
    added,
    carried_out,
    checkpoint,
    flat,
    fuse,
    matrix,
    plan_of,
    random_tensors,
)
from tests.shared.fusion.model_folders import fuse as fuse_folders
from tests.shared.fusion.model_folders import read_model, tiny_tensors, write_line, write_model
from tests.shared.fusion.test_fusion_properties import METHODS, some, updates_for
from tests.shared.fusion.test_step_cap import assert_same_bytes
from tests.shared.weights.codecs.encoded import ALL, Pair
from tests.shared.weights.lora.adapters import adapter, pair, product, settings

# How many bases each contribution is behind, in turn.
AGES = [0, 2, 0, 5, 1]
SHAPES = {"a.weight": (CHUNK_ELEMENTS + 77,), "b.weight": (13, 11), "c.bias": (6,)}


def exact(seed: int, scale: float = 1.0) -> dict[str, Array]:
    """Return float32 values that add up and cancel without any rounding."""
    return {
        name: (np.round(array * scale * 2**12) / 2**12).astype(np.float32)
        for name, array in random_tensors(seed, 1.0, SHAPES).items()
    }


@dataclass
class Line:
    """
    A base, older ones, and the same updates as they are made from each.

    Attributes:
        base: what is fused onto, float64.
        deltas: updates.
        late: each from its own base.
        fresh: the same from `base`.
    """

    base: Checkpoint
    deltas: list[dict[str, Array]]
    late: list[Update]
    fresh: list[Update]

    @property
    def onto(self) -> Onto:
        return Onto(self.base, origin=self.base.tensors)

    @property
    def dense(self) -> Doubles:
        return matrix(self.deltas)

    @property
    def before(self) -> Doubles:
        spans = self.base.spans().values()
        return np.concatenate([self.base.tensors[s.name].values(0, s.elements) for s in spans])

    @property
    def factors(self) -> Doubles:
        return np.array([(1 + update.age) ** -0.5 for update in self.late])


def line(folder: Path, name: str = "mean", count: int = 5) -> Line:
    base = {key: array.astype(np.float64) for key, array in exact(100).items()}
    deltas = [exact(place, 0.1) for place in range(some(name, count))]
    opened = checkpoint(folder, base)
    fresh = updates_for(name, folder, opened, [added(base, delta) for delta in deltas])
    late, older = [], {age: exact(200 + age) for age in set(AGES) - {0}}
    bases = {age: checkpoint(folder, tensors) for age, tensors in older.items()}
    for place, (update, delta) in enumerate(zip(fresh, deltas, strict=True)):
        age = AGES[place % len(AGES)]
        if age:
            model = checkpoint(folder, added(older[age], delta))
            late.append(
                replace(update, reader=FullUpdate(model.tensors, bases[age].tensors), age=age)
            )
        else:
            late.append(update)
    fresh = [replace(update, age=one.age) for update, one in zip(fresh, late, strict=True)]
    return Line(opened, deltas, late, fresh)


def assert_close(ours: Tensors, theirs: Tensors, room: float = 1e-13) -> None:
    np.testing.assert_allclose(flat(ours), flat(theirs), rtol=0, atol=room)


def score(plan: Plan) -> float:
    return float(plan.tensor_weights("c.bias") @ np.arange(len(plan.updates)))


def fuse_by(made: Line, updates: Sequence[Update], recipe: Recipe, **options: Any) -> Views:
    return fuse(made.onto, updates, recipe, score=score, **options)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_fuses_a_late_update_like_the_same_one_made_from_the_base(
    name: str, tmp_path: Path
) -> None:
    made, recipe = line(tmp_path, name), Recipe(method=name)
    late = fuse_by(made, made.late, recipe)
    assert_close(late["weights"], fuse_by(made, made.fresh, recipe)["weights"])
    assert np.abs(flat(late["weights"]) - made.before).max() > 1e-3
    for count in (2, 3):
        assert_same_bytes(fuse_by(made, made.late, recipe, executor=threads(count)), late)


@pytest.mark.parametrize(
    "recipe",
    [{"optimizer": "momentum"}, {"optimizer": "adam"}, {"pull": 0.25}, {"server_lr": "auto"},
     {"dare": {"density": 0.4, "seed": 3}}, {"staleness_exponent": 0.0}, {"step_cap": 0.001},
     {"method": "ties", "dare": {"density": 0.4}}, {"method": "della"}],
    ids=str,
)  # fmt: skip
def test_every_step_is_that_of_the_same_updates_made_from_the_base(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    made, wanted = line(tmp_path), Recipe.model_validate(recipe)
    views = [weights_view(made.base.spans())]
    if wanted.optimizer != "none":
        views += state_views(("momentum",) if wanted.optimizer == "momentum"
                             else ("first", "second"), body(made.base.spans()))  # fmt: skip
    late, fresh = (fuse_by(made, updates, wanted, views=views) for updates in
                   (made.late, made.fresh))  # fmt: skip
    for view, tensors in fresh.items():
        assert_close(late[view], tensors, 1e-8 if wanted.optimizer == "adam" else 1e-12)
    assert_same_bytes(fuse_by(made, made.late, wanted, views=views, executor=threads(3)), late)


# By the definition, dense, in float64.


def dense_mean(made: Line, dense: Doubles) -> Doubles:
    mean: Doubles = dense.mean(axis=0)
    return mean


def dense_weighted(made: Line, dense: Doubles) -> Doubles:
    priors = np.array([update.prior for update in made.late])
    mean: Doubles = priors / priors.sum() @ dense
    return mean


def dense_clipped(made: Line, dense: Doubles) -> Doubles:
    priors = np.array([update.prior for update in made.late])
    norms = np.linalg.norm(dense, axis=1)
    mean: Doubles = priors / priors.sum() * np.minimum(1, np.median(norms) / norms) @ dense
    return mean


def dense_median(made: Line, dense: Doubles) -> Doubles:
    median: Doubles = np.median(dense, axis=0)
    return median


ORACLES = {"mean": dense_mean, "weighted_mean": dense_weighted,
           "norm_clipped_mean": dense_clipped, "median": dense_median}  # fmt: skip


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize("with_gram", [False, True])
def test_late_updates_with_weights_and_discounts_are_the_definitions(
    name: str, with_gram: bool, tmp_path: Path
) -> None:
    made = line(tmp_path, name)
    plan = plan_of(made.onto, made.late, Recipe(method=name), with_gram=with_gram)
    fused = flat(carried_out(plan, made.onto)["weights"])
    wanted = made.before + ORACLES[name](made, made.dense * made.factors[:, None])
    # Discounts of stacked updates are float32.
    np.testing.assert_allclose(fused, wanted, rtol=0, atol=1e-7)


@pytest.mark.parametrize("early", [False, True])
def test_the_gram_matrix_is_that_of_discounted_late_updates(early: bool, tmp_path: Path) -> None:
    made, found = line(tmp_path), list[Gram]()
    method = "norm_clipped_mean" if early else "mean"
    plan = plan_of(made.onto, made.late, Recipe(method=method), with_gram=True)
    steps: list[Step] = []
    fused = carried_out(plan, made.onto, compared=found.append, stepped=steps.append)["weights"]
    gram = plan.gram or found[0]
    dense = made.dense * made.factors[:, None]
    assert np.allclose(gram.total, dense @ dense.T, rtol=1e-6)
    assert steps[0].norm == pytest.approx(np.linalg.norm(flat(fused) - made.before), rel=1e-9)


def test_a_late_column_of_the_gram_matrix_is_that_of_the_pass_over_all(tmp_path: Path) -> None:
    made = line(tmp_path)
    spans = body(made.base.spans())
    grown = gram_pass(spans, made.late[:1], Serial())
    for count in range(2, len(made.late) + 1):
        grown = extend_gram(grown, spans, made.late[:count], Serial())
    whole = gram_pass(spans, made.late, Serial())
    assert np.allclose(grown.total, whole.total, rtol=1e-12)
    assert np.array_equal(grown.whole.nonzero, whole.whole.nonzero)


def test_only_late_updates_are_put_onto_the_base_too(tmp_path: Path) -> None:
    made = line(tmp_path)
    late = [update for update in made.late if update.age]
    fused = flat(fuse(made.onto, late, Recipe())["weights"])
    rows = [place for place, update in enumerate(made.late) if update.age]
    wanted = made.before + (made.dense * made.factors[:, None])[rows].mean(axis=0)
    np.testing.assert_allclose(fused, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("factor", [1e-13, 1e-20])
def test_a_base_counts_however_small_the_weights_are(factor: float, tmp_path: Path) -> None:
    # The momentum after one step is the fused update itself.
    made = line(tmp_path)
    parameters = {"max_norm": factor}
    recipe = Recipe(method="norm_clipped_mean", parameters=parameters, optimizer="momentum")
    views = state_views(("momentum",), body(made.base.spans()))
    found = flat(fuse(made.onto, made.late, recipe, views=views)["momentum"])
    dense = made.dense * made.factors[:, None]
    wanted = (dense / np.linalg.norm(dense, axis=1)[:, None]).mean(axis=0)
    np.testing.assert_allclose(found / factor, wanted, rtol=1e-5, atol=1e-9)


# Every encoding, and adapters.

BASES = [exact(300 + place) for place in range(8)]


class Encoded:
    """A contribution by encoding, each made from a base of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = checkpoint(folder, exact(99))
        self.updates: list[Update] = []
        self.decoded: list[dict[str, Array]] = []
        for place, encoding in enumerate(ALL):
            update = random_tensors(place, 1e-2, SHAPES)
            # One tensor was frozen: only a whole model has it.
            update[list(SHAPES)[place % 3]][:] = 0
            made = Pair(folder / encoding, update, BASES[place])
            self.decoded.append(made.round_trip(encoding))
            self.updates.append(Update(encoding, made.open(encoding), 1.0 + place, 1 + place))
        self.adapter(BASES[6])
        self.without_bias(BASES[7])

    def adapter(self, before: dict[str, Array]) -> None:
        """Add an adapter whose update depends on the values of its own base."""
        tensors = pair("b", 11, 13, rank=3)
        tensors["b.lora_magnitude_vector"] = np.linspace(0.5, 2, 13).astype(np.float32)
        config = settings(r=3, use_dora=True)
        reader = adapter(self.folder, config, tensors, checkpoint(self.folder, before))
        moved = before["b.weight"] + product(tensors, "b")
        lengths = np.linalg.norm(moved, axis=1, keepdims=True)
        stretched = moved * tensors["b.lora_magnitude_vector"][:, None] / lengths
        zeros = {name: np.zeros(shape) for name, shape in SHAPES.items()}
        self.decoded.append({**zeros, "b.weight": stretched - before["b.weight"]})
        self.updates.append(Update("lora", reader, 2.0, 3))

    def without_bias(self, before: dict[str, Array]) -> None:
        """Add a whole model of which a tensor is missing: it did not change."""
        delta = random_tensors(20, 1e-2, SHAPES)
        model = added(before, delta)
        del model["c.bias"]
        path = write_file(self.folder / "partial" / SINGLE_FILE, model)
        own = checkpoint(self.folder, before).tensors
        reader = open_update("full", {SINGLE_FILE: FileSource(path)}, own)
        self.decoded.append({**delta, "c.bias": np.zeros(6, np.float32)})
        self.updates.append(Update("partial", reader, 0.5, 2))

    def fuse(self, method: str, executor: Executor, *, with_gram: bool = False) -> Views:
        spans, recipe = body(self.base.spans()), Recipe(method=method)
        plan = make_plan(spans, self.updates, recipe, executor, with_gram=with_gram)
        return carried_out(plan, self.base, executor=executor)

    def wanted(self) -> Doubles:
        weights = np.array([one.prior * (1 + one.age) ** -0.5 for one in self.updates])
        weights /= sum(one.prior for one in self.updates)
        return flat(exact(99)) + weights @ matrix(self.decoded)


def test_late_updates_of_every_encoding_are_what_they_decode_to(tmp_path: Path) -> None:
    made = Encoded(tmp_path)
    alone = made.fuse("weighted_mean", Serial())
    np.testing.assert_allclose(flat(alone["weights"]), made.wanted(), rtol=0, atol=3e-7)
    # Whether they are compared on the way changes no bit, and neither does who does it.
    assert_same_bytes(made.fuse("weighted_mean", Serial(), with_gram=True), alone)
    assert_same_bytes(made.fuse("weighted_mean", threads(3), with_gram=True), alone)


@pytest.mark.parametrize("method", ["norm_clipped_mean", "ties", "breadcrumbs"])
def test_threads_change_no_bit_of_late_updates_of_every_encoding(
    method: str, tmp_path: Path
) -> None:
    made = Encoded(tmp_path)
    assert_same_bytes(made.fuse(method, threads(3)), made.fuse(method, Serial()))


def test_a_late_update_counts_from_what_was_published_and_goes_onto_the_master(
    tmp_path: Path,
) -> None:
    master, old = random_tensors(1), random_tensors(2, dtype=BFLOAT16)
    published = {name: array.astype(BFLOAT16) for name, array in master.items()}
    newest, fine = checkpoint(tmp_path, published), checkpoint(tmp_path, master)
    older = checkpoint(tmp_path, old)
    one, two = random_tensors(3), random_tensors(4)
    updates = [
        Update("new", FullUpdate(checkpoint(tmp_path, one).tensors, newest.tensors)),
        Update("old", FullUpdate(checkpoint(tmp_path, two).tensors, older.tensors), age=3),
    ]
    views = [weights_view(newest.spans()), master_view(newest.spans())]
    made = fuse(fine, updates, Recipe(), views=views)
    late = (flat(two) - flat(old)) / 2
    wanted = flat(master) + ((flat(one) - flat(published)) + late) / 2
    np.testing.assert_allclose(flat(made["master"]), wanted, rtol=3e-7, atol=1e-7)


def test_an_older_base_that_is_not_finite_is_named(tmp_path: Path) -> None:
    made = line(tmp_path)
    broken = exact(7)
    broken["c.bias"][3] = np.nan
    reader = FullUpdate(
        checkpoint(tmp_path, exact(8)).tensors, checkpoint(tmp_path, broken).tensors
    )
    with pytest.raises(NonFiniteWeights, match=r"The base of contribution old .*'c\.bias'"):
        fuse(made.onto, [*made.late, Update("old", reader, age=1)], Recipe())


# Tied tensors.


def matrices(seed: int, *, apart: bool = False) -> dict[str, Array]:
    """Return a model with two equal matrices, or with two that came apart."""
    rng = np.random.default_rng(seed)
    one, other = (np.round(rng.standard_normal((4, 3)) * 64) / 64 for _ in range(2))
    return {
        "x.weight": one.astype(np.float32),
        "y.weight": (other if apart else one).astype(np.float32),
    }


@pytest.mark.parametrize("alike", [False, True])
@pytest.mark.parametrize("apart", [False, True])
def test_tensors_stay_one_if_all_updates_of_them_are(
    alike: bool, apart: bool, tmp_path: Path
) -> None:
    base, old = matrices(1), matrices(2, apart=apart)
    delta = matrices(3, apart=not alike)
    opened, older = checkpoint(tmp_path, base), checkpoint(tmp_path, old)
    fresh = FullUpdate(checkpoint(tmp_path, added(base, matrices(4))).tensors, opened.tensors)
    late = FullUpdate(checkpoint(tmp_path, added(old, delta)).tensors, older.tensors)
    spans = opened.spans()
    tensors = fused_tensors(opened, [together_in_update(one, spans) for one in (fresh, late)])
    assert tensors.tied == ({"y.weight": "x.weight"} if alike else {})
    plan = make_plan(tensors.spans, [Update("new", fresh), Update("old", late, age=3)], Recipe())
    fused = carried_out(plan, Onto(opened, tied=tensors.tied))["weights"]
    for name in base:
        wanted = base[name] + (matrices(4)[name] + delta[name] / 2) / 2
        np.testing.assert_allclose(fused[name], wanted, rtol=1e-6)


def test_folders_of_which_the_older_base_has_two_tensors_apart_keep_their_updates_apart(
    tmp_path: Path,
) -> None:
    # The late one made them equal, so it changed them differently.
    base, old, model = matrices(1), matrices(2, apart=True), matrices(3)
    place, (contribution,) = write_line(tmp_path, base, [model])
    late = replace(contribution, made_from=write_model(tmp_path / "old", old))
    fuse_folders(place, [late], tmp_path / "out")
    fused = read_model(tmp_path / "out")
    for name in base:
        np.testing.assert_allclose(fused[name], base[name] + (model[name] - old[name]), rtol=1e-6)


def test_what_a_late_folder_does_not_have_did_not_change(tmp_path: Path) -> None:
    base, old = tiny_tensors(1), tiny_tensors(2)
    model = {name: array for name, array in old.items() if not name.startswith("pooler")}
    place, (contribution,) = write_line(tmp_path, base, [model])
    late = replace(contribution, made_from=write_model(tmp_path / "old", old), age=1)
    report = fuse_folders(place, [late], tmp_path / "out")
    assert report.contributions[0].norm == 0
    fused = read_model(tmp_path / "out")
    assert fused["pooler.dense.weight"].tobytes() == base["pooler.dense.weight"].tobytes()
