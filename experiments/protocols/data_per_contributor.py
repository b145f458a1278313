"""One data set: how much of it each contributor has."""

from __future__ import annotations

from experiments.lab import Lab
from experiments.protocols import last_with_first, protocol
from experiments.protocols.single import Size, centralised, compared


def _pairs(arms: list[str]) -> list[tuple[str, str]]:
    return last_with_first([arm for arm in arms if arm.endswith("examples")])


@protocol(
    "data-per-contributor", "one data set: examples that each contributor has", "Figure 6b",
    pairs=_pairs, served=True, pooled=False,
)  # fmt: skip
def run(lab: Lab) -> None:
    """Beside it, all that the richest contributors have, learnt at one place."""
    settings = lab.settings
    counts, contributors = settings.example_counts, settings.contributors
    compared(lab, [Size(f"{count} examples", contributors, count) for count in counts])
    centralised(lab, max(counts) * contributors, settings.rounds)
