"""``status``: how a model, a contribution, or everything of mine stands."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from coldfusion_client.cli.completion import complete_model
from coldfusion_client.cli.options import AsJson, Quiet, Server
from coldfusion_client.cli.receipt import receipt_lines
from coldfusion_client.cli.session import Session, session
from coldfusion_client.cli.text import ago, clean, size

if TYPE_CHECKING:
    from coldfusion_shared.schemas.contributions import Contribution
    from coldfusion_shared.schemas.rounds import Round
    from coldfusion_shared.schemas.usage import OwnUsage

TITLES = ("contribution", "model", "from", "round", "base", "state", "declared", "reason")


def status(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL_OR_CONTRIBUTION]",
            help="owner/name or an id",
            autocompletion=complete_model,
        ),
    ] = None,
    server: Server = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show a model's round, one contribution, or what you have in all rounds that go on."""
    with session(server, as_json=as_json, quiet=quiet) as at:
        if what is None:
            _mine(at)
        elif "/" in what:
            _model(at, what)
        else:
            _contribution(at, what)


def _mine(at: Session) -> None:
    from coldfusion_client.standing import own_status

    own = own_status(at.api)
    if own.usage is not None and (quota := _quota(own.usage)):
        at.out.say(f"In use: {quota}.")
    me = own.whoami
    at.out.say(f"{me.name} ({me.role}) at {own.server}, contributions to rounds that go on:")
    at.out.table(own.as_json(), TITLES, _rows(own.contributions))


def _quota(usage: OwnUsage) -> str:
    """Say what is in use of what is limited; nothing where nothing is."""
    said = []
    if usage.quota_bytes is not None:
        used = size(usage.kept_bytes + usage.unfinished_bytes)
        said.append(f"{used} of {size(usage.quota_bytes)}")
    if usage.quota_uploads is not None:
        said.append(f"{usage.uploads} of {usage.quota_uploads} unfinished uploads")
    if usage.quota_day is not None:
        said.append(f"{usage.day_contributions} of {usage.quota_day} contributions of a day")
    if usage.quota_day_bytes is not None:
        said.append(f"{size(usage.day_bytes)} of {size(usage.quota_day_bytes)} of a day")
    return ", ".join(said)


def _model(at: Session, name: str) -> None:
    from coldfusion_client.standing import model_status

    found = model_status(at.api, name)
    at.out.say(f"{found.model.name}: newest base {found.model.current}. {_told(found.round)}")
    at.out.table(found.as_json(), TITLES, _rows(found.contributions))


def _told(current: Round | None) -> str:
    if current is None:
        return "It has no round."
    if current.state != "open":
        return _told_under_way(current)
    parts = [
        f"Round {current.number} is open: {current.accepted} accepted, {current.waiting} under "
        "way.",
        *[f"{current.quarantined} in quarantine."] * bool(current.quarantined),
        # An older server does not say it in words.
        current.needs or f"Needs {current.missing} more.",
        *([clean(current.reason)] if current.reason else []),
    ]
    # Past: it has closed, or goes on until it has enough.
    if current.closes_at is not None and current.closes_at > datetime.now(UTC):
        parts.append(f"Closes {ago(current.closes_at)} if it has enough.")
    return " ".join(parts)


def _told_under_way(current: Round) -> str:
    """Say how a round stands that takes nothing any more, and why."""
    gate = current.gate.reason if current.gate is not None else None
    whys = dict.fromkeys(why for why in (current.reason, gate) if why)
    said = [f"Round {current.number} is {current.state}", *map(clean, whys)]
    return " ".join(f"{one.rstrip('.')}." for one in said)


def _contribution(at: Session, identity: str) -> None:
    contribution = at.api.contribution(identity)
    lines = [f"{title}: {cell}" for title, cell in zip(TITLES, _row(contribution), strict=True)]
    lines += receipt_lines(contribution)
    text = "\n".join(clean(line) for line in lines)
    at.out.result(contribution.model_dump(mode="json"), text, contribution.state.value)


def _rows(found: Iterable[Contribution]) -> list[tuple[object, ...]]:
    return [_row(one) for one in found]


def _row(one: Contribution) -> tuple[object, ...]:
    when = ago(one.declared_at)
    return (
        one.id,
        one.model,
        one.contributor,
        one.round,
        one.base,
        _state(one),
        when,
        one.reason or "",
    )


def _state(one: Contribution) -> str:
    """Return its state, and the base that contains it: also after it was taken back."""
    if one.result is None:
        return one.state.value
    if one.state == "withdrawn":
        return f"withdrawn, {one.result} contains it"
    return f"{one.state.value} in {one.result}"
