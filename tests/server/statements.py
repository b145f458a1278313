"""
Statements that are compiled once.

Each test has an engine of its own, and an engine compiles what it has not met: a quarter of a
test's time, if nobody remembered.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from sqlalchemy import create_engine


class Statements(dict[Any, Any]):
    """What is compiled, by the kind of a dialect where SQLAlchemy's own are by the dialect."""

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get((type(key[0]), *key[1:]), default)

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__((type(key[0]), *key[1:]), value)


def remember(patch: pytest.MonkeyPatch) -> None:
    """Let all engines that the server makes from now on share what they compile."""
    shared = partial(create_engine, execution_options={"compiled_cache": Statements()})
    patch.setattr("coldfusion_server.db.database.create_engine", shared)
