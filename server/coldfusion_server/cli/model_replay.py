"""`coldfusion-server model replay`: history fused again without some contributions."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from coldfusion_server.cli.options import DatabaseUrl, DataDir, Json, opened
from coldfusion_server.cli.output import show, table
from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.replays import ReplayState
from coldfusion_shared.schemas.replays import Replay, ReplayRequest

if TYPE_CHECKING:
    from coldfusion_server.services.context import Context

WAIT_SECONDS = 0.5
_S = ReplayState


def replay(
    model: Annotated[str, typer.Argument(help="owner/name")],
    without: Annotated[
        list[str] | None,
        typer.Option(help="Id of a fused contribution that is to go; repeatable."),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Base that stays and is fused onto first; default: the newest without them.",
        ),
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why, for the history of the head.")] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until a worker has fused all of it again.")
    ] = False,
    shown: Annotated[str | None, typer.Option("--show", help="Show the replay of this id.")] = None,
    publish: Annotated[
        str | None,
        typer.Option(help="Publish the bases of the replay of this id; the last is the new head."),
    ] = None,
    discard: Annotated[str | None, typer.Option(help="Give up the replay of this id.")] = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """
    Fuse a model's history again without some contributions, into a new line of bases for review.

    A running worker does it. Nobody sees the new bases before they are published; the old ones stay
    as they are in any case. Without an option all replays are listed. With --wait the exit code is
    1 where nothing came of it.
    """
    from coldfusion_server.cli.operator import OPERATOR
    from coldfusion_server.cli.requests import base_version, checked
    from coldfusion_server.services import replay_publishing, replays

    _check_one(without, shown, publish, discard)
    _check_asked(without, start, reason, wait=wait)
    with opened(data_dir, database_url) as context:
        if without:
            first = None if start is None else base_version(start)
            wanted = checked(ReplayRequest, without=without, start=first, reason=reason)
            found = replays.ask(context, model, wanted, OPERATOR)
            if wait:
                found = _waited_for(context, found)
        elif publish is not None:
            found = replay_publishing.publish(context, model, publish, OPERATOR)
        elif discard is not None:
            found = replays.discard(context, model, discard, OPERATOR)
        elif shown is not None:
            found = replays.get_replay(context, model, shown, OPERATOR)
        else:
            _list(replays.list_replays(context, model, OPERATOR), as_json)
            return
    show(found.model_dump(mode="json"), as_json, _text(found))
    if wait and found.state not in (_S.READY, _S.PUBLISHED):
        raise typer.Exit(1)


def _check_one(*choices: object) -> None:
    if sum(choice not in (None, []) for choice in choices) > 1:
        raise InvalidRequest(
            "One at a time: --without, --show, --publish and --discard do not go together."
        )


def _check_asked(
    without: list[str] | None, start: str | None, reason: str | None, *, wait: bool
) -> None:
    if not without and (start is not None or reason is not None or wait):
        raise InvalidRequest(
            "--from, --reason and --wait say how something is replayed, and nothing is.",
            hint="Name what is to go: --without ID",
        )


def _waited_for(context: Context, found: Replay) -> Replay:
    """Wait until a worker is through with it, or nothing comes of it."""
    from coldfusion_server.cli.bars import row_bar
    from coldfusion_server.cli.operator import OPERATOR
    from coldfusion_server.services import replays

    typer.echo("A running worker fuses it; Ctrl-C ends the waiting.", err=True)
    with row_bar("replay") as advance:
        while found.state in (_S.QUEUED, _S.RUNNING):
            time.sleep(WAIT_SECONDS)
            found = replays.get_replay(context, found.model, found.id, OPERATOR)
            advance(len(found.steps), found.total)
    return found


def _list(found: list[Replay], as_json: bool) -> None:
    rows = [
        (
            one.id,
            one.state.value,
            f"{one.start}..{one.head}",
            f"{len(one.steps)}/{one.total}",
            ", ".join(one.without),
        )
        for one in found
    ]
    head = ("REPLAY", "STATE", "BASES", "DONE", "WITHOUT")
    text = table(head, rows) if rows else "There is no replay yet; see: model replay --help"
    show([one.model_dump(mode="json") for one in found], as_json, text)


def _text(found: Replay) -> str:
    parts = [_head(found)]
    if found.steps:
        parts.append(_steps(found))
    if found.skipped:
        parts.append(f"Skipped, too little is left of them: {', '.join(found.skipped)}.")
    if found.failure is not None:
        parts.append(f"Why: {found.failure}")
    next_ = _next(found)
    return "\n".join([*parts, next_] if next_ else parts)


def _head(found: Replay) -> str:
    return (
        f"Replay {found.id} of {found.model}, {found.start} to {found.head} without "
        f"{', '.join(found.without)}: {found.state}, {len(found.steps)} of {found.total} fused."
    )


def _steps(found: Replay) -> str:
    rows = [
        (
            step.replaces,
            step.candidate.id,
            step.published or "-",
            len(step.candidate.manifest.contributions),
            "-" if step.candidate.distance is None else f"{step.candidate.distance:.3g}",
            _score(step.old_score),
            _score(step.new_score),
            step.suite or "-",
        )
        for step in found.steps
    ]
    head = ("BASE", "CANDIDATE", "NOW", "INPUTS", "DISTANCE", "OLD", "NEW", "SUITE")
    return table(head, rows)


def _score(score: float | None) -> str:
    return "-" if score is None else f"{score:.2f}"


def _next(found: Replay) -> str:
    command = f"coldfusion-server model replay {found.model}"
    if found.state == _S.READY:
        return (
            f"Publish it with: {command} --publish {found.id}\n"
            f"Or give it up with: {command} --discard {found.id}"
        )
    if found.state in (_S.QUEUED, _S.RUNNING, _S.FAILED):
        return f"See how far it is with: {command} --show {found.id}"
    return ""
