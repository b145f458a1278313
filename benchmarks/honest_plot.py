"""Where honest contributions and attackers lie, one row of bars for each limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from benchmarks.quantities import MOST, QUANTITIES
from coldfusion_shared.pictures import drawing

# Values of quantities, by their names.
Points = Mapping[str, Sequence[float]]

COLUMNS = 2
HONEST_COLOUR, ATTACK_COLOUR, LIMIT_COLOUR = "tab:blue", "tab:red", "black"


def draw(groups: Mapping[str, Points], honest: str, path: Path) -> None:
    """
    Draw from where to where all quantities of all groups go, and the limits in force.

    Args:
        groups: quantities by group: the honest ones, and each attack.
        honest: which group is the honest one.
        path: a .png or .svg file.
    """
    rows = -(-len(QUANTITIES) // COLUMNS)
    height = 0.16 * len(groups) + 0.75
    with drawing(path, (5.2 * COLUMNS, height * rows)) as figure:
        axes = figure.subplots(rows, COLUMNS, sharey=True, squeeze=False)
        for quantity, axis in zip(QUANTITIES, axes.flat, strict=False):
            for row, (name, points) in enumerate(groups.items()):
                colour = HONEST_COLOUR if name == honest else ATTACK_COLOUR
                if values := points.get(quantity.name):
                    axis.plot([min(values), max(values)], [row, row], color=colour, linewidth=3)
                    axis.plot([median(values)], [row], "o", color=colour, markersize=4)
            if quantity.logarithmic:
                axis.set_xscale("log")
            axis.axvline(quantity.limit, color=LIMIT_COLOUR, linestyle=":")
            axis.set_title(f"{quantity.name} {'≤' if quantity.side == MOST else '≥'}", fontsize=8)
            axis.tick_params(labelsize=7)
        for row_of_axes in axes:
            row_of_axes[0].set_yticks(range(len(groups)), list(groups), fontsize=7)
        axes[0][0].invert_yaxis()
        for axis in list(axes.flat)[len(QUANTITIES) :]:
            axis.set_visible(False)
