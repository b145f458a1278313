"""What to install, said where something is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from coldfusion_shared.errors import MissingExtra


@contextmanager
def needs_train() -> Iterator[None]:
    """Turn a module that is missing inside into `MissingExtra` of the extra `train`."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtra.of("train", error.name or "torch") from None
