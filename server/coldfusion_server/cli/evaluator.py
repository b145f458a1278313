"""`coldfusion-server evaluator`: a process that only measures bases and candidates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from coldfusion_server.cli.options import DatabaseUrl, DataDir, LogJson, LogLevel

if TYPE_CHECKING:
    from threading import Event

    from coldfusion_server.services.context import Context


def evaluator(
    suite: Annotated[Path, typer.Option(help="A suite file: data sets, limits, settings.")],
    protocol: Annotated[
        Literal["frozen", "finetuned", "few-shot"],
        typer.Option(help="frozen: linear probing, the quickest by far."),
    ] = "frozen",
    seeds: Annotated[int, typer.Option(help="Seeds of each data set.", min=1, max=100)] = 3,
    again: Annotated[
        bool, typer.Option("--again", help="Try bases again that were left after failures.")
    ] = False,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    log_level: LogLevel = None,
    log_json: LogJson = False,
    beside: Annotated[
        bool,
        typer.Option(
            "--beside",
            help="End when standard input closes, and let other processes go first, as beside up.",
        ),
    ] = False,
) -> None:
    """Measure every base with one suite, newest first, until SIGTERM or Ctrl-C.

    What a gate by this suite waits for comes first: candidates, and the bases that they are
    compared with. What the Repository itself has measured with this suite and protocol, and with as
    many seeds, is not measured again; what others have posted stands beside it. Features and
    results are kept in the data folder: who is interrupted goes on where it was. Any number of
    evaluators may run. What cannot be measured is tried four times, then left; the log, the base's
    page and an event say why.
    """
    from coldfusion_server.evaluator import check_startable, measuring, prepare, run_evaluator
    from coldfusion_server.evaluator import try_again as forget
    from coldfusion_server.process import give_way, opened, run_alone
    from coldfusion_server.settings import load_settings

    if beside:
        give_way()
    settings = load_settings(
        data_dir=data_dir,
        database_url=database_url,
        log_level=log_level,
        log_json=log_json or None,
    )
    check_startable(suite)
    from coldfusion_shared.evaluate.suite import read_suite

    loaded = read_suite(suite)
    with opened(settings) as context:
        measure = measuring(loaded, protocol, tuple(range(seeds)))
        task = prepare(context, loaded.suite, protocol, seeds, measure)
        if again:
            forget(context, task)

    def evaluate(context: Context, stop: Event) -> None:
        run_evaluator(context, stop, task)

    run_alone(settings, evaluate)
