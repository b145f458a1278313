"""A figure as JSON, as CSV and as SVG. Pure."""

from __future__ import annotations

import csv
import io
import math
import re
from xml.etree import ElementTree

from coldfusion_server.dashboard.charts import shortened
from coldfusion_server.dashboard.figures.figure import Cell, Figure
from coldfusion_server.dashboard.formats import without_controls
from coldfusion_shared.errors import NotFound
from coldfusion_shared.schemas.figures import FigureColumn, FigureTable

SVG = "http://www.w3.org/2000/svg"
FONT = "system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif"
# Drawings are in the units of the page's letters; alone they are looked at closer.
ZOOM = 1.5
# Room for the heading, which a page has beside the drawing; and how wide its letters are at most.
HEAD, LETTER = 34.0, 8.5
_BOLD = {"font-size": "14", "font-weight": "650"}
# What spreadsheets begin a formula with; some take the wide forms for the narrow ones.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
# Where a comma is part of a number, semicolons part cells, quoted or not.
_INNER = re.compile(rf"(?<=;)(?=\s*[{re.escape(''.join(FORMULA))}])")
# A page's colour, which follows its theme, and the light one after it.
_COLOUR = re.compile(r"var\(\s*--[\w-]+\s*,\s*([^()]+?)\s*\)")


def as_table(figure: Figure, next_cursor: str | None = None) -> FigureTable:
    """Return a figure's table for JSON, which has no infinity: such numbers are not known."""
    return FigureTable(
        name=figure.name,
        title=figure.title,
        told=figure.told,
        columns=[FigureColumn(name=column.name, told=column.told) for column in figure.columns],
        rows=[[_finite(cell) for cell in row] for row in figure.rows],
        next_cursor=next_cursor,
    )


def as_csv(figure: Figure) -> str:
    """
    Return a figure's table as CSV by RFC 4180, its columns' names first.

    Numbers are exact; what is not known is empty. No text of it is a formula for a spreadsheet:
    one that would be has an apostrophe before it, also behind a semicolon.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow([column.name for column in figure.columns])
    writer.writerows([_text(cell) for cell in row] for row in figure.rows)
    return text.getvalue()


def as_svg(figure: Figure) -> str:
    """
    Return a figure's drawing as a picture that needs no page around it, in light colours.

    Raises:
        NotFound: it has none.
    """
    if not figure.svg:
        raise NotFound(
            f"There is nothing to draw of {figure.name} yet.",
            hint="Its table is there as .json and as .csv.",
        )
    root = ElementTree.fromstring(_COLOUR.sub(r"\1", without_controls(figure.svg)))
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{SVG}}}")
        # Its links are a page's.
        if element.tag == "a":
            element.tag, element.attrib = "g", {}
    left, top, width, height = (float(number) for number in root.attrib["viewBox"].split())
    top, height = top - HEAD, height + HEAD
    root.attrib |= {
        "xmlns": SVG,
        "viewBox": f"{left:g} {top:g} {width:g} {height:g}",
        "width": f"{width * ZOOM:g}",
        "height": f"{height * ZOOM:g}",
        "font-family": FONT,
        # Without links it is one picture.
        "role": "img",
    }
    place = {"x": left, "y": top, "width": width, "height": height}
    paper = {name: f"{number:g}" for name, number in place.items()}
    heading = ElementTree.Element(
        "text", {"x": f"{left + 8:g}", "y": f"{top + 22:g}", "fill": "#14202b", **_BOLD}
    )
    heading.text = shortened(without_controls(figure.title), int(width / LETTER))
    # What a picture is called has to come first.
    named = sum(child.tag in ("title", "desc") for child in root)
    root.insert(named, ElementTree.Element("rect", {**paper, "rx": "8", "fill": "#ffffff"}))
    root.insert(named + 1, heading)
    return ElementTree.tostring(root, encoding="unicode")


def _finite(cell: Cell) -> Cell:
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell


def _text(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, int | float):
        return repr(cell)
    plain = _INNER.sub("'", without_controls(cell))
    return f"'{plain}" if plain.startswith(FORMULA) else plain
