"""Which column plays which role."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from coldfusion_shared.data.table import Table
from coldfusion_shared.errors import BadData

if TYPE_CHECKING:
    from coldfusion_shared.tasks.roles import Role

# Of the columns that nothing is read from, how many are named.
MOST_TOLD = 8


def find_columns(table: Table, roles: tuple[Role, ...], given: Mapping[str, str]) -> dict[str, str]:
    """
    Return the roles' columns, as the file spells them.

    Args:
        table: the training data.
        roles: of the task.
        given: columns that the person names, by role; the others are found by their usual names.

    Raises:
        BadData: a named column is not there, or none has a usual name for a required role.
    """
    columns = usual_columns(table, roles, given)
    for role in roles:
        if role.required and role.name not in columns:
            raise BadData(
                f"No column of {table.where} has a usual name for {role.what}; its columns are: "
                f"{_listed(table)}.",
                hint=f"Say which one it is with --column {role.name}=NAME. The first line of a CSV "
                "or TSV file must name the columns.",
            )
    return columns


def usual_columns(
    table: Table, roles: tuple[Role, ...], given: Mapping[str, str]
) -> dict[str, str]:
    """Return as many of the roles' columns as can be found; a column plays one role only."""
    named = {role.name: given[role.name] for role in roles if role.name in given}
    for name in named.values():
        require_column(table, name)
    columns, spelt = dict(named), {name.strip().lower(): name for name in table.columns}
    # Required ones choose first: the second text of a pair may be called like a label.
    for role in sorted(roles, key=lambda role: not role.required):
        if role.name not in columns:
            names = (*role.names, *_beside(role, columns.get(roles[0].name)))
            free = (spelt[name] for name in names if name in spelt)
            found = next((name for name in free if name not in columns.values()), None)
            if found is not None:
                columns[role.name] = found
    return columns


def told_columns(table: Table, roles: tuple[Role, ...], columns: Mapping[str, str]) -> str:
    """Return a sentence that says which columns are read, as what, and which are not."""
    named = (f"{columns[r.name]!r:.40} is {r.what}" for r in roles if r.name in columns)
    unused = [f"{name!r:.40}" for name in table.columns if name not in columns.values()]
    more = [f"{len(unused) - MOST_TOLD} others"] if len(unused) > MOST_TOLD else []
    rest = f"; not used: {', '.join(unused[:MOST_TOLD] + more)}" if unused else ""
    return f"Columns: {', '.join(named)}{rest}."


def require_column(table: Table, name: str) -> None:
    """Refuse a table that lacks the column `name`."""
    if name not in table.columns:
        raise BadData(
            f"{table.where} has no column {name!r}.",
            hint=f"Its columns are: {_listed(table)}.",
        )


def _beside(role: Role, first: str | None) -> Iterable[str]:
    return role.beside.get(first.strip().lower(), ()) if first else ()


def _listed(table: Table) -> str:
    return ", ".join(repr(column) for column in table.columns)
