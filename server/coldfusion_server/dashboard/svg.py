"""Pieces of drawings that are made here as text: escaped, in the page's colours. Pure."""

from __future__ import annotations

import html
from collections.abc import Iterable

from coldfusion_server.dashboard.charts import shortened
from coldfusion_server.dashboard.formats import printable

# The page's colours; a drawing that stands alone has the light ones.
INK = "var(--ink, #14202b)"
MUTED = "var(--muted, #566471)"
RULE = "var(--rule, #dbe2e8)"
CARD = "var(--card, #ffffff)"
ACCENT = "var(--accent, #0b6b7f)"
SECOND = "var(--second, #b0500c)"

WIDTH = 440.0


def number(value: float) -> str:
    """Return a coordinate with one decimal at most."""
    return f"{value:.1f}".removesuffix(".0")


def words(text: str) -> str:
    """Return what others wrote as it may stand in a drawing, also as an attribute's value."""
    return html.escape(printable(text))


def name(text: str, columns: int) -> str:
    """Return a name of others, shortened to so many columns, as it may stand in a drawing."""
    return html.escape(shortened(printable(text), columns))


def picture(height: float, title: str, pieces: Iterable[str]) -> str:
    """
    Return a whole drawing, `WIDTH` wide.

    Args:
        height: of it.
        title: what it shows, for who does not see it; it may have words of others.
        pieces: what is in it, escaped.
    """
    box = f"0 0 {number(WIDTH)} {number(height)}"
    return (
        f'<svg class="chart" viewBox="{box}" role="img">'
        f"<title>{words(title)}</title>{''.join(pieces)}</svg>"
    )


def text(
    x: float,
    y: float,
    said: str,
    *,
    anchor: str = "start",
    colour: str = MUTED,
    halo: bool = False,
) -> str:
    """Return a text; `said` is escaped already. With a `halo` it is read over lines and colours."""
    over = f' paint-order="stroke" stroke="{CARD}" stroke-width="3" stroke-linejoin="round"'
    return (
        f'<text class="{"over" if halo else "axis"}" x="{number(x)}" y="{number(y)}" '
        f'text-anchor="{anchor}" font-size="12" fill="{colour}"{over if halo else ""}>{said}</text>'
    )


def upright(x: float, top: float, bottom: float, colour: str = RULE) -> str:
    """Return an upright line."""
    return f'<path d="M{number(x)} {number(top)}V{number(bottom)}" stroke="{colour}"/>'


def across(left: float, right: float, y: float, colour: str = RULE) -> str:
    """Return a level line."""
    return f'<path d="M{number(left)} {number(y)}H{number(right)}" stroke="{colour}"/>'


def dot(x: float, y: float) -> str:
    """Return the mark of what nobody objects to."""
    return f'<circle cx="{number(x)}" cy="{number(y)}" r="4" fill="{ACCENT}"/>'


def diamond(x: float, y: float, size: float = 6.0) -> str:
    """Return the mark of what stands out: it differs in its shape, not by colour alone."""
    path = (
        f"M{number(x)} {number(y - size)}l{size:g} {size:g}l-{size:g} {size:g}l-{size:g} -{size:g}z"
    )
    return f'<path d="{path}" fill="{SECOND}" stroke="{CARD}" stroke-width="1.5"/>'
