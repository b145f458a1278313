"""The Repository's own evaluator: measures the bases that nobody has measured yet."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from coldfusion_server.db.tables import BaseRow
from coldfusion_server.services import checkout, evaluation_tries, evaluations, leases
from coldfusion_server.services.context import Context
from coldfusion_server.services.evaluation_tries import Measurement
from coldfusion_server.services.heartbeat import WorkStopped
from coldfusion_server.services.holding import Holding
from coldfusion_server.services.lookup import manifest_of
from coldfusion_server.services.tokens import Principal
from coldfusion_shared.errors import (
    ColdFusionError,
    DatabaseUnavailable,
    LeaseLost,
    StorageUnavailable,
)
from coldfusion_shared.schemas.bases import Manifest
from coldfusion_shared.schemas.evaluations import EvaluationReport

log = structlog.get_logger(__name__)

# Measures the model in a folder, and calls back all the time, which may end it.
Measure = Callable[[Path, Callable[[], None]], EvaluationReport]


@dataclass(frozen=True)
class Task:
    """
    What an evaluator does.

    Attributes:
        what: is measured of every base.
        measure: does it.
        folder: bases are brought into folders in it, for as long as they are measured.
        who: hands in the scores.
    """

    what: Measurement
    measure: Measure
    folder: Path
    who: Principal


def measure_next(ctx: Context, task: Task, holder: str) -> bool:
    """Measure one base that waits for it; return whether there was one."""
    for base in evaluation_tries.waiting(ctx, task.what):
        with leases.held(ctx, task.what.key(base), holder) as lease:
            if lease is not None and _try(ctx, task, base, lease):
                return True
    return False


def sweep(ctx: Context, task: Task, holder: str) -> None:
    """Remove the folders that killed evaluators have left behind."""
    for folder in task.folder.glob("evaluation.*"):
        with leases.held(ctx, _key(folder), holder) as lease:
            if lease is not None:
                shutil.rmtree(folder, ignore_errors=True)


def _try(ctx: Context, task: Task, base: int, lease: leases.Lease) -> bool:
    """Measure one base; return false where it has to wait, which holds up no other."""
    what = task.what
    tries = evaluation_tries.begin(ctx, what, base, lease)
    if tries is None:
        return False
    try:
        if tries > evaluation_tries.MAX_TRIES:
            evaluation_tries.leave(ctx, what, base, lease, evaluation_tries.DIED)
        else:
            _measure(ctx, task, base, lease)
    except LeaseLost as error:
        log.info("evaluation overtaken", base=base, why=error.message)
    except WorkStopped:
        with suppress(ColdFusionError):
            evaluation_tries.put_off(ctx, what, base, lease, tries - 1, 0)
        raise
    except (StorageUnavailable, DatabaseUnavailable) as error:
        # It waits for them to come back, which is no fault that the base has brought out.
        log.error("evaluation has to wait", base=base, why=error.message)
        wait = evaluation_tries.RETRY_SECONDS
        evaluation_tries.put_off(ctx, what, base, lease, tries - 1, wait)
        return False
    except ColdFusionError as error:
        evaluation_tries.fail(ctx, what, base, lease, tries, error.message)
    except Exception as error:
        log.exception("evaluation broke", base=base)
        reason = f"{type(error).__name__}: {error}"
        evaluation_tries.fail(ctx, what, base, lease, tries, reason)
    return True


def _measure(ctx: Context, task: Task, base: int, lease: leases.Lease) -> None:
    with ctx.database.read() as session:
        manifest = manifest_of(session.get_one(BaseRow, base))
    name, version = manifest.model, manifest.version
    log.info("evaluating", model=name, version=version, suite=task.what.suite)
    with Holding(ctx, lease) as holding:
        report = _report(ctx, task, base, manifest, holding)
        # Handed in under the lease: who was paused past it must not do so beside another.
        kept, _ = evaluations.post_evaluation(ctx, name, version, report, task.who, lease)
    evaluation_tries.end(ctx, task.what, base)
    log.info("evaluated", model=name, version=version, average=round(kept.average, 2))


def _report(
    ctx: Context, task: Task, base: int, manifest: Manifest, holding: Holding
) -> EvaluationReport:
    folder = _folder(task, base)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        checkout.check_out(ctx, manifest.files, folder, holding)
        return task.measure(folder, holding)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _folder(task: Task, base: int) -> Path:
    """Return a folder named by the lease: nobody else is at it, and who is at it can be told."""
    return task.folder / task.what.key(base).replace(":", ".")


def _key(folder: Path) -> str:
    return folder.name.replace(".", ":")
