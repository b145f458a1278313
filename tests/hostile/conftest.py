"""What the hostile tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Keep what servers in this process log out of the tests' own output."""
    structlog.configure(
        processors=[structlog.testing.LogCapture()], cache_logger_on_first_use=False
    )
    yield
    structlog.reset_defaults()
