"""``evaluate``: what bases, candidates and models of this machine reach on a suite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coldfusion_client.cli.completion import complete_model
from coldfusion_client.cli.errors import exit_code
from coldfusion_client.cli.options import AsJson, Progress, Quiet, Server
from coldfusion_client.cli.output import Output
from coldfusion_client.cli.session import reported, session
from coldfusion_client.cli.text import clean
from coldfusion_shared.errors import ColdFusionError

if TYPE_CHECKING:
    from coldfusion_client.evaluation.order import Order, Place
    from coldfusion_client.evaluation.outcome import Outcome


def evaluate(
    ctx: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL_OR_FOLDER",
            help="owner/name, or the folder of a model on this machine; ./NAME is a folder always",
            autocompletion=complete_model,
        ),
    ],
    suite: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="The data sets, limits and metrics: a suite file, in YAML."
        ),
    ],
    version: Annotated[
        str | None,
        typer.Option(
            metavar="latest|v3", help="Which base; by default the newest.", show_default=False
        ),
    ] = None,
    candidate: Annotated[
        str | None,
        typer.Option(
            metavar="ID|waiting",
            help="Measure a fused base before its publication, beside the base that it was fused "
            "onto; waiting: all that wait for their gate, or in a replay, now. For tokens of the "
            "role evaluator.",
            show_default=False,
        ),
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="frozen: a linear reader of the body's features; finetuned: the whole model "
            "learns each data set; few-shot: it learns a few examples of each.",
        ),
    ] = "frozen",
    seeds: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="How often each data set is measured, every time with training examples drawn "
            "anew. One seed tells nothing of chance.",
        ),
    ] = 3,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="V3 V7",
            help="Say whether the second is better than the first, worse, or no different at the "
            "measured noise. Each is a version, a folder, or a scores.json of --out.",
            show_default=False,
        ),
    ] = None,
    pin: Annotated[
        bool,
        typer.Option(
            "--pin",
            help="First write the data's digests into the suite file: from then on other data are "
            "refused.",
        ),
    ] = False,
    post: Annotated[
        bool,
        typer.Option(
            "--post", help="Post the scores to the server; for tokens of the role evaluator."
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Also write table.md, scores.json and, as gain.svg and gain.png, a chart of the "
            "gains. A single base is compared with v0 then, which is measured, too.",
            show_default=False,
        ),
    ] = None,
    progress: Progress = True,
    server: Server = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """
    Measure a base on the data sets of a suite: scores with standard errors.

    A candidate, which waits for its gate, is measured beside its base: what the base has right and
    the candidate has wrong is told as negative flips. A replay's is measured beside the base that
    it stands in for. With --post both are posted.

    All data stay on this machine. A command that was interrupted goes on where it stopped when it
    is given again, and what was measured before is not measured again.
    """
    if compare is not None and version is not None:
        raise typer.BadParameter("--compare names the versions itself", param_hint="--version")
    if candidate is not None and (compare is not None or version is not None):
        raise typer.BadParameter(
            "a candidate is compared with its own base", param_hint="--candidate"
        )
    from coldfusion_client.subjects import is_local, notes, of_candidate, of_folder, of_model

    pair = compare or ()
    # Not one of the environment, which is there for all commands.
    source = ctx.get_parameter_source("server")
    chosen = source is not None and source.name == "COMMANDLINE"
    remote = version is not None or candidate is not None or post
    local = not remote and is_local(model, pair, at_server=chosen)
    manner = {"as_json": as_json, "quiet": quiet, "progress": progress}
    with _opened(server, manner, local=local) as (place, at):
        from coldfusion_client.evaluation.order import Order

        for note in notes(model, pair, local=local) if candidate is None else ():
            at.warn(note)
        if candidate is not None:
            subjects = of_candidate(model, candidate)
        else:
            subjects = of_folder(model, pair) if local else of_model(model, version, pair)
        run = _run if candidate is None else _run_candidates
        gain = out is not None
        run(Order(subjects, suite, protocol, seeds, gain, pin, post), place, at, out)


@contextmanager
def _opened(
    server: str | None, manner: dict[str, bool], *, local: bool
) -> Iterator[tuple[Place, Output]]:
    """Open the server that is meant, if any is; inside, errors become exit codes."""
    if not local:
        with session(server, **manner) as at:
            from coldfusion_client.evaluation.order import Place

            yield Place(at.source.cache, at.out, at.api), at.out
        return
    out = Output(**manner)
    with reported(out):
        from coldfusion_client.cache import default_cache
        from coldfusion_client.evaluation.order import Place

        yield Place(default_cache(), out), out


def _run(order: Order, place: Place, at: Output, out: Path | None) -> None:
    from coldfusion_client.cli import scores
    from coldfusion_client.evaluating import evaluate as measure
    from coldfusion_client.evaluation_files import prepare

    if out is not None:
        prepare(out)
    outcome = measure(order, place)
    document, essence = _written(outcome, at, out), scores.essence(outcome)
    with _nothing_lost(at, place, lambda: (document, essence)):
        if order.post:
            _post(outcome, place, document)
    at.result(document, clean(scores.told(outcome)), essence)


def _run_candidates(order: Order, place: Place, at: Output, out: Path | None) -> None:
    """Each into a folder of its own: there may be one for each rate of a line search."""
    from coldfusion_client.cli import scores
    from coldfusion_client.evaluating import evaluate_candidates
    from coldfusion_client.evaluation_files import prepare

    if out is not None:
        prepare(out)
    documents: list[dict[str, Any]] = []
    told: list[str] = []
    essences: list[str] = []

    def found() -> tuple[dict[str, Any], str]:
        return {"candidates": documents}, "\n".join(essences)

    with _nothing_lost(at, place, found):
        for outcome in evaluate_candidates(order, place):
            candidate = outcome.newest.candidate
            assert candidate is not None and outcome.comparison is not None, "its base is beside it"
            folder = None if out is None else out / candidate.id
            if folder is not None:
                prepare(folder)
            documents.append(_written(outcome, at, folder))
            told.append(scores.told(outcome))
            essences.append(f"{candidate.id} {outcome.comparison.verdict}")
            if order.post:
                _post(outcome, place, documents[-1])
    document, essence = found()
    at.result(document, clean(" ".join(told)), essence)


def _written(outcome: Outcome, at: Output, out: Path | None) -> dict[str, Any]:
    """Write and show what came of it, and return it as JSON has it."""
    from coldfusion_client.cli import scores
    from coldfusion_client.evaluation_files import write_files

    files = [] if out is None else write_files(out, outcome)
    if not (at.as_json or at.quiet):
        # Before they are posted, which may fail.
        at.table(None, *scores.table(outcome))
    return {**outcome.document(), "posted": [], "files": [str(file) for file in files]}


def _post(outcome: Outcome, place: Place, document: dict[str, Any]) -> None:
    """Hand in the scores, and note in `document` of which."""
    from coldfusion_client.evaluation.posting import posting

    for one in posting(outcome, place):
        document["posted"].append(one.version or one.candidate)


@contextmanager
def _nothing_lost(
    at: Output, place: Place, found: Callable[[], tuple[dict[str, Any], str]]
) -> Iterator[None]:
    """
    Write what was measured, and say where it is kept, also if what follows it fails.

    `found` returns it, for programs and for scripts; an empty word for those means that there is
    nothing yet.
    """
    try:
        yield
    except ColdFusionError as error:
        document, essence = found()
        if not essence:
            raise
        status = exit_code(error.code)
        if at.as_json:
            fields = {"code": error.code, "message": error.message, "hint": error.hint}
            told = {**fields, "tensors": list(error.tensors), "exit_code": status}
            at.result({**document, "error": told}, "")
        elif at.quiet:
            at.result(document, "", essence)
        Output(quiet=at.quiet).error(error, status)
        at.alert(
            f"What was measured is kept in {place.kept}. To post it, give the same command again: "
            "nothing is measured twice."
        )
        raise typer.Exit(status) from error
