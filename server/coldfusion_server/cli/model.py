"""`coldfusion-server model`: make models, look at them."""

from __future__ import annotations

from typing import Annotated

import typer

from coldfusion_server.cli.options import DatabaseUrl, DataDir, Json, opened
from coldfusion_server.cli.output import fields, show, table
from coldfusion_server.cli.policy_options import Changes, changed, with_policy

app = typer.Typer(no_args_is_help=True, help="Make models and look at them.")


@app.command()
@with_policy
def create(
    name: Annotated[str, typer.Argument(help="owner/name")],
    source: Annotated[
        str, typer.Option("--from", help="A transformers folder, or a model id of the hub.")
    ],
    *,
    changes: Changes,
    public: Annotated[
        bool, typer.Option("--public/--private", help="Whether bases can be read without a token.")
    ] = False,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """
    Make a model whose v0 is a pretrained model, and open its first round.

    Strangers may contribute to a public one: unless another --method is given, it is fused by
    norm_clipped_mean, in which no contribution is longer than the median.
    """
    from coldfusion_server.cli.pretrained import fetched
    from coldfusion_server.services.models import PUBLIC_METHOD, create_model, make_policy

    values = changed({}, changes)
    if public:
        values.setdefault("method", PUBLIC_METHOD)
    policy = make_policy(values)
    with opened(data_dir, database_url) as context, fetched(source) as (folder, origin):
        model = create_model(context, name, folder, origin, policy, public=public)
    show(
        model.model_dump(mode="json"),
        as_json,
        f"{model.name} {model.current} is published and round {model.open_round} is open.\n"
        f"Contribute with: coldfusion-client contribute {model.name} --data FILE",
    )


@app.command()
@with_policy
def policy(
    name: Annotated[str, typer.Argument(help="owner/name")],
    *,
    changes: Changes,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """
    Change how a model's rounds close, fuse and are published, from its open round on.

    What is not given stays as it is; another method, optimizer or gate starts with its own
    defaults. What garbage collection has erased by then does not come back.
    """
    from coldfusion_server.cli.operator import OPERATOR
    from coldfusion_server.services.models import change_policy, make_policy
    from coldfusion_shared.schemas.models import Policy

    def merged(before: Policy) -> Policy:
        return make_policy(changed(before.model_dump(), changes))

    with opened(data_dir, database_url) as context:
        model = change_policy(context, name, merged, OPERATOR)
    rows = fields(model.policy.model_dump(mode="json"))
    show(model.model_dump(mode="json"), as_json, table(("POLICY", "VALUE"), rows))


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
    show(data, as_json, table(("FIELD", "VALUE"), fields(data)))
