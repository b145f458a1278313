"""``status``: how a model, a contribution, or everything of mine stands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coldfusion_client.cli.options import AsJson, Quiet, Server
from coldfusion_client.cli.session import Session, session
from coldfusion_client.cli.text import ago, clean, size
from coldfusion_shared.errors import NotFound

if TYPE_CHECKING:
    from coldfusion_shared.schemas.contributions import Contribution
    from coldfusion_shared.schemas.rounds import Round
    from coldfusion_shared.schemas.usage import OwnUsage

TITLES = ("contribution", "model", "from", "round", "base", "state", "declared", "reason")


def status(
    what: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL_OR_CONTRIBUTION]", help="owner/name or an id"),
    ] = None,
    server: Server = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show a model's open round, one contribution, or your contributions to all open rounds."""
    with session(server, as_json=as_json, quiet=quiet) as at:
        if what is None:
            _mine(at)
        elif "/" in what:
            _model(at, what)
        else:
            _contribution(at, what)


def _mine(at: Session) -> None:
    me = at.api.whoami()
    open_models = [model for model in at.api.models() if model.open_round is not None]
    found = [
        contribution
        for model in open_models
        for contribution in at.api.contributions(
            model.name, contributor="me", round=model.open_round or 0
        )
    ]
    usage = _own_usage(at)
    if usage is not None and (quota := _quota(usage)):
        at.out.say(f"In use: {quota}.")
    at.out.say(f"{me.name} ({me.role}) at {at.api.server}, contributions to open rounds:")
    data = {
        "server": at.api.server,
        "whoami": me.model_dump(mode="json"),
        "usage": None if usage is None else usage.model_dump(mode="json"),
        **_dumped(found),
    }
    at.out.table(data, TITLES, _rows(found))


def _own_usage(at: Session) -> OwnUsage | None:
    try:
        return at.api.own_usage()
    except NotFound:
        return None  # An older server, which has no quotas.


def _quota(usage: OwnUsage) -> str:
    """Say what is in use of what is limited; nothing where nothing is."""
    said = []
    if usage.quota_bytes is not None:
        used = size(usage.kept_bytes + usage.unfinished_bytes)
        said.append(f"{used} of {size(usage.quota_bytes)}")
    if usage.quota_uploads is not None:
        said.append(f"{usage.uploads} of {usage.quota_uploads} unfinished uploads")
    return ", ".join(said)


def _model(at: Session, name: str) -> None:
    from coldfusion_client.bases import model_name

    model = at.api.model(model_name(name))
    number = model.open_round
    current = None if number is None else at.api.round(name, number)
    found = [] if number is None else list(at.api.contributions(name, round=number))
    at.out.say(f"{model.name}: newest base {model.current}. {_told(current)}")
    data = {
        "model": model.model_dump(mode="json"),
        "round": current.model_dump(mode="json") if current else None,
        **_dumped(found),
    }
    at.out.table(data, TITLES, _rows(found))


def _told(current: Round | None) -> str:
    if current is None:
        return "No round is open at this moment."
    closing = f", closes {ago(current.closes_at)} if it has enough" if current.closes_at else ""
    return (
        f"Round {current.number} is open: {current.accepted} accepted, {current.waiting} under "
        f"way, {current.missing} missing{closing}."
    )


def _contribution(at: Session, identity: str) -> None:
    contribution = at.api.contribution(identity)
    lines = [f"{title}: {cell}" for title, cell in zip(TITLES, _row(contribution), strict=True)]
    lines += [f"{finding.check}: {finding.message}" for finding in contribution.findings]
    lines += [contribution.hint] if contribution.hint else []
    text = "\n".join(clean(line) for line in lines)
    at.out.result(contribution.model_dump(mode="json"), text, contribution.state.value)


def _dumped(found: Iterable[Contribution]) -> dict[str, Any]:
    return {"contributions": [one.model_dump(mode="json") for one in found]}


def _rows(found: Iterable[Contribution]) -> list[tuple[object, ...]]:
    return [_row(one) for one in found]


def _row(one: Contribution) -> tuple[object, ...]:
    when = ago(one.declared_at)
    result = one.state.value + (f" in {one.result}" if one.result else "")
    return (
        one.id,
        one.model,
        one.contributor,
        one.round,
        one.base,
        result,
        when,
        one.reason or "",
    )
