"""`coldfusion-server model`: make models, look at them."""

from __future__ import annotations

from typing import Annotated

import typer

from coldfusion_server.cli.options import DatabaseUrl, DataDir, Json, opened, parse_duration
from coldfusion_server.cli.output import show, table

app = typer.Typer(no_args_is_help=True, help="Make models and look at them.")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="owner/name")],
    source: Annotated[
        str, typer.Option("--from", help="A transformers folder, or a model id of the hub.")
    ],
    min_contributions: Annotated[
        int | None, typer.Option(help="A round never closes by itself with fewer.")
    ] = None,
    max_contributions: Annotated[
        int | None, typer.Option(help="A round closes at once when it has this many.")
    ] = None,
    deadline: Annotated[
        str | None, typer.Option(help="A round with its minimum closes after this: 24h, 30m.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="Fusion method.")] = None,
    public: Annotated[
        bool, typer.Option("--public/--private", help="Whether bases can be read without a token.")
    ] = False,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Make a model whose v0 is a pretrained model, and open its first round."""
    from coldfusion_server.cli.pretrained import fetched
    from coldfusion_server.services.models import create_model, make_policy

    limit = parse_duration(deadline)
    policy = make_policy(
        {
            "min_contributions": min_contributions,
            "max_contributions": max_contributions,
            "deadline_seconds": None if limit is None else int(limit.total_seconds()),
            "method": method,
        }
    )
    with opened(data_dir, database_url) as context, fetched(source) as (folder, origin):
        model = create_model(context, name, folder, origin, policy, public=public)
    show(
        model.model_dump(mode="json"),
        as_json,
        f"{model.name} {model.current} is published and round {model.open_round} is open.\n"
        f"Contribute with: coldfusion-client contribute {model.name} --data FILE",
    )


@app.command("list")
def list_models(
    data_dir: DataDir = None, database_url: DatabaseUrl = None, as_json: Json = False
) -> None:
    """List all models."""
    from coldfusion_server.cli.operator import OPERATOR
    from coldfusion_server.services.models import list_models as find
    from coldfusion_server.services.paging import MAX_LIMIT, Window

    with opened(data_dir, database_url) as context:
        models = find(context, OPERATOR, Window(limit=MAX_LIMIT)).items
    rows = [
        (m.name, m.current, m.open_round or "-", m.accepted, "public" if m.public else "private")
        for m in models
    ]
    head = ("MODEL", "BASE", "ROUND", "ACCEPTED", "READ")
    text = table(head, rows) if rows else "There is no model yet; see: model create --help"
    show([model.model_dump(mode="json") for model in models], as_json, text)


@app.command("show")
def show_model(
    name: Annotated[str, typer.Argument(help="owner/name")],
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Show one model: newest base, policy, open round."""
    from coldfusion_server.cli.operator import OPERATOR
    from coldfusion_server.services.models import get_model

    with opened(data_dir, database_url) as context:
        model = get_model(context, name, OPERATOR)
    data = model.model_dump(mode="json")
    rows = [(key, value) for key, value in data.items() if key != "policy"]
    rows += [(f"policy.{key}", value) for key, value in data["policy"].items()]
    show(data, as_json, table(("FIELD", "VALUE"), rows))
