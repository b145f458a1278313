"""``evaluate``: what a base, or a model of this machine, reaches on a suite of data sets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coldfusion_client.cli.completion import complete_model
from coldfusion_client.cli.options import AsJson, Progress, Quiet, Server
from coldfusion_client.cli.output import Output
from coldfusion_client.cli.session import reported, session
from coldfusion_client.cli.text import clean

if TYPE_CHECKING:
    from coldfusion_client.evaluating import Order, Place


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL_OR_FOLDER",
            help="owner/name, or the folder of a model on this machine",
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

    All data stay on this machine. A command that was interrupted goes on where it stopped when it
    is given again, and what was measured before is not measured again.
    """
    if compare is not None and version is not None:
        raise typer.BadParameter("--compare names the versions itself", param_hint="--version")
    from coldfusion_client.subjects import is_folder, is_name, of_folder, of_model

    local = (is_folder(model) or not is_name(model)) and version is None and not post
    manner = {"as_json": as_json, "quiet": quiet, "progress": progress}
    with _opened(server, manner, local=local) as (place, at):
        from coldfusion_client.evaluating import Order

        if local and is_name(model):
            at.warn(f"This measures the folder {model}; add --version latest to mean the model.")
        pair = compare or ()
        _run(
            Order(
                of_folder(model, pair) if local else of_model(model, version, pair),
                suite,
                protocol,
                seeds,
                gain=out is not None,
                pin=pin,
                post=post,
            ),
            place,
            at,
            out,
        )


@contextmanager
def _opened(
    server: str | None, manner: dict[str, bool], *, local: bool
) -> Iterator[tuple[Place, Output]]:
    """Open the server that is meant, if any is; inside, errors become exit codes."""
    if not local:
        with session(server, **manner) as at:
            from coldfusion_client.evaluating import Place

            yield Place(at.source.cache, at.out, at.api), at.out
        return
    out = Output(**manner)
    with reported(out):
        from coldfusion_client.cache import default_cache
        from coldfusion_client.evaluating import Place

        yield Place(default_cache(), out), out


def _run(order: Order, place: Place, at: Output, out: Path | None) -> None:
    from coldfusion_client.cli import scores
    from coldfusion_client.evaluating import evaluate as measure
    from coldfusion_client.evaluating import post
    from coldfusion_client.evaluation_files import prepare, write_files

    if out is not None:
        prepare(out)
    outcome = measure(order, place)
    files = [] if out is None else write_files(out, outcome)
    if not (at.as_json or at.quiet):
        # Before they are posted, which may fail.
        at.table(None, *scores.table(outcome))
    posted = post(outcome, place) if order.post else []
    document = {
        **outcome.document(),
        "posted": [one.version for one in posted],
        "files": [str(file) for file in files],
    }
    at.result(document, clean(scores.told(outcome)), scores.essence(outcome))
