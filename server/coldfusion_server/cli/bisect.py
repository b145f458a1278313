"""`coldfusion-server round bisect`: which contributions made a gate reject a round."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from coldfusion_server.cli.options import DatabaseUrl, DataDir, Json, opened
from coldfusion_server.cli.output import show, table, tell

if TYPE_CHECKING:
    from coldfusion_server.services.bisecting import Bisection, Evaluator
    from coldfusion_server.services.context import Context
    from coldfusion_shared.fusion.culprits import Suspicion, Try


def bisect(
    model: Annotated[str, typer.Argument(help="owner/name")],
    number: Annotated[int, typer.Argument(help="A round that its gate has rejected.")],
    method: Annotated[
        Literal["halving", "leave-one-out"],
        typer.Option(help="leave-one-out: each is left out alone first, the likeliest first."),
    ] = "halving",
    evaluate: Annotated[
        Path | None,
        typer.Option(help="The suite's file, where the gate measures; needs the extra train."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Seeds of each data set.", min=1, max=100)] = 3,
    max_tries: Annotated[int, typer.Option(help="Fuse so many parts at most.", min=1)] = 32,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """
    Name the contributions that did harm in a rejected round.

    Parts of what was fused are fused again and judged as by the gate. Nothing is changed; the last
    line is the command that leaves the named ones out and fuses the others again.
    """
    from coldfusion_server.cli.operator import OPERATOR
    from coldfusion_server.services.bisecting import Search
    from coldfusion_server.services.bisecting import bisect as find

    def told(tried: Try, reason: str) -> None:
        outcome = "does harm" if tried.harmful else "does none"
        what = f"Without {', '.join(tried.without)}" if tried.without else "All together"
        tell(f"{what}: {outcome}. {reason}")

    with opened(data_dir, database_url) as context:
        evaluator = None if evaluate is None else _evaluator(context, evaluate, seeds)
        search = Search(method, max_tries, evaluator, told)
        found = find(context, model, str(number), OPERATOR, search)
    show(_data(found), as_json, _text(found))


def _evaluator(context: Context, suite: Path, seeds: int) -> Evaluator:
    from coldfusion_server.evaluator import FOLDER, check_startable, measuring
    from coldfusion_server.services.bisecting import Evaluator

    check_startable(suite)
    from coldfusion_shared.evaluate.suite import read_suite

    loaded = read_suite(suite, tell)
    folder = context.settings.data_dir.absolute() / FOLDER
    measure = measuring(loaded, "frozen", tuple(range(seeds)))(folder / "kept")
    return Evaluator(loaded.suite, measure, folder)


def _data(found: Bisection) -> dict[str, Any]:
    culprits = found.culprits
    return {
        "model": found.model,
        "round": found.round,
        "named": [] if culprits is None else list(culprits.named),
        "suspected": [] if culprits is None else list(culprits.suspected),
        "note": found.note,
        "complete": culprits is None or culprits.complete,
        "tries": [] if culprits is None else [asdict(tried) for tried in culprits.tries],
        "contributions": [
            {**asdict(one), "contributor": found.contributors[one.id]} for one in found.suspicions
        ],
        "command": _command(found),
    }


def _command(found: Bisection) -> str:
    from coldfusion_server.services.bisecting import named

    without = "".join(f" --without {one}" for one in named(found))
    return f"coldfusion-server round again {found.model} {found.round}{without} --close"


def _text(found: Bisection) -> str:
    head = ("CONTRIBUTION", "FROM", "VERDICT", "NORM", "COSINE", "CHANGE")
    lines = [table(head, [_row(found, one) for one in found.suspicions])]
    if found.note is not None:
        lines.append(found.note)
    if found.culprits is not None and not found.culprits.complete:
        lines.append("All tries are used up; with more (--max-tries) fewer might be named.")
    whom = "them all" if found.culprits is None else "the others"
    return "\n".join([*lines, f"Fuse {whom} again with:", f"  {_command(found)}"])


def _row(found: Bisection, one: Suspicion) -> tuple[object, ...]:
    return (
        one.id,
        found.contributors[one.id],
        _verdict(found, one.id),
        f"{one.norm_ratio:.2f} x median",
        f"{one.cosine:+.2f}",
        f"{one.change:.3g}",
    )


def _verdict(found: Bisection, identity: str) -> str:
    culprits = found.culprits
    if culprits is not None and identity in culprits.named:
        return "did harm"
    if culprits is not None and identity in culprits.suspected:
        return "may have"
    return "-"
