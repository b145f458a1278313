"""A page as blocks, written as Markdown and as HTML that asks for nothing from elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

STYLE = """
:root {
  color-scheme: light dark;
  --line: #c8ccd0; --soft: #f3f5f7; --good: #12703c; --bad: #a3212b;
}
@media (prefers-color-scheme: dark) {
  :root { --line: #444b52; --soft: #1d2125; --good: #6cd09a; --bad: #ff9aa2; }
}
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 62rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; } h3 { font-size: 1.05rem; }
.scroll { overflow-x: auto; margin: 0.75rem 0; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: 0.3rem 0.7rem; text-align: left; }
th { background: var(--soft); }
td:first-child { min-width: 8rem; }
td.number, th.number { text-align: right; white-space: nowrap; }
.good { color: var(--good); font-weight: 600; } .bad { color: var(--bad); font-weight: 600; }
img { max-width: 100%; background: #fff; border: 1px solid var(--line); border-radius: 6px; }
figure { margin: 1rem 0; } figcaption { font-size: 0.85rem; }
"""
GOOD, BAD = ("agrees", "better"), ("contradicts", "worse")


@dataclass(frozen=True)
class Heading:
    """A heading of a level from 1 to 3."""

    level: int
    text: str


@dataclass(frozen=True)
class Paragraph:
    """Some sentences."""

    text: str


@dataclass(frozen=True)
class Items:
    """A list."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Table:
    """Rows below a head; `numbers` are the columns that are aligned to the right."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[int] = ()


@dataclass(frozen=True)
class Picture:
    """An SVG file beside the page, and what it shows."""

    file: Path
    text: str


Block = Heading | Paragraph | Items | Table | Picture


def markdown(blocks: Sequence[Block]) -> str:
    """Return the page as Markdown; pictures are files beside it."""
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def html(blocks: Sequence[Block], title: str) -> str:
    """Return the page as one HTML file, pictures and all."""
    body = "\n".join(_html(block) for block in blocks)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"{body}\n</main>\n</body>\n</html>\n"
    )


def _markdown(block: Block) -> str:
    match block:
        case Heading(level, text):
            return f"{'#' * level} {text}"
        case Paragraph(text):
            return text
        case Items(lines):
            return "\n".join(f"- {line}" for line in lines)
        case Picture(file, text):
            return f"![{text}]({file.name})"
        case Table(head, rows, numbers):
            marks = ["--:" if index in numbers else "---" for index in range(len(head))]
            table = [head, marks, *rows]
            return "\n".join(f"| {' | '.join(_cell(one) for one in row)} |" for row in table)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _html(block: Block) -> str:
    match block:
        case Heading(level, text):
            return f"<h{level}>{escape(text)}</h{level}>"
        case Paragraph(text):
            return f"<p>{escape(text)}</p>"
        case Items(lines):
            items = "".join(f"<li>{escape(line)}</li>" for line in lines)
            return f"<ul>{items}</ul>"
        case Picture(file, text):
            data = base64.b64encode(file.read_bytes()).decode("ascii")
            source = f"data:image/svg+xml;base64,{data}"
            return (
                f'<figure><img alt="{escape(text)}" src="{source}">'
                f"<figcaption>{escape(text)}</figcaption></figure>"
            )
        case Table(head, rows, numbers):
            heads = "".join(
                f'<th scope="col"{_kind(index, numbers)}>{escape(text)}</th>'
                for index, text in enumerate(head)
            )
            lines = "\n".join(_row(row, numbers) for row in rows)
            return (
                f'<div class="scroll" tabindex="0"><table><thead><tr>{heads}</tr></thead>'
                f"<tbody>\n{lines}\n</tbody></table></div>"
            )


def _row(row: Sequence[str], numbers: Sequence[int]) -> str:
    cells = "".join(
        f"<td{_kind(index, numbers, text)}>{escape(text)}</td>" for index, text in enumerate(row)
    )
    return f"<tr>{cells}</tr>"


def _kind(index: int, numbers: Sequence[int], text: str = "") -> str:
    kinds = ["number"] if index in numbers else []
    if text.startswith(GOOD):
        kinds.append("good")
    if text.startswith(BAD):
        kinds.append("bad")
    return f' class="{" ".join(kinds)}"' if kinds else ""
