"""Transformers without its own bars and warnings: what a person should know, we say ourselves."""

from __future__ import annotations

from typing import Any


def quiet_transformers() -> None:
    """Let transformers report errors only."""
    from transformers.utils import logging

    log: Any = logging  # its functions have no types
    log.set_verbosity_error()
    log.disable_progress_bar()
