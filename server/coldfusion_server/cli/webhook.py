"""`coldfusion-server webhook`: where events are sent to."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coldfusion_server.cli.options import DatabaseUrl, DataDir, Json, opened
from coldfusion_server.cli.output import fields, show, table, tell
from coldfusion_shared.schemas.webhooks import WebhookFormat
from coldfusion_shared.webhooks import DeliveryState

if TYPE_CHECKING:
    from coldfusion_shared.schemas.webhooks import Delivery, Webhook, WebhookSecret

app = typer.Typer(no_args_is_help=True, help="Send events to other programs, and see what came.")

Identity = Annotated[str, typer.Argument(help="The webhook's id; see: webhook list")]
DeliveryIdentity = Annotated[
    str, typer.Argument(help="The delivery's id; see: webhook deliveries WEBHOOK")
]
AUTHORIZATION = "COLDFUSION_WEBHOOK_AUTHORIZATION"
SECRET_GONE = "Signed with this secret, which is shown this once."


@app.command()
def create(
    url: Annotated[
        str,
        typer.Argument(
            help="Where to post to; -: it is read from standard input, since other users see "
            "command lines, and some have a secret in them."
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(help="Whose events. Default: of all public models, and those of none."),
    ] = None,
    event: Annotated[
        list[str] | None,
        typer.Option(
            help="A type, such as base.published, or a kind, such as round.*; may be repeated. "
            "Default: base.published."
        ),
    ] = None,
    format: Annotated[
        WebhookFormat,
        typer.Option(
            help="What is posted: coldfusion: the event; github: a repository_dispatch with it."
        ),
    ] = WebhookFormat.COLDFUSION,
    authorization: Annotated[
        str | None,
        typer.Option(
            envvar=AUTHORIZATION,
            help="Value of an Authorization header to send along. Better by the environment: "
            "other users see command lines.",
        ),
    ] = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Make a webhook. The secret that it signs with is shown this once."""
    from coldfusion_server.cli.operator import OPERATOR
    from coldfusion_server.cli.requests import checked
    from coldfusion_server.services.webhooks import create_webhook
    from coldfusion_shared.schemas.webhooks import WebhookRequest

    url = sys.stdin.readline().strip() if url == "-" else url
    _check(authorization)
    given = {"authorization": authorization or None, **({"events": event} if event else {})}
    wanted = checked(WebhookRequest, model=model, url=url, format=format, **given)
    with opened(data_dir, database_url) as context:
        made = create_webhook(context, wanted, OPERATOR)
    _show_secret(made, as_json, f"Webhook {made.webhook.id}, for {_whose(made.webhook)}")


