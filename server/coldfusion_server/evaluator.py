"""The evaluator: measures bases and candidates with one suite, in a process of its own."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import structlog

from coldfusion_server.services import evaluation_tries, suites
from coldfusion_server.services.context import SOFTWARE, Context
from coldfusion_server.services.evaluation_tries import Measurement
from coldfusion_server.services.heartbeat import Heartbeat, Part, WorkStopped
from coldfusion_server.services.measuring import Measure, Task, measure_next, sweep
from coldfusion_server.services.tokens import built_in
from coldfusion_shared.errors import ColdFusionError, ConfigurationError, MissingExtra
from coldfusion_shared.schemas.evaluations import (
    OWN_EVALUATOR,
    EvaluationReport,
    ProtocolName,
    Suite,
)
from coldfusion_shared.schemas.tokens import Role

if TYPE_CHECKING:
    from coldfusion_shared.evaluate.suite import LoadedSuite

log = structlog.get_logger(__name__)

# In the data folder: features and results that are kept, and bases while they are measured.
FOLDER = "evaluations"
NEEDED = ("torch", "transformers", "sklearn", "yaml")


def check_startable(suite: Path) -> None:
    """
    Check quickly, without reading data, that an evaluator can begin.

    Raises:
        BadSuite: there is no such file, or it is no suite.
        MissingExtra: what trains and scores is not installed.
    """
    for module in NEEDED:
        if find_spec(module) is None:
            raise MissingExtra.of("train", module)
    from coldfusion_shared.evaluate.suite_file import read_suite_file

    read_suite_file(suite)


def prepare(
    ctx: Context,
    suite: Suite,
    protocol: ProtocolName,
    seeds: int,
    measure: Callable[[Path], Measure],
) -> Task:
    """
    Register the suite and return what to do with bases and candidates.

    Args:
        ctx: the service's surroundings.
        suite: with all its digests.
        protocol: how to measure.
        seeds: with how many seeds; what has fewer is measured again.
        measure: makes what measures, from the folder that features and results are kept in.

    Raises:
        SuiteChanged: the suite's name stands for another one here.
        ConfigurationError: the data folder cannot be written.
    """
    folder = ctx.settings.data_dir.absolute() / FOLDER
    try:
        for part in ("kept", "bases"):
            (folder / part).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"The folder {str(folder)!r} cannot be used: {error.strerror}.",
            hint="Choose another data folder with --data-dir.",
        ) from None
    who = built_in(ctx, OWN_EVALUATOR, Role.EVALUATOR)
    suites.register(ctx, suite.name, suite, who)
    what = Measurement(suite.name, suite.digest(), protocol, seeds, who.contributor_id)
    return Task(what, measure(folder / "kept"), folder / "bases", who)


def measuring(
    loaded: LoadedSuite, protocol: ProtocolName, seeds: Sequence[int]
) -> Callable[[Path], Measure]:
    """Return what `prepare` takes: the shared runner, with this suite and these seeds."""
    from coldfusion_shared.evaluate.comparison import compare
    from coldfusion_shared.evaluate.results import Evaluated
    from coldfusion_shared.evaluate.runner import evaluate_base
    from coldfusion_shared.evaluate.software import software

    def keeping(kept: Path) -> Measure:
        def evaluated(folder: Path, moved: Callable[[], None]) -> Evaluated:
            def progress(done: float, total: int, now: str) -> None:
                moved()

            return evaluate_base(
                folder, loaded, protocol, seeds, kept, progress, lambda note: log.info(note)
            )

        def measure(
            folder: Path, moved: Callable[[], None], base: Path | None = None
        ) -> EvaluationReport:
            found, by = evaluated(folder, moved), software(SOFTWARE)
            if base is None:
                return found.report(by)
            # What was measured of the base before is kept, so this takes a moment.
            before = evaluated(base, moved)
            return found.report(by, compare(before, found).negative_flips)

        return measure

    return keeping


def run_evaluator(ctx: Context, stop: Event, task: Task) -> None:
    """
    Work until `stop` is set. Any number of evaluators may run; leases keep them apart.

    What is in hand then is left, and its lease given back; what was measured of it is kept.
    """
    holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    with Heartbeat(ctx.settings, Part.EVALUATOR, stop, ctx.beats) as pulse, suppress(WorkStopped):
        ctx = replace(ctx, pulse=pulse)
        while not stop.is_set():
            if not evaluate_once(ctx, task, holder):
                stop.wait(ctx.settings.worker_seconds)


def evaluate_once(ctx: Context, task: Task, holder: str) -> bool:
    """Measure one base or candidate; return whether there was any."""
    try:
        measured = measure_next(ctx, task, holder)
        if not measured:
            sweep(ctx, task, holder)
        # Not after an error: an evaluator whose database stays away must not look well.
        ctx.pulse()
        return measured
    except ColdFusionError as error:
        # The database is away for a while; a pause keeps the log short.
        log.error("evaluator", error=error.message)
    except Exception:
        # A fault of ours with one model must not end the process that measures all others.
        log.exception("evaluator")
    return False


def try_again(ctx: Context, task: Task) -> None:
    """Let what was left after failures be tried again."""
    evaluation_tries.forget(ctx, task.what)
