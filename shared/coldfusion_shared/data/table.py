"""A file as it was read, before anybody knows what its columns mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from coldfusion_shared.errors import BadData


@dataclass(frozen=True)
class Table:
    """
    Columns of values, and where each row was found.

    `where` is what messages call the table, `lines` are the rows' places in it, counted in
    `unit`. `classes` gives, for a column of integers that stand for names, those names.
    """

    where: str
    columns: Mapping[str, Sequence[object]]
    lines: Sequence[int]
    unit: str = "line"
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def at(self, row: int) -> str:
        """Say where row `row` (from 0) was found."""
        return f"{self.where}, {self.unit} {self.lines[row]}"


def read_bytes(path: Path) -> bytes:
    """Return a file's content, or say why it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadData(
            f"{path} cannot be read: {error.strerror}.",
            hint="Check the file and your permission to read it.",
        ) from error


def read_text(path: Path) -> str:
    """Return the content of a UTF-8 file, with or without a byte order mark."""
    content = read_bytes(path)
    # Programs that write UTF-16 begin the file with a mark, or its letters are every other byte.
    zeros = content[:2].find(0)
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or zeros >= 0:
        raise _not_utf_8(path, 1, ("UTF-16BE", "UTF-16LE", "UTF-16")[zeros])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise _not_utf_8(path, line, "WINDOWS-1252") from error


def _not_utf_8(path: Path, line: int, encoding: str) -> BadData:
    return BadData(
        f"{path}, line {line}: the text is not UTF-8.",
        hint="Save it as UTF-8 in the program that wrote it, or convert it, probably with: "
        f"iconv -f {encoding} -t UTF-8 {path.name} > utf8{path.suffix}",
    )
