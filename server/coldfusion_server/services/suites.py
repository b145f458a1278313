"""Suites: what their names stand for, so that scores of different times can be compared."""

from __future__ import annotations

from statistics import fmean

from sqlalchemy import Select, false, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import BaseRow, EvaluationRow, ModelRow, SuiteRow
from coldfusion_server.events import audit, outbox
from coldfusion_server.services import paging
from coldfusion_server.services.context import Context
from coldfusion_server.services.lookup import readable, searchable
from coldfusion_server.services.tokens import Principal, require_anywhere
from coldfusion_shared.errors import InvalidRequest, SuiteChanged, SuiteNotFound
from coldfusion_shared.evaluate.metrics import scorer_of
from coldfusion_shared.schemas.common import Page
from coldfusion_shared.schemas.evaluations import (
    EvaluationReport,
    RegisteredSuite,
    Suite,
    SuiteDataset,
)
from coldfusion_shared.schemas.tokens import Role

# Points: scores may be given with two decimals.
ROUNDING = 0.01
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
    # A suite is no model's: whoever measures any may name what he measures with.
    who = require_anywhere(principal, Role.EVALUATOR)
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
        with ctx.database.read() as session:
            seen = session.scalar(_readable(principal).where(SuiteRow.name == name)) is not None
        what = f": {_difference(shown.suite, suite)}" if seen else ""
        raise SuiteChanged(
            f"The suite {name!r} is registered with other contents{what}.", hint=ANOTHER_NAME
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


def list_suites(
    ctx: Context, principal: Principal | None, window: paging.Window
) -> Page[RegisteredSuite]:
    """Return the suites that the caller may see, newest first."""
    with ctx.database.read() as session:
        return paging.page(session, _readable(principal), SuiteRow.id, window, to_schema)


def find_suite(session: Session, name: str) -> SuiteRow:
    """Return the row of the suite called `name`; raises `SuiteNotFound`."""
    row = session.scalar(select(SuiteRow).where(SuiteRow.name == searchable(name)))
    if row is None:
        raise _unknown(name)
    return row


def check_report(session: Session, report: EvaluationReport) -> None:
    """
    Check that a report that names a suite's digest is of that suite, of all of it, and sound.

    Raises:
        SuiteNotFound: nobody has registered it.
        SuiteChanged: it is registered with another digest.
        InvalidRequest: there are scores of other data sets or by another metric, some are missing,
            or they are not what the seeds' scores come to.
    """
    if report.suite_digest is None:
        return
    row = find_suite(session, report.suite)
    if row.digest != report.suite_digest:
        raise SuiteChanged(
            f"The scores were measured with another suite {report.suite!r} than is registered.",
            hint=ANOTHER_NAME,
        )
    suite = to_schema(row).suite
    _check_names(suite, report)
    if report.metric != suite.metric:
        raise InvalidRequest(
            f"The suite {suite.name!r} is scored by {suite.metric!r}, and not by "
            f"{report.metric!r}.",
            hint="Hand in what coldfusion-client evaluate has measured.",
        )
    for dataset in suite.datasets:
        _check_seeds(dataset, report)


def _check_names(suite: Suite, report: EvaluationReport) -> None:
    names = {dataset.name for dataset in suite.datasets}
    if strange := sorted(report.scores.keys() - names):
        raise InvalidRequest(f"The suite {report.suite!r} has no data set {strange[0]!r}.")
    if missing := sorted(names - report.scores.keys()):
        raise InvalidRequest(
            f"The suite {report.suite!r} also has the data set {missing[0]!r}.",
            hint="Hand in the scores of all its data sets: an average over some cannot be compared "
            "with one over others.",
        )


def _check_seeds(dataset: SuiteDataset, report: EvaluationReport) -> None:
    """Check that a score is the mean over the seeds, and has an error where it can have one."""
    score, by_seed = report.scores[dataset.name], report.by_seed.get(dataset.name)
    if not by_seed:
        raise InvalidRequest(
            f"The report does not say what each seed scored on {dataset.name!r}.",
            hint="Scores of a suite that is pinned come with seeds and by_seed.",
        )
    if abs(fmean(by_seed) - score) > ROUNDING:
        raise InvalidRequest(
            f"The score {score:g} on {dataset.name!r} is not the mean of its seeds' scores, "
            f"{fmean(by_seed):g}.",
            hint="Hand in the mean over all seeds of by_seed.",
        )
    told = dataset.name in report.standard_errors
    if len(by_seed) > 1 and not told and _has_error(dataset):
        raise InvalidRequest(
            f"The report has {len(by_seed)} seeds and no standard error of {dataset.name!r}.",
            hint="Without one nobody can tell whether bases differ; coldfusion-client evaluate "
            "measures it.",
        )


def _has_error(dataset: SuiteDataset) -> bool:
    """Return whether an error can be told: from two examples, each of which is scored by itself."""
    try:
        scorer = scorer_of(dataset.task, dataset.metric)
    except KeyError:
        # Whoever registers a suite by hand may call a metric what he likes.
        return False
    return dataset.test > 1 and scorer is not None


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
    audit.note(
        session, row.created_at, who, "suite.registered", subject=row.name, digest=row.digest
    )
    return row


def _readable(principal: Principal | None) -> Select[SuiteRow]:
    """Return what `principal` may see: all, or suites of bases that he may read, and his own."""
    query = select(SuiteRow)
    if principal is not None and principal.models is None:
        return query
    used = (
        select(EvaluationRow.suite)
        .join(BaseRow, BaseRow.id == EvaluationRow.base_id)
        .join(ModelRow, ModelRow.id == BaseRow.model_id)
        .where(readable(principal), EvaluationRow.suite_digest.is_not(None))
    )
    own = false() if principal is None else SuiteRow.contributor_id == principal.contributor_id
    return query.where(or_(SuiteRow.name.in_(used), own))


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
