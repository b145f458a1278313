"""
What a training tells of single examples: DP-SGD's plan, and the accounting of what is spent.

Imports opacus where it computes, so it can be imported without.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.finetune import processes
from coldfusion_shared.finetune.settings import FinetuneSettings

# In a checkpoint.
SPENT = "privacy.json"
# Of Renyi's divergence, from which the best one is taken: the large ones are for small epsilons.
ORDERS = [1.1, *(1.0 + i / 4 for i in range(1, 16)), *map(float, range(5, 65))]
ORDERS += [80.0, 96.0, 128.0, 192.0, 256.0, 512.0, 1024.0]
# Of 1 / examples, the delta where none is chosen. At all of it one example could be told outright.
DELTA_SHARE = 0.1
# Of the epsilon that is wanted, what may stay unused.
UNUSED = 0.005
# Noise, sampling rate and number of like steps, as Opacus' accountants keep them.
Steps = tuple[float, float, int]


@dataclass(frozen=True)
class Spent:
    """
    What the weights may tell of any one training example, and by which means.

    Attributes:
        epsilon: of (epsilon, delta)-differential privacy, where a neighbour has nothing in the
            place of one example.
        delta: its other number.
        noise: standard deviation, in multiples of the clip.
        clip: length that an example's gradient has at most.
        sample_rate: chance of an example to be in a step.
        steps: that were taken.
    """

    epsilon: float
    delta: float
    noise: float
    clip: float
    sample_rate: float
    steps: int


@dataclass
class Privacy:
    """
    How a training keeps its examples apart, and what it has spent.

    Attributes:
        noise, clip, delta, sample_rate: as in `Spent`.
        batch: examples of a step on average.
        epoch: steps of an epoch.
        steps: that are planned.
        taken: that were taken, by their noise and sampling rate.
    """

    noise: float
    clip: float
    delta: float
    sample_rate: float
    batch: float
    epoch: int
    steps: int
    taken: list[Steps] = field(default_factory=list)

    def count(self) -> None:
        """Note a step, before it changes a weight."""
        noise, rate, steps = self.taken.pop() if self.taken else (self.noise, self.sample_rate, 0)
        if (noise, rate) == (self.noise, self.sample_rate):
            self.taken.append((noise, rate, steps + 1))
        else:
            self.taken += [(noise, rate, steps), (self.noise, self.sample_rate, 1)]

    @property
    def spent(self) -> Spent:
        """What all steps have spent that were taken."""
        return Spent(
            epsilon=epsilon(self.taken, self.delta),
            delta=self.delta,
            noise=self.noise,
            clip=self.clip,
            sample_rate=self.sample_rate,
            steps=sum(steps for _, _, steps in self.taken),
        )

    def save(self, folder: Path) -> None:
        """Write down what was taken, into a checkpoint."""
        (folder / SPENT).write_text(json.dumps(self.taken))

    def resume(self, folder: Path) -> None:
        """Go on from a checkpoint: what its weights have cost is spent."""
        read: list[Any] = json.loads((folder / SPENT).read_text())
        self.taken = [(float(noise), float(rate), int(steps)) for noise, rate, steps in read]

    def planned(self) -> str:
        """Return a sentence on what is about to happen."""
        in_all = epsilon([(self.noise, self.sample_rate, self.steps)], self.delta)
        return (
            f"DP-SGD: {self.steps} steps of {self.batch:g} examples on average, each clipped to "
            f"{self.clip:g}, noise {self.noise:.3g}; epsilon will be {in_words(in_all)} at delta "
            f"{self.delta:.1e}."
        )


def plan_privacy(settings: FinetuneSettings, examples: int) -> Privacy:
    """
    Return how a training of so many examples keeps them apart.

    Raises:
        InvalidRequest: several processes train together, no noise suffices for the epsilon, or the
            delta is such that an epsilon says nothing.
    """
    if processes.count() > 1:
        raise InvalidRequest(
            "With --dp one process trains alone.", hint="Give the command without torchrun."
        )
    delta = settings.dp_delta or DELTA_SHARE / examples
    if delta * examples >= 1:
        raise InvalidRequest(
            f"At a delta of {delta:g} one of the {examples} examples could be told outright.",
            hint="Leave --dp-delta out, or choose one far below 1 / examples.",
        )
    batch = min(settings.batch_size, examples)
    epoch = math.ceil(examples / batch)
    steps = settings.max_steps or math.ceil(settings.epochs * epoch)
    rate = batch / examples
    noise = settings.dp_noise or enough_noise(settings.wanted_epsilon, delta, rate, steps)
    return Privacy(noise, settings.clip, delta, rate, batch, epoch, steps)


def enough_noise(wanted: float, delta: float, rate: float, steps: int) -> float:
    """
    Return the least noise with which so many steps spend no more than the epsilon `wanted`.

    Raises:
        InvalidRequest: none suffices.
    """
    from opacus.accountants.utils import get_noise_multiplier

    try:
        with _quiet():
            return float(
                get_noise_multiplier(
                    target_epsilon=wanted,
                    target_delta=delta,
                    sample_rate=rate,
                    steps=steps,
                    accountant="rdp",
                    epsilon_tolerance=wanted * UNUSED,
                    alphas=ORDERS,
                )
            )
    except ValueError:
        raise InvalidRequest(
            f"No noise suffices for an epsilon of {wanted:g} at delta {delta:.1e}.",
            hint="Choose a larger --dp-epsilon.",
        ) from None


def epsilon(taken: list[Steps], delta: float) -> float:
    """
    Return the epsilon of some steps of DP-SGD at `delta`.

    By Renyi's divergence of the sampled Gaussian mechanism: an upper bound, for one example more as
    well as for one less.
    """
    if not taken:
        return 0.0
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    accountant.history = list(taken)
    with _quiet():
        # Where next to nothing is told the bound falls below zero, which no loss of privacy does.
        return max(0.0, float(accountant.get_epsilon(delta, alphas=ORDERS)))


def require_private(model: Any) -> None:
    """
    Refuse a model that keeps means of its examples, to which no noise is added.

    Raises:
        InvalidRequest: it has layers of batch normalisation; one is named.
    """
    for name, module in model.named_modules():
        if getattr(module, "running_mean", None) is not None:
            raise InvalidRequest(
                f"{name} keeps means of what it has seen, to which --dp cannot add noise.",
                hint="Contribute to this model without --dp, or not at all.",
            )


def in_words(value: float) -> str:
    """Return an epsilon for people, rounded up."""
    return f"{math.ceil(value * 100) / 100:.2f}" if math.isfinite(value) else "infinite"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Opacus from warning that other orders might give a tighter bound."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
