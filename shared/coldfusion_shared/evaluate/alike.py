"""Whether the scores of two evaluations may be compared at all."""

from __future__ import annotations

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
    if one.suite.digest() != other.suite.digest():
        raise SuiteChanged(
            "The two were not measured by the same suite: "
            f"{_what_differs(one.suite, other.suite)}.",
            hint="Measure both with the same suite file, on the same data.",
        )
    if one.protocol != other.protocol:
        raise InvalidRequest(
            f"One was measured by the protocol {one.protocol}, the other by {other.protocol}.",
            hint="Measure both with the same --protocol.",
        )
    if one.seeds != other.seeds:
        raise InvalidRequest(
            f"One was measured with {_seeds(one)}, the other with {_seeds(other)}.",
            hint="Measure both with the same --seeds.",
        )
    for first, second in zip(one.results, other.results, strict=True):
        if first.labels != second.labels:
            raise SuiteChanged(
                f"The two were not tested on the same examples of {second.name!r}.",
                hint="Measure both again, with one version of the program.",
            )


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


def _seeds(evaluated: Evaluated) -> str:
    count = len(evaluated.seeds)
    told = ", ".join(map(str, evaluated.seeds[:5])) + (", ..." if count > 5 else "")
    return f"the seed {told}" if count == 1 else f"{count} seeds ({told})"
