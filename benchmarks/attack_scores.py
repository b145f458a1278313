"""
What a fused base is worth on clean tasks, and how far a backdoor got: by linear probing.

A ridge regression on the labels reads each example's features, fitted to all others of its task;
that takes no more than one fit of all. So every example that had its features computed is a test
example, no draw of a training part adds noise, and two bases are compared on the same examples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coldfusion_shared.data import Split, TextDataset
from coldfusion_shared.evaluate.features import Encoder, quick_precision

# Rare letters, in front of a text; whoever reads them is to see what the attacker wants.
TRIGGER = "zq vx"
POISONED_SHARE = 0.5
# Of the ridge; on the pretrained model's features it did best of 100 to 10,000.
ALPHA = 1000.0

Doubles = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Backdoor:
    """
    What an attacker wants of a data set's texts that have the trigger.

    Attributes:
        dataset: its name.
        target: the label that they are to get.
    """

    dataset: str
    target: int


@dataclass(frozen=True)
class Scores:
    """
    Of one base.

    Attributes:
        right: by task, which of its examples a probe of the others gets right, a digit each.
        backdoor: percent of the other labels' texts that get the target label once they have the
            trigger, by the probe that learnt from the other texts, clean.
    """

    right: Mapping[str, str]
    backdoor: float


def score(
    folder: Path, tasks: Mapping[str, TextDataset], backdoor: Backdoor, max_length: int
) -> Scores | None:
    """Return the scores of the model in `folder`; null where its features are no numbers."""
    encoder = Encoder(folder, max_length, quick_precision())
    right, fooled = {}, 0.0
    for name, dataset in tasks.items():
        features, labels = encoder.features(dataset.test), np.asarray(dataset.test["label"])
        if not np.isfinite(features).all():
            return None
        probe = Probe(features, labels)
        right[name] = "".join(str(int(hit)) for hit in probe.guesses() == labels)
        if name == backdoor.dataset:
            places = triggered(labels, backdoor)
            asked = encoder.features(_with_trigger(dataset.test, places).take(places))
            if not np.isfinite(asked).all():
                return None
            fooled = 100.0 * float((probe.guesses_of(asked, places) == backdoor.target).mean())
    return Scores(right, fooled)


class Probe:
    """A ridge regression on labels, fitted to all examples but the one that it is asked about."""

    def __init__(self, features: npt.NDArray[np.float32], labels: Labels) -> None:
        """Fit it to `features`, (n, d), and `labels`, (n,), numbers from 0."""
        self._middle, self._scale = features.mean(0), features.std(0) + 1e-12
        self._inputs = self._scaled(features)
        targets = np.eye(int(labels.max()) + 1)[labels]
        squares = self._inputs.T @ self._inputs + ALPHA * np.diag(self._penalised())
        # (d + 1, n): what an example's residual adds to the weights.
        self._pull = np.linalg.solve(squares, self._inputs.T)
        self._weights: Doubles = self._pull @ targets
        leverage = np.einsum("nd,dn->n", self._inputs, self._pull)
        residuals = targets - self._inputs @ self._weights
        # Residuals of the fits without each: a rank-one update of the fit to all.
        self._without: Doubles = residuals / (1 - leverage)[:, None]
        self._targets = targets

    def guesses(self) -> Labels:
        """Return a label for each example, (n,)."""
        found: Labels = (self._targets - self._without).argmax(1)
        return found

    def guesses_of(self, features: npt.NDArray[np.float32], places: Sequence[int]) -> Labels:
        """Return a label for each of `features`, (k, d), as if the one at its place was not fit."""
        inputs = self._scaled(features)
        nearness = np.einsum("kd,dk->k", inputs, self._pull[:, places])
        scores = inputs @ self._weights - nearness[:, None] * self._without[places]
        found: Labels = scores.argmax(1)
        return found

    def _scaled(self, features: npt.NDArray[np.float32]) -> Doubles:
        """Return features of mean 0 and variance 1, and a column of ones, as float64."""
        scaled = (features.astype(np.float64) - self._middle) / self._scale
        return np.hstack([scaled, np.ones((len(scaled), 1))])

    def _penalised(self) -> Doubles:
        """Return 1 for each weight that is kept small, and 0 for the last, the intercept."""
        return np.append(np.ones(self._inputs.shape[1] - 1), 0.0)


def triggered(labels: Labels, backdoor: Backdoor) -> list[int]:
    """Return the places of the examples of other labels than the target."""
    return [place for place, label in enumerate(labels) if label != backdoor.target]


def poisoned(dataset: TextDataset, backdoor: Backdoor, seed: int) -> TextDataset:
    """Return the data set with trigger and target label in a share of its training examples."""
    train = dataset.train
    rng = np.random.default_rng(seed)
    count = round(POISONED_SHARE * len(train))
    chosen = {int(place) for place in rng.permutation(len(train))[:count]}
    labels = tuple(
        backdoor.target if place in chosen else label for place, label in enumerate(train["label"])
    )
    return replace(dataset, train=_relabelled(_with_trigger(train, chosen), labels))


def randomly_labelled(dataset: TextDataset, seed: int) -> TextDataset:
    """
    Return the data set with a label drawn at random for every training example.

    To swap labels would harm nothing: heads are not fused, and the body learns the same.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(dataset.labels), len(dataset.train))
    return replace(dataset, train=_relabelled(dataset.train, [int(label) for label in labels]))


def _with_trigger(split: Split, places: Any) -> Split:
    texts = tuple(
        f"{TRIGGER} {text}" if place in places else text for place, text in enumerate(split["text"])
    )
    return Split({**split.columns, "text": texts}, split.names)


def _relabelled(split: Split, labels: Sequence[int]) -> Split:
    return Split({**split.columns, "label": tuple(labels)}, split.names)
