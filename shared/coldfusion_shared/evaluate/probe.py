"""Linear probing: a logistic regression on frozen features, its strength chosen on validation."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coldfusion_shared.errors import TrainingFailed
from coldfusion_shared.evaluate import linear
from coldfusion_shared.evaluate.features import Encoder
from coldfusion_shared.finetune.batches import scoring_batch
from coldfusion_shared.finetune.failures import named_failures
from coldfusion_shared.finetune.threads import fitting_threads
from coldfusion_shared.tasks.scores import accuracy

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from coldfusion_shared.data.dataset import TextDataset

    Features = npt.NDArray[np.float32]
    Labels = npt.NDArray[np.int64]

# What a first batch prepares is not to be measured.
WARM_UP_EXAMPLES = 4


@dataclass(frozen=True)
class ProbeResult:
    """
    What a probe has come to.

    Attributes:
        accuracy: on the test part, in percent.
        examples: of the test part.
        strength: the C that did best on the validation part.
    """

    accuracy: float
    examples: int
    strength: float


def probe(
    folder: Path,
    dataset: TextDataset,
    *,
    max_length: int,
    progress: Callable[[int], None] = lambda _: None,
) -> ProbeResult:
    """
    Probe the model in the folder `folder` on a data set.

    Args:
        folder: a transformers folder; only its body is used, frozen.
        dataset: the probe is trained on its train part and tested on its test part.
        max_length: tokens of an example; what is longer is cut.
        progress: called with the number of examples of each batch of features.

    Raises:
        BadModel: the folder is no model.
        TrainingFailed: the memory does not suffice for a single example, or the model's features
            are no numbers.
    """
    with named_failures(), fitting_threads():
        return probe_with(Encoder(folder, max_length), dataset, progress=progress)


def probe_seconds(folder: Path, dataset: TextDataset, *, max_length: int) -> float:
    """
    Return about how long `probe` takes, by one batch; beside the features, the rest is quick.

    Raises:
        BadModel, TrainingFailed: as `probe` would.
    """
    with named_failures(), fitting_threads():
        encoder = Encoder(folder, max_length)
        sample = dataset.train.take(range(min(scoring_batch(max_length), len(dataset.train))))
        encoder.features(sample.take(range(min(WARM_UP_EXAMPLES, len(sample)))))
        begun = time.monotonic()
        encoder.features(sample)
        each = (time.monotonic() - begun) / len(sample)
    return each * sum(len(split) for split in dataset.splits.values())


def probe_with(
    encoder: Encoder,
    dataset: TextDataset,
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> ProbeResult:
    """Probe a model that is loaded already; raises `TrainingFailed` as `probe` does."""
    import numpy as np

    parts = [
        (encoder.features(split, progress), np.asarray(split["label"]))
        for split in (dataset.train, dataset.validation, dataset.test)
    ]
    if not all(np.isfinite(features).all() for features, _ in parts):
        raise TrainingFailed(
            "What the model makes of the examples is not finite.",
            hint="Its weights are too large, or broken: take another base.",
        )
    return fit_probe(*parts)


def fit_probe(
    train: tuple[Features, Labels],
    validation: tuple[Features, Labels],
    test: tuple[Features, Labels],
) -> ProbeResult:
    """
    Fit the regression for each strength, take the one that validates best, and test that.

    Each part is features (n, hidden) and labels (n,). Of equally good strengths the stronger
    regularisation is taken.
    """
    read = linear.classified(train, validation, test[0], accuracy)
    return ProbeResult(accuracy(test[1], read.guesses), len(test[1]), read.strength)
