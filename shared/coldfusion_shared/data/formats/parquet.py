"""Parquet files, by pyarrow."""

from __future__ import annotations

from pathlib import Path

from coldfusion_shared.data.formats import formats
from coldfusion_shared.data.table import Table
from coldfusion_shared.errors import BadData


@formats.register(".parquet")
def read_parquet(path: Path) -> Table:
    """Read the columns that hold single values; their rows count from 1."""
    import pyarrow
    from pyarrow import parquet, types

    try:
        with parquet.ParquetFile(path) as file:
            # Nested columns, such as images, are neither text nor label and may be huge.
            flat = [field.name for field in file.schema_arrow if not types.is_nested(field.type)]
            columns = file.read(columns=flat).to_pydict()
            rows = file.metadata.num_rows
    except (OSError, pyarrow.ArrowException) as error:
        reason = str(error).strip().splitlines()[0]
        raise BadData(
            f"{path} cannot be read as Parquet: {reason}",
            hint="Check that the file is complete; write it again with pandas or pyarrow.",
        ) from error
    return Table(str(path), columns, range(1, rows + 1), unit="row")
