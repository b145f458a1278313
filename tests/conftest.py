"""What all tests share: how hard hypothesis tries."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

# The machines of CI are slow and shared: a deadline would fail for no reason of ours.
settings.register_profile("coldfusion", deadline=None, max_examples=60, print_blob=True)
settings.load_profile("coldfusion")


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server without databases; skips where there is none."""
    from tests.server.postgres import server

    with server() as url:
        yield url
