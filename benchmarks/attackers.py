"""
Contributions that are meant to harm, made from honest ones: tensor by tensor, from all that an
attacker could know, which is everything that the others of the round send.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from zlib import crc32

import numpy as np
import numpy.typing as npt

from benchmarks.honest_runs import FULL
from benchmarks.sent import Sent
from coldfusion_shared.fusion.updates import Scratch
from coldfusion_shared.weights.body import body
from coldfusion_shared.weights.checkpoint import Checkpoint
from coldfusion_shared.weights.header import TensorSpan, build_header
from coldfusion_shared.weights.layout import SINGLE_FILE

Floats = npt.NDArray[np.float32]

FACTOR = 1000.0
# Of "a little is enough": how many standard deviations from the mean still look like one of many.
LITTLE = 1.5
# What several attackers add so that no two of them send the same: this share of their norm, which
# leaves them a cosine of about 1 / (1 + share ** 2).
JITTER, COPY_JITTER = 0.1, 0.01
# Of model replacement: what the mean of eight leaves of an update that is sent so many times.
BOOST = 4.0


@dataclass(frozen=True)
class Tensor:
    """
    One tensor, as it lies before an attacker.

    Attributes:
        name: of it.
        base: its values in the base, (n,).
        own: the update that the attacker's own finetuning has made, (n,).
        honest: the others' updates, (K, n).
        norms: Euclidean norms of the others' whole updates, (K,).
        mean_norm: of the mean of their whole updates.
        elements: values of the whole body.
        rng: the attacker's own, for this tensor.
    """

    name: str
    base: Floats
    own: Floats
    honest: Floats
    norms: npt.NDArray[np.float64]
    mean_norm: float
    elements: int
    rng: np.random.Generator

    @property
    def usual(self) -> float:
        """The median norm of the others."""
        return float(np.median(self.norms))

    def noise(self, norm: float) -> Floats:
        """Return noise of which the whole body's has the norm `norm`."""
        drawn: Floats = self.rng.standard_normal(self.base.size, dtype=np.float32)
        drawn *= np.float32(norm / sqrt(self.elements))
        return drawn


Craft = Callable[[Tensor], Floats]


def nan(tensor: Tensor) -> Floats:
    """Send one value that is no number in every tensor."""
    made = tensor.own.copy()
    made[0] = np.nan
    return made


def times_thousand(tensor: Tensor) -> Floats:
    """Send the own update a thousand times."""
    return tensor.own * np.float32(FACTOR)


def sign_flip(tensor: Tensor) -> Floats:
    """Send the own update's opposite."""
    return -tensor.own


def unrelated(tensor: Tensor) -> Floats:
    """Send weights that were drawn at random, as widely spread as the base's."""
    spread = float(tensor.base.std()) or 1.0
    drawn = tensor.rng.standard_normal(tensor.base.size, dtype=np.float32)
    return drawn * np.float32(spread) - tensor.base


def little_is_enough(tensor: Tensor) -> Floats:
    """Move each value against the mean by some of the others' standard deviations."""
    mean, spread = tensor.honest.mean(0), tensor.honest.std(0)
    made: Floats = mean - np.float32(LITTLE) * np.sign(mean) * spread
    return made + tensor.noise(JITTER * tensor.usual)


def inner_product(tensor: Tensor) -> Floats:
    """Send the opposite of the others' mean, as long as one of them is."""
    made: Floats = tensor.honest.mean(0) * np.float32(-tensor.usual / (tensor.mean_norm or 1.0))
    return made + tensor.noise(JITTER * tensor.usual)


def copy(tensor: Tensor) -> Floats:
    """Send what the first of the others sends, slightly changed."""
    made: Floats = tensor.honest[0] + tensor.noise(COPY_JITTER * float(tensor.norms[0]))
    return made


def free_ride(tensor: Tensor) -> Floats:
    """Send the base and noise, as long as one of the others' updates."""
    return tensor.noise(tensor.usual)


def noisy_layer(tensor: Tensor) -> Floats:
    """Send the own update, with one layer's weights drawn anew."""
    if ".layer.3." not in tensor.name:
        return tensor.own
    return unrelated(tensor)


def as_trained(tensor: Tensor) -> Floats:
    """Send what the own finetuning has made: the harm is in what it was trained on."""
    return tensor.own


