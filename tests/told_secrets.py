"""Secrets in logs and on command lines; `conftest.py` looks at those of all tests."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

# A token, the code of an invitation, the signature of an upload's URL, what a webhook signs with,
# or what a sign-in provider has signed.
SECRET = re.compile(
    r"cfi?_[0-9a-f]{16}_[A-Za-z0-9_-]{22,43}|signature=[0-9a-f]{64}"
    r"|whsec_[A-Za-z0-9+/]{20,}"
    r"|\beyJ[A-Za-z0-9_-]{20,}\.eyJ",
    re.IGNORECASE,
)
# Of what a test has printed, the lines of our own log: commands print tokens where they should.
_LOGGED = re.compile(r"^.*\[(?:debug|info|warning|error) *\].*$", re.MULTILINE)


def beginning(text: str) -> str | None:
    """Return how the first secret in `text` begins; null: there is none."""
    found = SECRET.search(text)
    return None if found is None else found[0][:24]


def in_logs(folder: Path) -> list[str]:
    """Return which logs under `folder` tell a secret."""
    told = []
    # A program that still runs may remove files and folders meanwhile: those are passed over.
    for place, _, names in os.walk(folder):
        for log in (Path(place, name) for name in names if name.endswith(".log")):
            with suppress(FileNotFoundError):
                found = beginning(log.read_text(encoding="utf-8", errors="replace"))
                told += [] if found is None else [f"{log}: {found}..."]
    return told


def in_report(sections: Iterable[tuple[str, str]]) -> str | None:
    """Return what a test's own process has logged of a secret; null: nothing."""
    for name, text in sections:
        logged = "\n".join(_LOGGED.findall(text)) if "stdout" in name else text
        if found := beginning(logged):
            return f"{name} tells a secret: {found}..."
    return None


def in_command(args: Any) -> str | None:
    """Return what a command, as `subprocess` takes it, tells of a secret; null: nothing."""
    words = [args] if isinstance(args, str | bytes | os.PathLike) else args
    text = " ".join(os.fsdecode(word) for word in words)
    found = beginning(text)
    return None if found is None else f"{text[:40]}: {found}..."


@contextmanager
def in_commands() -> Iterator[list[str]]:
    """Collect what the commands that this process starts tell of secrets."""
    told: list[str] = []
    start = subprocess.Popen.__init__

    def watched(self: Any, args: Any, *more: Any, **named: Any) -> None:
        if found := in_command(args):
            told.append(found)
        start(self, args, *more, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess.Popen, "__init__", watched)
        yield told
