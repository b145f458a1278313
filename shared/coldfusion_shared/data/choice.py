"""Which task a table is for."""

from __future__ import annotations

from collections.abc import Mapping

from coldfusion_shared.data.columns import find_columns, usual_columns
from coldfusion_shared.data.table import Table
from coldfusion_shared.errors import BadData
from coldfusion_shared.tasks import Task, in_order, task_named
from coldfusion_shared.tasks.architectures import ARCHITECTURES, Architecture

# Whose missing column is told when no task fits.
USUAL = "classification"


def choose_task(
    table: Table,
    given: Mapping[str, str],
    *,
    name: str | None = None,
    architecture: Architecture | None = None,
) -> tuple[Task, dict[str, str]]:
    """
    Return the task called `name`, or the first one that fits the table, and the roles' columns.

    Args:
        table: the training data.
        given: columns that the person names, by role.
        name: of the task that the person wants.
        architecture: of the base; null: not known.

    Raises:
        UnknownName: there is no task of that name.
        BadData: none fits, a column that it needs is not there, or the base cannot learn it.
    """
    if name is not None:
        task = task_named(name)
        _require_roles((task,), given)
        if not _suits(task, architecture):
            raise _wrong_base(f"The task {task.name}", task, architecture)
        return task, find_columns(table, task.roles, given)
    candidates = in_order()
    _require_roles(candidates, given)
    fitting = _fitting(table, given, architecture)
    if fitting is not None and not _suits(fitting[0], architecture):
        raise _looks_like(table, fitting[0], architecture)
    if fitting is not None:
        return fitting
    choose = f"Choose one with --task: {', '.join(task.name for task in candidates)}."
    for other in ARCHITECTURES:
        elsewhere = _fitting(table, given, other)
        if elsewhere is not None:
            raise _looks_like(table, elsewhere[0], architecture)
    # Columns that were named tell which task was meant.
    meant = [task for task in candidates if _knows(task, given)]
    usual = [task for task in meant if task.name == USUAL]
    for task in usual or meant[:1]:
        find_columns(table, task.roles, given)
    raise BadData(f"No kind of task fits {table.where}.", hint=choose)


def _fitting(
    table: Table, given: Mapping[str, str], architecture: Architecture | None
) -> tuple[Task, dict[str, str]] | None:
    for task in in_order():
        if _knows(task, given):
            columns = usual_columns(table, task.roles, given)
            complete = all(role.name in columns for role in task.roles if role.required)
            if complete and task.fits(table, columns, architecture):
                return task, columns
    return None


def _suits(task: Task, architecture: Architecture | None) -> bool:
    return architecture is None or architecture in task.architectures


def _looks_like(table: Table, task: Task, architecture: Architecture | None) -> BadData:
    return _wrong_base(f"{table.where} looks like data for {task.name}, which", task, architecture)


def _wrong_base(what: str, task: Task, architecture: Architecture | None) -> BadData:
    others = ", ".join(one.name for one in in_order() if _suits(one, architecture))
    return BadData(
        f"{what} is for bases of the kind {' or '.join(task.architectures)}; this one's is "
        f"{architecture or 'not known'}.",
        hint=f"Take another base, or, if the data suit it, another task with --task: {others}.",
    )


def _knows(task: Task, given: Mapping[str, str]) -> bool:
    return set(given) <= {role.name for role in task.roles}


def _require_roles(tasks: tuple[Task, ...], given: Mapping[str, str]) -> None:
    roles = dict.fromkeys(role.name for task in tasks for role in task.roles)
    strange = next((role for role in given if role not in roles), None)
    if strange is not None:
        whose = f"the task {tasks[0].name}" if len(tasks) == 1 else "any task"
        raise BadData(
            f"--column {strange}={given[strange]}: {strange!r} is no column of {whose}.",
            hint=f"Known are: {', '.join(roles)}.",
        )
