"""Pages of a list, newest first, by the id of the last row that was seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import BigInteger, Select, literal
from sqlalchemy.orm import Session

from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.schemas.common import Page

Row = TypeVar("Row")
Item = TypeVar("Item")

MAX_LIMIT = 200


@dataclass(frozen=True)
class Window:
    """Which part of the list is asked for."""

    cursor: str | None = None
    limit: int = 50


def page(
    session: Session,
    query: Select[Row],
    key: Any,
    window: Window,
    convert: Callable[[Row], Item],
) -> Page[Item]:
    """
    Return one page of `query`.

    Args:
        session: where to read.
        query: selects rows, without an order.
        key: the unique integer column to order by, largest first.
        window: which part.
        convert: from a row to what is sent.
    """
    if window.cursor is not None:
        if not window.cursor.isascii() or not window.cursor.isdigit() or len(window.cursor) > 18:
            raise InvalidRequest("The cursor is not one that this server gave out.")
        # A cursor may be larger than any id; PostgreSQL takes no such number for the column's type.
        query = query.where(key < literal(int(window.cursor), BigInteger))
    limit = min(window.limit, MAX_LIMIT)
    rows = session.scalars(query.order_by(key.desc()).limit(limit + 1)).all()
    more = len(rows) > limit
    rows = rows[:limit]
    cursor = str(getattr(rows[-1], key.key)) if more else None
    return Page(items=[convert(row) for row in rows], next_cursor=cursor)


def every(read: Callable[[Window], Page[Item]]) -> Iterator[Item]:
    """Yield all items of a list, page by page; `read` returns the page of a window."""
    cursor, more = None, True
    while more:
        found = read(Window(cursor, MAX_LIMIT))
        yield from found.items
        cursor, more = found.next_cursor, found.next_cursor is not None
