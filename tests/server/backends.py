"""
The two databases that the tests run on.

What may go wrong in one database and not in the other runs on both: tests, or whole files, that are
marked with `both_databases`. Such are transactions, locks and leases, races and kills, migrations,
backups, and queries that sort, page or aggregate. Every other test runs on one of the two, always
the same, which its name decides; so both meet every service. `--databases both` runs all on both.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.server import postgres

NAMES = ("sqlite", "postgresql")
both_databases = pytest.mark.databases(*NAMES)
# For tests of what only SQLite has: a file.
only_sqlite = pytest.mark.databases("sqlite")
only_postgresql = pytest.mark.databases("postgresql")

# One test in so many is for PostgreSQL, on which each takes twice as long.
POSTGRESQL_EVERY = 3


def databases_of(test: pytest.Item, *, everywhere: bool) -> Sequence[str]:
    """Return the databases that a test runs on, `everywhere` or where it proves something."""
    if marker := test.get_closest_marker("databases"):
        return marker.args
    if everywhere:
        return NAMES
    chosen = zlib.crc32(test.nodeid.encode()) % POSTGRESQL_EVERY == 0
    return ("postgresql",) if chosen and postgres.is_installed() else ("sqlite",)


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
