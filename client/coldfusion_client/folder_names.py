"""Names of folders that what reads and writes models can take."""

from __future__ import annotations

import os
from pathlib import Path

from coldfusion_shared.errors import InvalidRequest


def require_utf8(*folders: Path) -> None:
    """
    Refuse a folder whose whole name is not UTF-8, which tokenizers take alone.

    Raises:
        InvalidRequest: so is one; better said before a training than after it.
    """
    for folder in folders:
        name = str(folder.absolute())
        try:
            name.encode()
        except UnicodeEncodeError:
            raise _refusal(os.fsencode(name)) from None


def _refusal(name: bytes) -> InvalidRequest:
    shown = name.decode("utf-8", "replace")
    try:
        name.decode()
    except UnicodeDecodeError:
        return InvalidRequest(
            f"The name of the folder {shown} is not UTF-8, and no tokenizer can be written there.",
            hint="Rename it, or choose another: with --output DIR, and COLDFUSION_CACHE for the "
            "cache.",
        )
    # The name is right, and Python reads it in a locale that knows ASCII alone.
    return InvalidRequest(
        f"In this locale the name of the folder {shown} cannot be read.",
        hint="Set PYTHONUTF8=1, or a locale with UTF-8, such as LC_ALL=C.UTF-8.",
    )
