"""The two databases that the tests run on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.server import postgres

NAMES = ("sqlite", "postgresql")
# For tests of what only SQLite has: a file.
only_sqlite = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
only_postgresql = pytest.mark.parametrize("backend", ["postgresql"], indirect=True)


@dataclass(frozen=True)
class Backend:
    """Makes databases: on the PostgreSQL server at `url`, or SQLite's in a Repository's folder."""

    url: str | None

    @contextmanager
    def database(self, template: str | None = None) -> Iterator[str | None]:
        """Make a database for a while, perhaps a copy; yield its URL, null for SQLite's."""
        if self.url is None:
            yield None
            return
        with postgres.database(self.url, template) as made:
            yield made
