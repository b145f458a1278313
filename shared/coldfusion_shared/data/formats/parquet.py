"""Parquet files, by pyarrow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coldfusion_shared.data.formats import formats
from coldfusion_shared.data.table import Table
from coldfusion_shared.errors import BadData


@formats.register(".parquet")
def read_parquet(path: Path) -> Table:
    """Read the columns that may be of use to a task; their rows count from 1."""
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            names = [field.name for field in file.schema_arrow if _is_useful(field.type)]
            columns = file.read(columns=names).to_pydict()
            rows = file.metadata.num_rows
    except (OSError, pyarrow.ArrowException) as error:
        reason = str(error).strip().splitlines()[0]
        raise BadData(
            f"{path} cannot be read as Parquet: {reason}",
            hint="Check that the file is complete; write it again with pandas or pyarrow.",
        ) from error
    return Table(str(path), columns, range(1, rows + 1), unit="row")


def _is_useful(kind: Any) -> bool:
    """Return false for what is nested and of bytes or fractions: images, vectors; often huge."""
    from pyarrow import types

    if types.is_struct(kind):
        return all(_is_useful(field.type) and _is_text_or_whole(field.type) for field in kind)
    if types.is_list(kind) or types.is_large_list(kind):
        return _is_useful(kind.value_type) and _is_text_or_whole(kind.value_type)
    return not types.is_nested(kind)


def _is_text_or_whole(kind: Any) -> bool:
    from pyarrow import types

    return not (
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
        or types.is_floating(kind)
    )
