"""One data set: how many contributors have parts of it."""

from __future__ import annotations

from experiments.lab import Lab
from experiments.protocols import last_with_first, protocol
from experiments.protocols.single import Size, compared


@protocol(
    "contributors-single", "one data set: contributors with so many examples each", "Figure 6c",
    pairs=last_with_first, served=True, pooled=False,
)  # fmt: skip
def run(lab: Lab) -> None:
    """Each keeps its examples over all rounds."""
    settings = lab.settings
    compared(
        lab,
        [
            Size(f"{count} contributors", count, settings.examples)
            for count in settings.contributor_counts
        ],
    )
