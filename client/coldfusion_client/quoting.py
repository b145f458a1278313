"""Commands that a person can type as they stand."""

from __future__ import annotations

import os
import shlex
import subprocess


def command_line(*words: str) -> str:
    """Return `words` as a person types them in this system's shell."""
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)
