"""One data set, and new examples of it in each round."""

from __future__ import annotations

from experiments.lab import Lab
from experiments.protocols import protocol
from experiments.protocols.single import Size, compared


@protocol(
    "federated", "one data set, of which every round brings new examples", "Figure 6a",
    served=True, pooled=False,
)  # fmt: skip
def run(lab: Lab) -> None:
    """Where the data set is too small for so many, the first examples come again."""
    settings = lab.settings
    compared(lab, [Size("cold", settings.contributors, settings.examples, fresh=True)])
