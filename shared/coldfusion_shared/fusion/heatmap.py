"""The cosines between the updates, drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from coldfusion_shared import pictures
from coldfusion_shared.letters import width, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Above this the numbers in the cells cannot be read.
MAX_NUMBERS = 16
LONGEST_NAME = 28


def check_format(path: Path) -> None:
    """Check that a heat map can be written to `path`; raises `InvalidRequest`, `MissingExtra`."""
    pictures.check_format(path, "A heat map", "server")


def draw_cosines(path: Path, names: Sequence[str], cosines: Sequence[Sequence[float]]) -> None:
    """
    Draw the matrix `cosines`, (K, K), to `path`, a PNG or SVG by its ending.

    Red pulls the same way, blue the opposite way, white is orthogonal.
    """
    count = len(names)
    shown = [wrapped(name, LONGEST_NAME, lines=1) for name in names]
    # In inches; names stand beside the cells and below them.
    size = max(4.0, min(16.0, 2.5 + 0.45 * count)) + 0.08 * max(map(width, shown))
    with pictures.drawing(path, (size, size)) as figure:
        axes = figure.add_subplot()
        image = axes.imshow(cosines, cmap="RdBu_r", vmin=-1, vmax=1)
        axes.set_xticks(range(count), shown, rotation=90, parse_math=False)
        axes.set_yticks(range(count), shown, parse_math=False)
        axes.set_title("Cosines between the updates")
        if count <= MAX_NUMBERS:
            _write_numbers(axes, cosines)
        figure.colorbar(image, ax=axes, shrink=0.7)


def _write_numbers(axes: Axes, cosines: Sequence[Sequence[float]]) -> None:
    for row, values in enumerate(cosines):
        for column, value in enumerate(values):
            colour = "white" if abs(value) > 0.6 else "black"
            axes.text(
                column, row, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=8
            )
