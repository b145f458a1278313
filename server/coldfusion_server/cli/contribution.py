"""`coldfusion-server contribution`: list contributions, decide on those in quarantine, remove."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coldfusion_server.cli.options import DatabaseUrl, DataDir, Json, opened
from coldfusion_server.cli.output import show, table
from coldfusion_shared.contributions import ContributionState

if TYPE_CHECKING:
    from coldfusion_server.services.context import Context
    from coldfusion_server.services.tokens import Principal
    from coldfusion_shared.schemas.contributions import Contribution, Decided, Decision

app = typer.Typer(no_args_is_help=True, help="Decide on contributions.")

Id = Annotated[str, typer.Argument(metavar="CONTRIBUTION", help="Its id.")]
Why = Annotated[str, typer.Option(help="Why; its contributor reads it.")]


@app.command("list")
def list_contributions(
    model: Annotated[str | None, typer.Argument(help="owner/name; default: all models.")] = None,
    state: Annotated[
        ContributionState, typer.Option(help="Only those in this state.")
    ] = ContributionState.QUARANTINED,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """List contributions, newest first; by default those that wait for a decision."""
    with opened(data_dir, database_url) as context:
        found = list(_found(context, model, state))
    head = ("CONTRIBUTION", "MODEL", "FROM", "ROUND", "BASE", "DECLARED", "REASON")
    rows = [
        (c.id, c.model, c.contributor, c.round, c.base, f"{c.declared_at:%Y-%m-%d}", c.reason or "")
        for c in found
    ]
    text = table(head, rows) if rows else f"No contribution is {state.value}."
    show([one.model_dump(mode="json") for one in found], as_json, text)


def _found(context: Context, model: str | None, state: ContributionState) -> Iterator[Contribution]:
    from coldfusion_server.cli.operator import OPERATOR
    from coldfusion_server.services import contributions, models
    from coldfusion_server.services.paging import every

    def pages(name: str) -> Iterator[Contribution]:
        return every(
            lambda window: contributions.list_contributions(
                context, name, OPERATOR, window, state=state
            )
        )

    if model is not None:
        yield from pages(model)
        return
    for one in every(lambda window: models.list_models(context, OPERATOR, window)):
        yield from pages(one.name)


@app.command()
def release(
    contribution: Id,
    reason: Why,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Let a contribution in quarantine take part in the open round."""
    from coldfusion_server.services import decisions

    _decide(decisions.release, contribution, reason, data_dir, database_url, as_json)


@app.command()
def reject(
    contribution: Id,
    reason: Why,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Reject a contribution in quarantine, for good."""
    from coldfusion_server.services import decisions

    _decide(decisions.reject, contribution, reason, data_dir, database_url, as_json)


def _decide(
    decide: Callable[[Context, str, Decision, Principal], Decided],
    contribution: str,
    reason: str,
    data_dir: Path | None,
    database_url: str | None,
    as_json: bool,
) -> None:
    from coldfusion_server.cli.operator import OPERATOR
    from coldfusion_server.cli.requests import checked
    from coldfusion_shared.schemas.contributions import Decision

    wanted = checked(Decision, reason=reason)
    with opened(data_dir, database_url) as context:
        done = decide(context, contribution, wanted, OPERATOR)
    show(done.model_dump(mode="json"), as_json, done.sentence)


@app.command()
def remove(
    contribution: Id,
    reason: Why,
    erase: Annotated[
        bool, typer.Option("--erase", help="Delete its stored files now, for good.")
    ] = False,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """
    Take a contribution out, whoever sent it.

    What is not fused yet simply goes. Bases that contain it stay as they are; model replay makes
    others without it.
    """
    from coldfusion_server.cli.operator import OPERATOR
    from coldfusion_server.cli.requests import checked
    from coldfusion_server.services.withdrawal import withdraw
    from coldfusion_shared.schemas.contributions import Withdrawal

    wanted = checked(Withdrawal, reason=reason, erase=erase)
    with opened(data_dir, database_url) as context:
        done = withdraw(context, contribution, wanted, OPERATOR)
    show(done.model_dump(mode="json"), as_json, done.sentence)
