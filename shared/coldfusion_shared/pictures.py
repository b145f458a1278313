"""Drawings as PNG and SVG files: the same drawing is the same bytes each time."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coldfusion_shared.errors import InvalidRequest, MissingExtra

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg")
# Dots per inch of a PNG.
RESOLUTION = 150
# Fonts of common systems with letters that matplotlib's own one lacks.
OTHER_SCRIPTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Droid Sans Fallback",
    "WenQuanYi Micro Hei",
    "Arial Unicode MS",
    "Microsoft YaHei",
)


def check_format(path: Path, what: str, extra: str) -> None:
    """
    Check that a picture can be drawn.

    Args:
        path: where it is to go.
        what: what it is, as "A heat map".
        extra: the extra with which who draws it is installed.

    Raises:
        InvalidRequest: it ends in something else than .png or .svg.
        MissingExtra: matplotlib is not installed.
    """
    if path.suffix.lower() not in FORMATS:
        raise InvalidRequest(f"{what} is written as .png or .svg, not as {path.name!r}.")
    try:
        import matplotlib  # noqa: F401 - is it there?
    except ModuleNotFoundError as error:
        raise MissingExtra.of(extra, "matplotlib") from error


@contextmanager
def drawing(path: Path, size: tuple[float, float]) -> Iterator[Figure]:
    """Yield a figure of so many inches, (width, height), and write it to `path` at the end."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    settings: dict[Any, Any] = {
        "font.family": _families(),
        # No random names; and text that is text, which a browser shows in the reader's fonts.
        "svg.hashsalt": "coldfusion",
        "svg.fonttype": "none",
    }
    date = {"Date": None} if path.suffix.lower() == ".svg" else None
    with rc_context(settings), warnings.catch_warnings():
        # A name in a script that no font has is drawn as boxes, which says enough.
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        figure = Figure(figsize=size, layout="constrained")
        yield figure
        figure.savefig(path, dpi=RESOLUTION, metadata=date)


def _families() -> list[str]:
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in OTHER_SCRIPTS if name in installed), "sans-serif"]
