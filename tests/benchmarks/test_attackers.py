"""Attackers send what they are said to send."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.attackers import (
    ATTACKS,
    BOOST,
    COPY_JITTER,
    FACTOR,
    JITTER,
    LITTLE,
    Room,
    Tensor,
    sqrt_sums,
)
from benchmarks.sent import Sent
from coldfusion_shared.weights.layout import SINGLE_FILE
from tests.shared.checkpoints import read_file, write_file

Floats = npt.NDArray[np.float32]
ELEMENTS, STAYING = 20_000, 6
NOISY = "encoder.layer.3.output.dense.weight"


def drawn(seed: int, *shape: int, scale: float = 1.0) -> Floats:
    rng = np.random.default_rng(seed)
    return (scale * rng.standard_normal(shape)).astype(np.float32)


def tensor(name: str = "encoder.layer.0.output.dense.weight", seed: int = 5) -> Tensor:
    """A body of one tensor; the others' updates have a little in common."""
    shared = drawn(1, ELEMENTS, scale=0.003)
    honest = shared + drawn(2, STAYING, ELEMENTS, scale=0.01)
    return Tensor(
        name=name,
        base=drawn(3, ELEMENTS, scale=0.05),
        own=shared + drawn(4, ELEMENTS, scale=0.01),
        honest=honest,
        norms=sqrt_sums([honest]),
        mean_norm=float(np.linalg.norm(honest.mean(0))),
        elements=ELEMENTS,
        rng=np.random.default_rng(seed),
    )


def sent_by(attack: str, given: Tensor | None = None) -> Floats:
    return ATTACKS[attack].craft(given or tensor())


def cosine(one: Floats, other: Floats) -> float:
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


def test_nan_is_one_value_of_each_tensor() -> None:
    assert np.isnan(sent_by("NaN")).sum() == 1


@pytest.mark.parametrize(
    ("attack", "factor"),
    [
        ("x1000", FACTOR),
        ("sign flip", -1),
        ("backdoor", 1),
        ("backdoor x4", BOOST),
        ("random labels", 1),
    ],
)
def test_some_send_their_own_update_so_many_times(attack: str, factor: float) -> None:
    np.testing.assert_array_equal(sent_by(attack), tensor().own * np.float32(factor))


def test_random_weights_are_as_widely_spread_as_the_base_and_unlike_it() -> None:
    base = tensor().base
    weights = base + sent_by("random weights")
    assert weights.std() == pytest.approx(base.std(), rel=0.03)
    assert abs(cosine(weights, base)) < 0.03


def test_inner_product_is_the_opposite_of_the_mean_and_as_long_as_one() -> None:
    given = tensor()
    made = sent_by("inner product", given)
    assert cosine(made, given.honest.mean(0)) == pytest.approx(-((1 + JITTER**2) ** -0.5), abs=2e-3)
    assert np.linalg.norm(made) == pytest.approx(given.usual, rel=0.02)


def test_a_little_is_enough_stays_within_some_deviations_on_the_wrong_side() -> None:
    given = tensor()
    mean, spread = given.honest.mean(0), given.honest.std(0)
    noise = JITTER * given.usual / np.sqrt(ELEMENTS)
    far = (sent_by("a little is enough", given) - mean) * -np.sign(mean) / spread
    assert np.median(far) == pytest.approx(LITTLE, abs=0.05)
    assert np.abs(far - LITTLE).max() < 6 * noise / spread.min()


def test_a_copy_is_all_but_the_first_of_the_others() -> None:
    given = tensor()
    made = sent_by("copies", given)
    assert np.linalg.norm(made - given.honest[0]) == pytest.approx(
        COPY_JITTER * given.norms[0], rel=0.03
    )
    assert cosine(made, given.honest[0]) > 0.999


def test_a_free_rider_sends_noise_of_the_usual_length() -> None:
    given = tensor()
    made = sent_by("free rider", given)
    assert np.linalg.norm(made) == pytest.approx(given.usual, rel=0.03)
    assert abs(cosine(made, given.own)) < 0.03


def test_one_noisy_layer_leaves_the_others_as_trained() -> None:
    np.testing.assert_array_equal(sent_by("one noisy layer"), tensor().own)
    given = tensor(NOISY)
    assert abs(cosine(given.base + sent_by("one noisy layer", given), given.base)) < 0.03


@pytest.mark.parametrize(
    "attack", ["inner product", "a little is enough", "copies", "free rider", "random weights"]
)
def test_two_attackers_do_not_send_the_same(attack: str) -> None:
    one, other = (sent_by(attack, tensor(seed=seed)) for seed in (1, 2))
    assert not np.array_equal(one, other)


class TestRoom:
    """From files to a file."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """A base and three honest contributions, of which one left a tensor as it was."""
        for seed, name in enumerate(["base", "h0", "h1", "h2"]):
            tensors = {
                "embeddings.weight": drawn(seed, 30, 4),
                "encoder.layer.3.dense.weight": drawn(seed + 10, 8, 8),
            }
            if name == "h2":
                tensors["embeddings.weight"] = drawn(0, 30, 4)
            (tmp_path / name).mkdir()
            write_file(tmp_path / name / SINGLE_FILE, tensors)
        return tmp_path

    def _room(self, folder: Path) -> Room:
        honest = {name: Sent("full", folder / name) for name in ("h0", "h1", "h2")}
        return Room(folder / "base", honest)

    def _values(self, folder: Path) -> dict[str, Floats]:
        return dict(read_file((folder / SINGLE_FILE).read_bytes()))

    def test_it_reads_updates_and_their_lengths(self, folder: Path) -> None:
        room, base = self._room(folder), self._values(folder / "base")
        for place, name in enumerate(("h0", "h1", "h2")):
            update = {key: value - base[key] for key, value in self._values(folder / name).items()}
            for key, value in update.items():
                np.testing.assert_allclose(room.updates[key][place], value.ravel(), atol=1e-6)
            whole = np.concatenate([value.ravel() for value in update.values()])
            assert room.norms[place] == pytest.approx(np.linalg.norm(whole), rel=1e-5)

    def test_it_writes_the_base_and_what_was_crafted(self, folder: Path) -> None:
        own, out = Sent("full", folder / "h1"), folder / "flipped"
        assert self._room(folder).write(ATTACKS["sign flip"], own, 2, 0, out) == Sent("full", out)
        base, honest = self._values(folder / "base"), self._values(folder / "h1")
        for name, value in self._values(out).items():
            np.testing.assert_allclose(value, 2 * base[name] - honest[name], atol=1e-5)

    def test_an_attacker_knows_none_but_those_who_stay(self, folder: Path) -> None:
        own = Sent("full", folder / "h2")
        room = self._room(folder)
        room.write(ATTACKS["inner product"], own, 2, 0, folder / "few")
        base = self._values(folder / "base")
        honest = [self._values(folder / name)["embeddings.weight"] for name in ("h0", "h1")]
        mean: Floats = np.mean(honest, axis=0)
        made = self._values(folder / "few")["embeddings.weight"] - base["embeddings.weight"]
        assert cosine(made.ravel(), (mean - base["embeddings.weight"]).ravel()) < -0.97
