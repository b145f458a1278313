"""CSV and TSV files whose first line names the columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

from coldfusion_shared.data.formats import formats
from coldfusion_shared.data.nested import nested
from coldfusion_shared.data.table import Table, read_text
from coldfusion_shared.errors import BadData

Record = tuple[int, list[str]]

DELIMITERS = (",", ";", "\t")
# Characters that hold the names of the columns.
MOST_NAMES = 2**16

# The module's own limit, 128 KiB, is less than a long document has; C's long is the most it takes.
csv.field_size_limit(2**31 - 1)


@formats.register(".csv")
def read_csv(path: Path) -> Table:
    """
    Read values that are quoted where needed, and separated by commas.

    Spreadsheets write other separators in some countries. The names of the columns tell which it
    is, and where they hold several, what makes equally many fields of each record.
    """
    text = read_text(path)
    found, refused = {}, []
    for delimiter in _delimiters(path, text[:MOST_NAMES]):
        try:
            records = list(_records(path, text, delimiter, csv.QUOTE_MINIMAL))
            found[delimiter] = _table(path, records)
        except BadData as error:
            refused.append(error)
        if "," in found:
            return found[","]
    if not found:
        raise refused[0]
    if len(found) > 1:
        raise BadData(
            f"{path} can be read with several separators: {' '.join(map(repr, found))}.",
            hint="Write it again with commas, and texts that hold one in quotation marks.",
        )
    return next(iter(found.values()))


@formats.register(".tsv")
def read_tsv(path: Path) -> Table:
    """Read tab-separated values, which some programs quote like CSV and others never."""
    text = read_text(path)
    try:
        return _table(path, list(_records(path, text, "\t", csv.QUOTE_MINIMAL)))
    except BadData as quoted:
        try:
            return _table(path, list(_records(path, text, "\t", csv.QUOTE_NONE)))
        except BadData:
            raise quoted from None


def _delimiters(path: Path, beginning: str) -> list[str]:
    """Return what may separate the fields; the comma if nothing separates the columns' names."""
    separating = []
    for delimiter in DELIMITERS:
        with suppress(BadData):
            _, header = next(_records(path, beginning, delimiter, csv.QUOTE_MINIMAL), (0, []))
            if len(header) > 1:
                separating.append(delimiter)
    return separating or [","]


def _records(path: Path, text: str, delimiter: str, quoting: Literal[0, 3]) -> Iterator[Record]:
    """Yield each record's fields and the line that it begins on; lines without any are skipped."""
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise BadData(
                f"{path}, line {line}: the record that begins here is broken ({error}).",
                hint='Look for a quotation mark that is never closed, or that should be two: "".',
            ) from error
        if fields is None:
            return
        if fields:
            yield line, fields


def _table(path: Path, records: list[Record]) -> Table:
    _, header = records.pop(0) if records else (0, [])
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise BadData(f"{path}: two columns are named {twice!r}.", hint="Rename one of them.")
    for line, fields in records:
        if len(fields) != len(header):
            raise BadData(
                f"{path}, line {line}: expected {len(header)} fields, found {len(fields)}.",
                hint="A text that holds the separator or a line break must be in quotation marks.",
            )
    values = (
        zip(*(fields for _, fields in records), strict=True) if records else ([],) * len(header)
    )
    columns = {name: nested(cells) for name, cells in zip(header, values, strict=True)}
    return Table(str(path), columns, [line for line, _ in records])
