"""A file, by path, size and content."""

from __future__ import annotations

from pydantic import Field

from coldfusion_shared.schemas.common import FilePath, Request, Sha256, Size


class FileEntry(Request):
    """One file of a base or of a contribution."""

    path: FilePath
    size: Size = Field(description="bytes")
    sha256: Sha256
