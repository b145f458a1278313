"""The Repository's own evaluator: measures what gates wait for, bases, single contributions."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from coldfusion_server import tracing
from coldfusion_server.db.tables import BaseRow, CandidateRow, ModelRow
from coldfusion_server.services import (
    candidates,
    checkout,
    evaluation_tries,
    evaluations,
    fuse_inputs,
    leases,
    reasons,
    usefulness,
)
from coldfusion_server.services.context import Context
from coldfusion_server.services.evaluation_tries import Measurement, Subject
from coldfusion_server.services.fuse_inputs import Input
from coldfusion_server.services.fused_folder import fuse_into
from coldfusion_server.services.heartbeat import WorkStopped
from coldfusion_server.services.holding import Holding
from coldfusion_server.services.lookup import find_base, manifest_of
from coldfusion_server.services.tokens import Principal
from coldfusion_server.services.work_times import WorkTimed, keep
from coldfusion_shared.errors import (
    CandidateNotFound,
    ColdFusionError,
    DatabaseUnavailable,
    LeaseLost,
    StorageUnavailable,
)
from coldfusion_shared.schemas.bases import Manifest
from coldfusion_shared.schemas.evaluations import EvaluationReport

log = structlog.get_logger(__name__)


class Measure(Protocol):
    """Measures models in folders."""

    def __call__(
        self, folder: Path, moved: Callable[[], None], base: Path | None = None
    ) -> EvaluationReport:
        """
        Measure the model in `folder`.

        Args:
            folder: of a base, or of a candidate.
            moved: called all the time, and may end it.
            base: the folder of the base that a candidate was fused onto: what it has right and the
                candidate has wrong is reported, too.
        """


@dataclass(frozen=True)
class Task:
    """
    What an evaluator does.

    Attributes:
        what: is measured of everything.
        measure: does it.
        folder: models are brought into folders in it, for as long as they are measured.
        who: hands in the scores.
    """

    what: Measurement
    measure: Measure
    folder: Path
    who: Principal


@dataclass(frozen=True)
class _Found:
    """
    A base, a candidate or a contribution.

    Attributes:
        manifest: of the base or candidate, or of what the contribution was made from.
        base: of a candidate, its base's.
        candidate: its id.
        contribution: its id.
        alone: what adds the contribution to its base.
    """

    manifest: Manifest
    base: Manifest | None = None
    candidate: str | None = None
    contribution: str | None = None
    alone: Input | None = None

    @property
    def named(self) -> dict[str, str]:
        """What the log calls it."""
        if self.contribution is not None:
            return {"model": self.manifest.model, "contribution": self.contribution}
        if self.candidate is None:
            return {"model": self.manifest.model, "version": self.manifest.version}
        return {"model": self.manifest.model, "candidate": self.candidate}


def measure_next(ctx: Context, task: Task, holder: str) -> bool:
    """Measure one base or candidate that waits for it; return whether there was one."""
    for subject in evaluation_tries.waiting(ctx, task.what):
        with leases.held(ctx, task.what.key(subject), holder) as lease:
            if lease is not None and _try(ctx, task, subject, lease):
                return True
    return False


def sweep(ctx: Context, task: Task, holder: str) -> None:
    """Remove the folders that killed evaluators have left behind."""
    for folder in task.folder.glob("evaluation.*"):
        with leases.held(ctx, _key(folder), holder) as lease:
            if lease is not None:
                shutil.rmtree(folder, ignore_errors=True)


def _try(ctx: Context, task: Task, subject: Subject, lease: leases.Lease) -> bool:
    """Measure one; return false where it has to wait or is gone, which holds up no other."""
    what, name = task.what, subject.name
    tries = evaluation_tries.begin(ctx, what, subject, lease)
    if tries is None:
        return False
    try:
        if tries > evaluation_tries.MAX_TRIES:
            evaluation_tries.leave(ctx, what, subject, lease, None)
        else:
            with tracing.step("evaluate", subject=subject.name, suite=what.suite):
                _measure(ctx, task, subject, lease, tries)
    except LeaseLost as error:
        log.info("evaluation overtaken", of=name, why=error.message)
    except CandidateNotFound as error:
        # Its round was decided, or is fused again: no fault of anybody's.
        log.info("evaluation overtaken", of=name, why=error.message)
        evaluation_tries.end(ctx, what, subject)
        return False
    except WorkStopped:
        with suppress(ColdFusionError):
            evaluation_tries.give_back(ctx, what, subject, lease, tries)
        raise
    except (StorageUnavailable, DatabaseUnavailable) as error:
        # It waits for them to come back, which is no fault that the model has brought out.
        log.error("evaluation has to wait", of=name, why=error.message)
        wait = evaluation_tries.RETRY_SECONDS
        evaluation_tries.give_back(ctx, what, subject, lease, tries, wait)
        return False
    except ColdFusionError as error:
        reason = _told(task, subject, error.message)
        evaluation_tries.fail(ctx, what, subject, lease, tries, reason)
    except Exception as error:
        log.exception("evaluation broke", of=name)
        reason = _told(task, subject, f"{type(error).__name__}: {error}")
        evaluation_tries.fail(ctx, what, subject, lease, tries, reason)
    return True


def _told(task: Task, subject: Subject, reason: str) -> str:
    """Return `reason` as visitors may read it."""
    text, folder = reason, _folder(task, subject)
    for one in (folder / "model", folder / "base", folder):
        text = text.replace(str(one), "its folder")
    return reasons.readable(text)


def _measure(ctx: Context, task: Task, subject: Subject, lease: leases.Lease, tries: int) -> None:
    def stopped() -> None:
        evaluation_tries.give_back(ctx, task.what, subject, lease, tries)

    found, began = _find(ctx, subject), ctx.seconds()
    log.info("evaluating", suite=task.what.suite, **found.named)

    def check(session: Session) -> None:
        evaluation_tries.check_waited_for(session, subject)

    with Holding(ctx, lease, stopped, check) as holding:
        # Handed in under the lease: who was paused past it must not do so beside another.
        if found.alone is None:
            report = _report(ctx, task, subject, found, holding)
            average = _post(ctx, task, found, report, lease)
        else:
            reports = _reports_of_alone(ctx, task, subject, found.alone, holding)
            average = usefulness.keep(ctx, subject.name, reports, lease)
    _keep_time(ctx, found, ctx.seconds() - began)
    evaluation_tries.end(ctx, task.what, subject)
    log.info("evaluated", average=round(average, 2), **found.named)


def _keep_time(ctx: Context, found: _Found, seconds: float) -> None:
    with ctx.database.write() as session:
        query = select(ModelRow.id).where(ModelRow.name == found.manifest.model)
        keep(session, WorkTimed.EVALUATION, session.scalars(query).one(), "measured", seconds)


def _find(ctx: Context, subject: Subject) -> _Found:
    with ctx.database.read() as session:
        if subject.contribution is not None:
            alone = fuse_inputs.alone(session, usefulness.find(session, subject.contribution))
            return _Found(alone.base, contribution=subject.contribution, alone=alone)
        if subject.candidate is None:
            return _Found(manifest_of(session.get_one(BaseRow, subject.base)))
        row = session.get_one(CandidateRow, subject.candidate)
        manifest = candidates.manifest_of(row)
        model = session.get_one(ModelRow, row.model_id)
        base = find_base(session, model, candidates.compared_with(manifest))
        return _Found(manifest, manifest_of(base), row.id)


def _post(
    ctx: Context, task: Task, found: _Found, report: EvaluationReport, lease: leases.Lease
) -> float:
    name = found.manifest.model
    if found.candidate is None:
        version = found.manifest.version
        kept, _ = evaluations.post_evaluation(ctx, name, version, report, task.who, lease)
    else:
        kept, _ = evaluations.post_of_candidate(ctx, name, found.candidate, report, task.who, lease)
    return kept.average


def _report(
    ctx: Context, task: Task, subject: Subject, found: _Found, holding: Holding
) -> EvaluationReport:
    folder = _folder(task, subject)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        checkout.check_out(ctx, found.manifest.files, folder / "model", holding)
        if found.base is None:
            return task.measure(folder / "model", holding)
        checkout.check_out(ctx, found.base.files, folder / "base", holding)
        return task.measure(folder / "model", holding, folder / "base")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _reports_of_alone(
    ctx: Context, task: Task, subject: Subject, alone: Input, holding: Holding
) -> tuple[EvaluationReport, EvaluationReport]:
    """Measure the contribution's base, which mostly was measured before, then both together."""
    folder = _folder(task, subject)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        checkout.check_out(ctx, alone.base.files, folder / "base", holding)
        before = task.measure(folder / "base", holding)
        fuse_into(ctx, alone, folder, holding)
        return before, task.measure(folder / "model", holding, folder / "base")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _folder(task: Task, subject: Subject) -> Path:
    """Return a folder named by the lease: nobody else is at it, and who is at it can be told."""
    return task.folder / task.what.key(subject).replace(":", ".")


def _key(folder: Path) -> str:
    return folder.name.replace(".", ":")
