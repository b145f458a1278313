"""Suites: what their names stand for, so that scores of different times can be compared."""

from __future__ import annotations

from sqlalchemy import Select, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import BaseRow, EvaluationRow, ModelRow, SuiteRow
from coldfusion_server.events import outbox
from coldfusion_server.services.context import Context
from coldfusion_server.services.lookup import searchable
from coldfusion_server.services.tokens import Principal, require
from coldfusion_shared.errors import InvalidRequest, SuiteChanged, SuiteNotFound
from coldfusion_shared.schemas.evaluations import EvaluationReport, RegisteredSuite, Suite
from coldfusion_shared.schemas.tokens import Role

ANOTHER_NAME = "Give the suite another name; scores of different data cannot be compared."


def register(
    ctx: Context, name: str, suite: Suite, principal: Principal | None
) -> tuple[RegisteredSuite, bool]:
    """
    Let `name` stand for `suite`, for ever; return it, and whether that is new. Harmless to repeat.

    Raises:
        InvalidRequest: the suite calls itself otherwise, or a setting is no number.
        SuiteChanged: the name stands for another suite.
    """
    who = require(principal, Role.EVALUATOR)
    if suite.name != name:
        raise InvalidRequest(f"The suite calls itself {suite.name!r}, and not {name[:100]!r}.")
    if Suite.model_validate_json(suite.model_dump_json()) != suite:
        raise InvalidRequest("A setting of the suite's training is infinite or no number.")
    try:
        with ctx.database.write() as session:
            row = session.scalar(select(SuiteRow).where(SuiteRow.name == name))
            new = row is None
            if row is None:
                row = _new_row(ctx, session, suite, who)
            shown = to_schema(row)
    except IntegrityError:
        # Another one has registered the name at the same time.
        with ctx.database.read() as session:
            shown, new = to_schema(find_suite(session, name)), False
    if shown.digest != suite.digest():
        what = _difference(shown.suite, suite)
        raise SuiteChanged(
            f"The suite {name!r} is registered with other contents: {what}.", hint=ANOTHER_NAME
        )
    return shown, new


def get_suite(ctx: Context, name: str, principal: Principal | None) -> RegisteredSuite:
    """Return what `name` stands for; raises `SuiteNotFound`."""
    with ctx.database.read() as session:
        query = _readable(principal).where(SuiteRow.name == searchable(name))
        row = session.scalar(query)
        if row is None:
            raise _unknown(name)
        return to_schema(row)


def list_suites(ctx: Context, principal: Principal | None) -> list[RegisteredSuite]:
    """Return the suites that the caller may see, by name."""
    with ctx.database.read() as session:
        rows = session.scalars(_readable(principal).order_by(SuiteRow.name))
        return [to_schema(row) for row in rows]


def find_suite(session: Session, name: str) -> SuiteRow:
    """Return the row of the suite called `name`; raises `SuiteNotFound`."""
    row = session.scalar(select(SuiteRow).where(SuiteRow.name == searchable(name)))
    if row is None:
        raise _unknown(name)
    return row


def check_report(session: Session, report: EvaluationReport) -> None:
    """
    Check that a report that names a suite's digest is of that suite, and of all of it.

    Raises:
        SuiteNotFound: nobody has registered it.
        SuiteChanged: it is registered with another digest.
        InvalidRequest: there are scores of other data sets, or some are missing.
    """
    if report.suite_digest is None:
        return
    row = find_suite(session, report.suite)
    if row.digest != report.suite_digest:
        raise SuiteChanged(
            f"The scores were measured with another suite {report.suite!r} than is registered.",
            hint=ANOTHER_NAME,
        )
    names = {dataset.name for dataset in to_schema(row).suite.datasets}
    if strange := sorted(report.scores.keys() - names):
        raise InvalidRequest(f"The suite {report.suite!r} has no data set {strange[0]!r}.")
    if missing := sorted(names - report.scores.keys()):
        raise InvalidRequest(
            f"The suite {report.suite!r} also has the data set {missing[0]!r}.",
            hint="Hand in the scores of all its data sets: an average over some cannot be compared "
            "with one over others.",
        )


def to_schema(row: SuiteRow) -> RegisteredSuite:
    """Return what the API shows of a suite."""
    return RegisteredSuite(
        name=row.name,
        digest=row.digest,
        suite=Suite.model_validate_json(row.definition),
        registered_by=row.contributor.name,
        created_at=row.created_at,
    )


def _new_row(ctx: Context, session: Session, suite: Suite, who: Principal) -> SuiteRow:
    row = SuiteRow(
        name=suite.name,
        digest=suite.digest(),
        definition=suite.model_dump_json(),
        contributor_id=who.contributor_id,
        created_at=ctx.now(),
    )
    session.add(row)
    session.flush()
    session.refresh(row)
    data = {"suite": row.name, "digest": row.digest}
    outbox.append(session, row.created_at, "suite.registered", None, data)
    return row


def _readable(principal: Principal | None) -> Select[SuiteRow]:
    """Return what `principal` may see: with a token all, else suites of public bases."""
    query = select(SuiteRow)
    if principal is not None:
        return query
    public = (
        select(EvaluationRow.suite)
        .join(BaseRow, BaseRow.id == EvaluationRow.base_id)
        .join(ModelRow, ModelRow.id == BaseRow.model_id)
        .where(ModelRow.public, EvaluationRow.suite_digest.is_not(None))
    )
    return query.where(SuiteRow.name.in_(public))


def _difference(known: Suite, given: Suite) -> str:
    """Say what tells two suites apart: the first data set, or the settings."""
    before = {dataset.name: dataset for dataset in known.datasets}
    after = {dataset.name: dataset for dataset in given.datasets}
    for name in before | after:
        if name not in after:
            return f"the data set {name!r} is missing here"
        if name not in before:
            return f"the data set {name!r} is new"
        if before[name] != after[name]:
            fields = before[name].model_dump()
            other = after[name].model_dump()
            changed = ", ".join(field for field in fields if fields[field] != other[field])
            return f"the data set {name!r} differs in {changed}"
    if list(before) != list(after):
        return "the data sets are in another order"
    return "its limits or settings differ"


def _unknown(name: str) -> SuiteNotFound:
    return SuiteNotFound(
        f"There is no suite {name[:100]!r} here, or you may not see it.",
        hint="An evaluator registers one with: coldfusion-client evaluate MODEL --suite FILE "
        "--post",
    )
