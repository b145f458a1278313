"""A stored file as an answer, whole or by range."""

from __future__ import annotations

from starlette.responses import FileResponse


class StoredFile(FileResponse):
    """Sends larger pieces than starlette: each one costs a change of threads and a system call."""

    chunk_size = 2**18