@app.command("list")
def list_webhooks(
    model: Annotated[str | None, typer.Option(help="Only those of this model.")] = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """List webhooks, the oldest first."""
    from coldfusion_server.cli.operator import OPERATOR
    from coldfusion_server.services.webhooks import list_webhooks as find

    with opened(data_dir, database_url) as context:
        found = find(context, OPERATOR, model)
    head = ("ID", "STATE", "MODEL", "EVENTS", "WAITING", "FAILURES", "URL")
    rows = [
        (
            one.id,
            _state(one),
            one.model or "-",
            ", ".join(one.events),
            one.waiting,
            one.failures,
            one.url or "cannot be read",
        )
        for one in found
    ]
    text = table(head, rows) if rows else "There is no webhook yet; see: webhook create --help"
    show([one.model_dump(mode="json") for one in found], as_json, text)


@app.command("show")
def show_webhook(
    webhook: Identity,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Show one webhook, without its secret."""
    from coldfusion_server.cli.operator import OPERATOR
    from coldfusion_server.services.webhooks import get_webhook

    with opened(data_dir, database_url) as context:
        found = get_webhook(context, webhook, OPERATOR).model_dump(mode="json")
    show(found, as_json, table(("FIELD", "VALUE"), fields(found)))


@app.command()
def delete(
    webhook: Identity,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Delete a webhook, and what was told of its deliveries."""
    from coldfusion_server.cli.operator import OPERATOR
    from coldfusion_server.services.webhooks import delete_webhook

    with opened(data_dir, database_url) as context:
        delete_webhook(context, webhook, OPERATOR)
    show({"deleted": webhook}, as_json, f"The webhook {webhook} is deleted.")


@app.command()
def pause(
    webhook: Identity,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Send a webhook nothing any more; what happens meanwhile is not sent later."""
    _activate(webhook, data_dir, database_url, as_json, active=False)


@app.command()
def resume(
    webhook: Identity,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Send a webhook what was waiting for it, and what happens from now on."""
    _activate(webhook, data_dir, database_url, as_json, active=True)


@app.command()
def rotate(
    webhook: Identity,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Give a webhook a new secret, shown this once. For a day the one before signs, too."""
    from coldfusion_server.cli.operator import OPERATOR
    from coldfusion_server.services.webhooks import rotate_secret

    with opened(data_dir, database_url) as context:
        made = rotate_secret(context, webhook, OPERATOR)
    _show_secret(made, as_json, f"Webhook {made.webhook.id} signs with the one before for a day")


@app.command()
def ping(
    webhook: Identity,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Have `webhook.ping` sent, once, by the scheduler that runs."""
    from coldfusion_server.cli.operator import OPERATOR
    from coldfusion_server.services.deliveries import ping as send

    with opened(data_dir, database_url) as context:
        made = send(context, webhook, OPERATOR)
    _show_asked(made, as_json)


@app.command()
def deliveries(
    webhook: Identity,
    state: Annotated[DeliveryState | None, typer.Option(help="Only those in this state.")] = None,
    count: Annotated[int, typer.Option(help="How many, the newest.", min=1, max=200)] = 50,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """List what was sent to a webhook and what is to be, the newest first."""
    from coldfusion_server.cli.operator import OPERATOR
    from coldfusion_server.services.deliveries import list_deliveries
    from coldfusion_server.services.paging import Window

    with opened(data_dir, database_url) as context:
        found = list_deliveries(context, webhook, OPERATOR, Window(None, count), state).items
    head = ("ID", "STATE", "EVENT", "TRIES", "STATUS", "WHEN", "WHY")
    rows = [
        (
            one.id,
            one.state,
            one.type,
            one.attempts,
            one.status or "-",
            f"{one.tried_at or one.created_at:%Y-%m-%d %H:%M:%S}",
            one.error or "-",
        )
        for one in found
    ]
    text = table(head, rows) if rows else "There are none."
    show([one.model_dump(mode="json") for one in found], as_json, text)


@app.command()
def redeliver(
    webhook: Identity,
    delivery: DeliveryIdentity,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Have something sent once more that was delivered or given up, with the same id."""
    from coldfusion_server.cli.operator import OPERATOR
    from coldfusion_server.services.deliveries import redeliver as send

    with opened(data_dir, database_url) as context:
        made = send(context, webhook, delivery, OPERATOR)
    _show_asked(made, as_json)


def _check(authorization: str | None) -> None:
    """Raise `InvalidRequest` for what can be no header, without saying it again."""
    from coldfusion_shared.errors import InvalidRequest
    from coldfusion_shared.schemas.webhooks import check_header

    try:
        check_header(authorization or "-")
    except ValueError as error:
        raise InvalidRequest(f"--authorization cannot be used: {error}.") from None


def _activate(
    webhook: str, data_dir: Any, database_url: Any, as_json: bool, *, active: bool
) -> None:
    from coldfusion_server.cli.operator import OPERATOR
    from coldfusion_server.services.webhooks import change_webhook
    from coldfusion_shared.schemas.webhooks import WebhookChange

    with opened(data_dir, database_url) as context:
        done = change_webhook(context, webhook, WebhookChange(active=active), OPERATOR)
    show(done.model_dump(mode="json"), as_json, f"The webhook {done.id} is {_state(done)}.")


def _show_secret(made: WebhookSecret, as_json: bool, sentence: str) -> None:
    # The secret alone on standard output, so that a script can take it.
    show(made.model_dump(mode="json"), as_json, made.secret)
    if not as_json:
        tell(f"{sentence}. {SECRET_GONE}")


def _show_asked(made: Delivery, as_json: bool) -> None:
    see = f"coldfusion-server webhook deliveries {made.webhook}"
    text = f"{made.type} is sent as {made.id}; see: {see}"
    show(made.model_dump(mode="json"), as_json, text)


def _whose(webhook: Webhook) -> str:
    return webhook.model or "all public models"


def _state(webhook: Webhook) -> str:
    if webhook.active:
        return "active"
    return "paused" if webhook.paused_at is None else "given up"
