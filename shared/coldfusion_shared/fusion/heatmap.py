"""The cosines between the updates, drawn."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from coldfusion_shared.errors import InvalidRequest, MissingExtra

FORMATS = (".png", ".svg")
# Above this the numbers in the cells cannot be read.
MAX_NUMBERS = 16
LONGEST_NAME = 28


def check_format(path: Path) -> None:
    """Check that a heat map can be written to `path`; raises `InvalidRequest`, `MissingExtra`."""
    if path.suffix.lower() not in FORMATS:
        raise InvalidRequest(f"A heat map is written as .png or .svg, not as {path.name!r}.")
    try:
        import matplotlib  # noqa: F401 - is it there?
    except ModuleNotFoundError as error:
        raise MissingExtra.of("server", "matplotlib") from error


def draw_cosines(path: Path, names: Sequence[str], cosines: Sequence[Sequence[float]]) -> None:
    """
    Draw the matrix `cosines`, (K, K), to `path`, a PNG or SVG by its ending.

    Red pulls the same way, blue the opposite way, white is orthogonal.
    """
    from matplotlib.figure import Figure

    count = len(names)
    size = max(4.0, min(16.0, 2.5 + 0.45 * count))
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(cosines, cmap="RdBu_r", vmin=-1, vmax=1)
    shown = [name if len(name) <= LONGEST_NAME else name[:LONGEST_NAME] + "…" for name in names]
    axes.set_xticks(range(count), shown, rotation=90, parse_math=False)
    axes.set_yticks(range(count), shown, parse_math=False)
    axes.set_title("Cosines between the updates")
    if count <= MAX_NUMBERS:
        for row, values in enumerate(cosines):
            for column, value in enumerate(values):
                colour = "white" if abs(value) > 0.6 else "black"
                axes.text(
                    column, row, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=8
                )
    figure.colorbar(image, ax=axes, shrink=0.7)
    with warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes, which says enough.
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