def boosted(tensor: Tensor) -> Floats:
    """Send it several times as long, so that more of it is left in the mean."""
    return tensor.own * np.float32(BOOST)


@dataclass(frozen=True)
class Attack:
    """
    One way to attack.

    Attributes:
        name: in tables.
        craft: what is sent.
        trained: what the own finetuning learns from: "honest", "random labels" or "trigger".
    """

    name: str
    craft: Craft
    trained: str = "honest"


HONEST, RANDOM_LABELS, TRIGGER = "honest", "random labels", "trigger"
ATTACKS = {
    attack.name: attack
    for attack in (
        Attack("NaN", nan),
        Attack("x1000", times_thousand),
        Attack("sign flip", sign_flip),
        Attack("random weights", unrelated),
        Attack("random labels", as_trained, RANDOM_LABELS),
        Attack("backdoor", as_trained, TRIGGER),
        Attack("backdoor x4", boosted, TRIGGER),
        Attack("a little is enough", little_is_enough),
        Attack("inner product", inner_product),
        Attack("copies", copy),
        Attack("free rider", free_ride),
        Attack("one noisy layer", noisy_layer),
    )
}


class Room:
    """A round's base and honest updates, in memory, for attackers to make theirs from."""

    def __init__(self, base: Path, honest: Mapping[str, Sent]) -> None:
        """Read all of them."""
        self.base, self.names = base, list(honest)
        with ExitStack() as stack:
            ours = stack.enter_context(Checkpoint.from_folder(base))
            self.spans = body(ours.spans())
            self.values = {
                name: ours.tensors[name].values(0, span.elements).astype(np.float32)
                for name, span in self.spans.items()
            }
            theirs = [_read(one, ours, stack, self.spans) for one in honest.values()]
        # (K, n) each.
        self.updates = {name: np.stack([one.pop(name) for one in theirs]) for name in self.spans}
        self.norms = sqrt_sums(self.updates.values())
        self.elements = sum(span.elements for span in self.spans.values())
        self.mean_norms: dict[int, float] = {}

    def write(self, attack: Attack, own: Sent, staying: int, seed: int, out: Path) -> Sent:
        """
        Write what an attacker sends into the folder `out`, as full weights.

        Args:
            attack: how it is made.
            own: the update of the attacker's own finetuning, from this round's base.
            staying: how many of the honest ones, the first, are in the round; it knows them.
            seed: of its draws; each attacker has its own.
            out: a new folder.
        """
        with ExitStack() as stack:
            ours = stack.enter_context(Checkpoint.from_folder(self.base))
            theirs = _read(own, ours, stack, self.spans)
        mean_norm = self._mean_norm(staying)
        out.mkdir(parents=True)
        layout = [(name, "F32", span.shape) for name, span in self.spans.items()]
        with (out / SINGLE_FILE).open("wb") as file:
            file.write(build_header(layout))
            for name, base in self.values.items():
                tensor = Tensor(
                    name,
                    base,
                    theirs[name],
                    self.updates[name][:staying],
                    self.norms[:staying],
                    mean_norm,
                    self.elements,
                    np.random.default_rng([seed, crc32(name.encode())]),
                )
                file.write((base + attack.craft(tensor)).astype(np.float32).data)
        return Sent(FULL, out)

    def _mean_norm(self, staying: int) -> float:
        if staying not in self.mean_norms:
            means = (values[:staying].mean(0, keepdims=True) for values in self.updates.values())
            self.mean_norms[staying] = float(sqrt_sums(means)[0])
        return self.mean_norms[staying]


def _read(
    sent: Sent, base: Checkpoint, stack: ExitStack, spans: Mapping[str, TensorSpan]
) -> dict[str, Floats]:
    """Return a whole update by tensor; what it does not have did not change."""
    reader, scratch = sent.opened(stack, base), Scratch()
    changed, found = frozenset(reader.names), {}
    for name, span in spans.items():
        found[name] = np.zeros(span.elements, np.float32)
        if name in changed:
            reader.read(span, 0, span.elements, found[name], scratch)
    return found


def sqrt_sums(tensors: Iterable[Floats]) -> npt.NDArray[np.float64]:
    """Return the norms of K updates, (K,), that are given by tensor, (K, n) each."""
    products = [np.einsum("kn,kn->k", values, values, dtype=np.float64) for values in tensors]
    norms: npt.NDArray[np.float64] = np.sqrt(np.sum(products, axis=0))
    return norms
