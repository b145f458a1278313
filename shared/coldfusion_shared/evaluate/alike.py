"""Whether the scores of two evaluations may be compared at all."""

from __future__ import annotations

from collections.abc import Sequence

from coldfusion_shared.errors import InvalidRequest, SuiteChanged
from coldfusion_shared.evaluate.results import Evaluated
from coldfusion_shared.schemas.evaluations import Suite

_SETTINGS = ("max_length", "seed", "few_shot", "training")


def check_alike(one: Evaluated, other: Evaluated) -> None:
    """
    Check that two bases were measured alike.

    Raises:
        SuiteChanged: they were measured on different data or by different settings.
        InvalidRequest: by different protocols or seeds.
    """
    if difference := _difference(one.suite, other.suite):
        raise SuiteChanged(
            f"The two were not measured by the same suite: {difference}.",
            hint="Measure both with the same suite file, on the same data.",
        )
    if one.protocol != other.protocol:
        raise InvalidRequest(
            f"One was measured by the protocol {one.protocol}, the other by {other.protocol}.",
            hint="Measure both with the same --protocol.",
        )
    if one.seeds != other.seeds:
        raise InvalidRequest(
            f"One was measured with {_seeds(one.seeds)}, the other with {_seeds(other.seeds)}.",
            hint="Measure both with the same --seeds.",
        )
    for first, second in zip(one.results, other.results, strict=True):
        if first.labels != second.labels:
            raise SuiteChanged(
                f"The two were not tested on the same examples of {second.name!r}.",
                hint="Measure both again, with one version of the program.",
            )
        if (first.train, first.pool) != (second.train, second.pool):
            raise SuiteChanged(
                f"The two did not draw as many training examples of {second.name!r} alike.",
                hint="Measure both again, with one version of the program.",
            )


def check_of_suite(scores: Evaluated, suite: Suite, name: str) -> None:
    """
    Check that scores of an earlier time are of the suite that others are measured by now.

    Args:
        scores: of that time.
        suite: of now.
        name: what people call the scores.

    Raises:
        SuiteChanged: they were measured on different data or by different settings.
    """
    if difference := _difference(scores.suite, suite):
        raise SuiteChanged(
            f"{name} was not measured by this suite: {difference}.",
            hint="Measure that base again with this suite file, or give the file and the data that "
            "it was measured with.",
        )


def check_manner(scores: Evaluated, protocol: str, seeds: Sequence[int], name: str) -> None:
    """
    Check that scores of an earlier time were measured in the way that others are to be.

    Args:
        scores: of that time.
        protocol: that is to be used.
        seeds: that are to be used.
        name: what people call the scores.

    Raises:
        InvalidRequest: by another protocol, or with other seeds.
    """
    if scores.protocol != protocol:
        raise InvalidRequest(
            f"{name} was measured by the protocol {scores.protocol}, and not by {protocol}.",
            hint=f"Compare it with --protocol {scores.protocol}.",
        )
    if scores.seeds != tuple(seeds):
        count = len(scores.seeds)
        usual = scores.seeds == tuple(range(count))
        raise InvalidRequest(
            f"{name} was measured with {_seeds(scores.seeds)}, and not with {_seeds(seeds)}.",
            hint=f"Compare it with --seeds {count}." if usual else "Measure that base again.",
        )


def _difference(one: Suite, other: Suite) -> str | None:
    """Return why scores of the two cannot be compared; null if they can."""
    return None if one.digest() == other.digest() else _what_differs(one, other)


def _what_differs(one: Suite, other: Suite) -> str:
    first, second = ({entry.name: entry for entry in suite.datasets} for suite in (one, other))
    if lacking := first.keys() ^ second.keys():
        return f"only one of them has the data set {min(lacking)!r}"
    for name, entry in first.items():
        if entry.digest != second[name].digest:
            return f"the data of {name!r} differ"
        if entry != second[name]:
            return f"{name!r} was measured in another way"
    for setting in _SETTINGS:
        if getattr(one, setting) != getattr(other, setting):
            return f"{setting} differs"
    return "the order of the data sets differs"


def _seeds(seeds: Sequence[int]) -> str:
    count = len(seeds)
    told = ", ".join(map(str, seeds[:5])) + (", ..." if count > 5 else "")
    return f"the seed {told}" if count == 1 else f"{count} seeds ({told})"
