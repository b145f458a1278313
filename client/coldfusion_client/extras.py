"""What to install, said where something is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from coldfusion_shared.errors import MissingExtra


@contextmanager
def needs_train() -> Iterator[None]:
    """Turn a module that is missing inside into `MissingExtra` of the extra `train`."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtra.of("train", error.name or "torch") from None


def require_dp() -> None:
    """Raise `MissingExtra` where what DP-SGD needs is not installed."""
    if find_spec("opacus") is None:
        raise MissingExtra.of("dp", "opacus")
