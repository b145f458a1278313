"""Frozen: a linear reader of the body's features, which stay as they are."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coldfusion_shared.errors import BadSuite, EvaluationFailed
from coldfusion_shared.evaluate import linear
from coldfusion_shared.evaluate.failures import named_failures
from coldfusion_shared.evaluate.feature_cache import FeatureCache
from coldfusion_shared.evaluate.features import Encoder, quick_precision
from coldfusion_shared.evaluate.metrics import scorer_of
from coldfusion_shared.evaluate.protocols import Base, Measured, Measurer, Say, Tick, protocols
from coldfusion_shared.evaluate.software import kept_by
from coldfusion_shared.finetune.threads import fitting_threads

if TYPE_CHECKING:
    from coldfusion_shared.data.dataset import Split
    from coldfusion_shared.evaluate.suite import SuiteData
    from coldfusion_shared.schemas.evaluations import Suite

READERS = {"classification": linear.classified, "regression": linear.predicted}
# Of a measurement, what the features take; the fits take the rest.
FEATURES_SHARE = 0.9


class Frozen:
    """Linear probing: logistic regression for classes, ridge regression for numbers."""

    def check(self, data: SuiteData, config: Path) -> None:
        """Refuse a task that no linear reader can read off one vector an example."""
        if data.entry.task not in READERS:
            raise BadSuite(
                f"The frozen protocol cannot measure {data.entry.name!r}, whose task is "
                f"{data.entry.task}; it can measure {' and '.join(READERS)}.",
                hint="Take the protocol finetuned or few-shot, or a suite without that data set.",
            )

    def trained(self, data: SuiteData) -> int:
        """Return the suite's limit, or all that there are."""
        return data.entry.train

    def settings(self, suite: Suite) -> Mapping[str, Any]:
        """Texts are cut, features computed in some precision, and strengths tried."""
        return {
            "max_length": suite.max_length,
            "precision": quick_precision(),
            "strengths": [linear.STRENGTHS, linear.RIDGE_STRENGTHS],
        }

    def begin(self, base: Base, suite: Suite, kept: Path, say: Say) -> Measurer:
        """Load nothing yet: all features may be known."""
        return _Probing(base, suite, kept, say)


class _Probing:
    def __init__(self, base: Base, suite: Suite, kept: Path, say: Say) -> None:
        self.base, self.suite = base, suite
        self.precision = quick_precision()
        self.cache = FeatureCache(kept / "features", say)

    @cached_property
    def encoder(self) -> Encoder:
        return Encoder(self.base.folder, self.suite.max_length, self.precision)

    def measure(self, data: SuiteData, seed: int, tick: Tick) -> Measured:
        import numpy as np

        dataset = data.draw(seed)
        splits = (dataset.train, dataset.validation, dataset.test)
        features = self._features(data, splits, tick)
        labels = [np.asarray(split["label"]) for split in splits]
        scorer = scorer_of(data.entry.task, data.entry.metric)
        assert scorer is not None, "a task that has readers has scorers"
        train, validation = zip(features[:2], labels[:2], strict=True)
        read = READERS[data.entry.task](
            train,
            validation,
            features[2],
            scorer,
            lambda share: tick(FEATURES_SHARE + (1 - FEATURES_SHARE) * share),
        )
        guesses = tuple(read.guesses.tolist())
        return Measured(scorer(labels[2], guesses), guesses)

    def _features(self, data: SuiteData, splits: tuple[Split, ...], tick: Tick) -> list[Any]:
        """Return the features of each split; those that are not known yet are computed together."""
        import numpy as np

        def compute(texts: Split) -> Any:
            done = 0

            def progress(examples: int) -> None:
                nonlocal done
                done += examples
                tick(FEATURES_SHARE * done / len(texts))

            with named_failures(), fitting_threads():
                features = self.encoder.features(texts, progress)
            if not np.isfinite(features).all():
                raise EvaluationFailed(
                    f"The base makes numbers that are not finite of texts of {data.entry.name!r}.",
                    hint="Its weights are broken, or too large to compute with.",
                )
            # Before they are kept.
            self.base.check_unchanged()
            return features

        settings = (self.suite.max_length, self.precision, kept_by())
        name = (self.base.digest, data.entry.digest, *settings)
        return self.cache.features(name, splits, compute)


protocols.register("frozen")(Frozen())
