"""One data set, split among more and more contributors."""

from __future__ import annotations

from experiments.lab import Lab
from experiments.protocols import last_with_first, protocol
from experiments.protocols.single import Size, compared


@protocol(
    "distribution", "one data set, the same examples split among more contributors", "Figure 6d",
    pairs=last_with_first, served=True, pooled=False,
)  # fmt: skip
def run(lab: Lab) -> None:
    """All arms have the same examples, and take the same steps in a round."""
    settings = lab.settings
    compared(
        lab,
        [
            Size(f"split in {count}", count, max(1, settings.shared_examples // count))
            for count in settings.shares
        ],
    )
