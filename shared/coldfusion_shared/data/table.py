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
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # Programs that write UTF-16 begin the file with one of these marks.
        utf_16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        encoding = "UTF-16" if utf_16 else "WINDOWS-1252"
        line = error.object.count(b"\n", 0, error.start) + 1
        raise BadData(
            f"{path}, line {line}: the text is not UTF-8.",
            hint=f"Convert it, probably with: iconv -f {encoding} -t UTF-8 {path.name} > utf8"
            f"{path.suffix}",
        ) from error
