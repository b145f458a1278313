"""``coldfusion.json``: which base a model folder is, or was finetuned from."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationError

from coldfusion_client.disk import write_atomically
from coldfusion_shared.schemas.bases import Manifest
from coldfusion_shared.schemas.common import Response, Sha256
from coldfusion_shared.schemas.files import FileEntry

RECORD_FILE = "coldfusion.json"


class Record(Response):
    """Where a model folder comes from."""

    server: str
    digest: Sha256 = Field(description="names the base; SHA-256 of the canonical manifest")
    manifest: Manifest
    finetuned: bool = Field(default=False, description="whether the weights are no longer the base")
    replacing: list[FileEntry] | None = Field(
        default=None, description="files of the base before, while they are being replaced"
    )


def read_record(folder: Path) -> Record | None:
    """Return what `folder` says of itself; null if it says nothing that can be read."""
    try:
        return Record.model_validate_json((folder / RECORD_FILE).read_bytes())
    except (OSError, ValidationError):
        return None


def write_record(folder: Path, record: Record) -> None:
    """Write `record` into `folder`; raises `StorageFull` where there is no room."""
    content = record.model_dump_json(indent=2, exclude_defaults=True) + "\n"
    write_atomically(folder / RECORD_FILE, content.encode())
