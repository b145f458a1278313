"""Tagged words, one a line: the word first, its tag last; an empty line ends a sentence."""

from __future__ import annotations

from pathlib import Path

from coldfusion_shared.data.formats import formats
from coldfusion_shared.data.table import Table, read_text
from coldfusion_shared.errors import BadData

# The corpus of 2003 begins its documents with a line of this word.
DOCUMENT = "-DOCSTART-"


@formats.register(".conll")
def read_conll(path: Path) -> Table:
    """Read the columns "tokens" and "tags", lists of one length; what is between them is left."""
    sentences: list[tuple[int, list[list[str]]]] = []
    inside = False
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        fields = line.split()
        if not fields or fields[0] == DOCUMENT:
            inside = False
            continue
        if len(fields) < 2:
            raise BadData(
                f"{path}, line {number}: expected a word and its tag, found {fields[0]!r:.40}.",
                hint="Separate them by a space or a tab, and sentences by an empty line.",
            )
        if not inside:
            sentences.append((number, []))
            inside = True
        sentences[-1][1].append(fields)
    columns = {
        "tokens": [[fields[0] for fields in words] for _, words in sentences],
        "tags": [[fields[-1] for fields in words] for _, words in sentences],
    }
    return Table(str(path), columns, [line for line, _ in sentences])
