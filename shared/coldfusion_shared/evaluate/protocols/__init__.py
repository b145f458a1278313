"""Ways of measuring what a base has in it, one file each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from coldfusion_shared.errors import EvaluationFailed
from coldfusion_shared.evaluate.base_digest import Stamp, base_digest, stamps
from coldfusion_shared.evaluate.results import Values
from coldfusion_shared.registry import Registry

if TYPE_CHECKING:
    from coldfusion_shared.evaluate.suite import SuiteData
    from coldfusion_shared.schemas.evaluations import Suite

# What share of a measurement is done.
Tick = Callable[[float], None]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Measured:
    """
    What a base reaches on one data set with one seed.

    Attributes:
        score: by the data set's metric, in percent.
        guesses: one for each test example, in the test part's order, of which the score is made;
            null where the task is not scored example by example.
    """

    score: float
    guesses: Values | None


@dataclass(frozen=True)
class Base:
    """
    The model that is measured.

    Attributes:
        folder: a transformers folder.
        digest: SHA-256 (hex) of its weights, its configs and its tokenizer.
        stamps: of those files, from before they were read.
    """

    folder: Path
    digest: str
    stamps: tuple[Stamp, ...]

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Return the model in `folder`, as it is now; raises `BadModel`."""
        before = stamps(folder)
        return cls(folder, base_digest(folder), before)

    def check_unchanged(self) -> None:
        """Refuse to go on with other files than the digest's; raises `EvaluationFailed`."""
        if stamps(self.folder) != self.stamps:
            raise EvaluationFailed(
                f"The files in {self.folder} were changed while they were measured.",
                hint="Leave them alone until it is done, and run the command again.",
            )


class Measurer(Protocol):
    """A protocol at work on one base."""

    def measure(self, data: SuiteData, seed: int, tick: Tick) -> Measured:
        """
        Measure the base on one data set, with the training examples of one seed.

        Raises:
            BadModel: the base cannot be loaded.
            EvaluationFailed: what the base makes of the texts are no finite numbers.
            TrainingFailed: a training diverged, or the memory does not suffice.
        """


class MeasuringProtocol(Protocol):
    """
    A way of measuring bases.

    A score depends on nothing but the base, the data that its seed draws, and `settings`: with
    these it is kept, and taken again where they are the same.
    """

    def check(self, data: SuiteData, config: Path) -> None:
        """
        Refuse (`BadSuite`, `BadModel`) a data set that it cannot measure the base on.

        Args:
            data: the data set.
            config: the base's config.json; nothing else of the base need be here yet.
        """

    def trained(self, data: SuiteData) -> int:
        """Return how many training examples of a data set a seed draws."""

    def settings(self, suite: Suite) -> Mapping[str, Any]:
        """Return what else its scores depend on, as JSON can say it."""

    def begin(self, base: Base, suite: Suite, kept: Path, say: Say) -> Measurer:
        """
        Get ready to measure.

        Args:
            base: the model.
            suite: whose limits and settings hold.
            kept: a folder for what later runs can use again.
            say: told in a sentence what a person should know.
        """


protocols: Registry[MeasuringProtocol] = Registry("protocol", "coldfusion.protocols")


def protocol_named(name: str) -> MeasuringProtocol:
    """Return the protocol called `name`; raises `UnknownName`."""
    protocols.discover(sys.modules[__name__])
    return protocols[name]
