"""`coldfusion-server model`: make models, look at them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from coldfusion_server.cli.options import (
    DatabaseUrl,
    DataDir,
    Json,
    number_or_word,
    opened,
    pairs,
    parse_duration,
)
from coldfusion_server.cli.output import show, table

app = typer.Typer(no_args_is_help=True, help="Make models and look at them.")


MinContributions = Annotated[
    int | None, typer.Option(help="A round never closes by itself with fewer.")
]
MaxContributions = Annotated[
    int | None, typer.Option(help="A round closes at once when it has this many.")
]
Deadline = Annotated[
    str | None, typer.Option(help="A round with its minimum closes after this: 24h, 30m.")
]
Method = Annotated[str | None, typer.Option(help="Fusion method; see: coldfusion-server methods.")]
Param = Annotated[
    list[str] | None, typer.Option(help="Parameter of the method, NAME=VALUE; repeatable.")
]
ServerLr = Annotated[
    str | None,
    typer.Option(help="Factor of the fused update: a number, auto or default."),
]
Optimizer = Annotated[
    str | None, typer.Option(help="Server optimizer; see: coldfusion-server methods.")
]
OptimizerParam = Annotated[
    list[str] | None, typer.Option(help="Parameter of the optimizer, NAME=VALUE; repeatable.")
]
KeepContributions = Annotated[
    str | None,
    typer.Option(
        help="Rounds, the newest, whose contributions' files are kept, 0: none; or forever."
    ),
]
Encodings = Annotated[
    list[str] | None,
    typer.Option(
        "--encoding",
        help="A form in which updates are taken, such as full, delta-int8 or lora; repeatable. "
        "any: all that there are.",
    ),
]
Pull = Annotated[
    float | None, typer.Option(help="Share of the way back to the pretrained model, 0 to 1.")
]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="owner/name")],
    source: Annotated[
        str, typer.Option("--from", help="A transformers folder, or a model id of the hub.")
    ],
    min_contributions: MinContributions = None,
    max_contributions: MaxContributions = None,
    deadline: Deadline = None,
    method: Method = None,
    param: Param = None,
    server_lr: ServerLr = None,
    optimizer: Optimizer = None,
    optimizer_param: OptimizerParam = None,
    pull: Pull = None,
    keep_contributions: KeepContributions = None,
    encoding: Encodings = None,
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

    server_lr = None if server_lr == "default" else server_lr
    recipe = _recipe(method, param, server_lr, optimizer, optimizer_param, pull)
    closing = _closing(min_contributions, max_contributions, deadline)
    policy = make_policy({**closing, **recipe, **_keeping(keep_contributions), **_taking(encoding)})
    with opened(data_dir, database_url) as context, fetched(source) as (folder, origin):
        model = create_model(context, name, folder, origin, policy, public=public)
    show(
        model.model_dump(mode="json"),
        as_json,
        f"{model.name} {model.current} is published and round {model.open_round} is open.\n"
        f"Contribute with: coldfusion-client contribute {model.name} --data FILE",
    )


@app.command()
def policy(
    name: Annotated[str, typer.Argument(help="owner/name")],
    min_contributions: MinContributions = None,
    max_contributions: MaxContributions = None,
    deadline: Deadline = None,
    method: Method = None,
    param: Param = None,
    server_lr: ServerLr = None,
    optimizer: Optimizer = None,
    optimizer_param: OptimizerParam = None,
    pull: Pull = None,
    keep_contributions: KeepContributions = None,
    encoding: Encodings = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """
    Change how a model's rounds close and fuse, from its open round on, and what is kept.

    What is not given stays as it is; another method or optimizer starts with its own defaults.
    What garbage collection has erased by then does not come back.
    """
    from coldfusion_server.cli.operator import OPERATOR
    from coldfusion_server.services.models import get_model, make_policy, set_policy

    recipe = _recipe(method, param, server_lr, optimizer, optimizer_param, pull)
    changes = {**_closing(min_contributions, max_contributions, deadline), **recipe}
    kept = {**_keeping(keep_contributions), **_taking(encoding)}
    with opened(data_dir, database_url) as context:
        before = get_model(context, name, OPERATOR).policy.model_dump()
        for chosen, parameters in RECIPE_PAIRS:
            if changes[chosen] not in (None, before[chosen]):
                before[parameters] = {}
        given = {key: value for key, value in changes.items() if value is not None}
        if given.get("server_lr") == "default":
            given["server_lr"] = before["server_lr"] = None
        model = set_policy(context, name, make_policy({**before, **given, **kept}), OPERATOR)
    rows = list(model.policy.model_dump(mode="json").items())
    show(model.model_dump(mode="json"), as_json, table(("POLICY", "VALUE"), rows))


FOREVER = "forever"
ANY = "any"
# A choice, and the parameters that belong to it.
RECIPE_PAIRS = (("method", "parameters"), ("optimizer", "optimizer_parameters"))


def _closing(least: int | None, most: int | None, deadline: str | None) -> dict[str, Any]:
    limit = parse_duration(deadline)
    return {
        "min_contributions": least,
        "max_contributions": most,
        "deadline_seconds": None if limit is None else int(limit.total_seconds()),
    }


def _keeping(rounds: str | None) -> dict[str, Any]:
    """Return what is said of keeping, in a dictionary that is empty if nothing is."""
    if rounds is None:
        return {}
    return {"keep_contributions": None if rounds == FOREVER else number_or_word(rounds)}


def _taking(encodings: list[str] | None) -> dict[str, Any]:
    """Return what is said of encodings, in a dictionary that is empty if nothing is."""
    if not encodings:
        return {}
    return {"encodings": None if encodings == [ANY] else encodings}


def _recipe(
    method: str | None,
    param: list[str] | None,
    server_lr: str | None,
    optimizer: str | None,
    optimizer_param: list[str] | None,
    pull: float | None,
) -> dict[str, Any]:
    return {
        "method": method,
        "parameters": pairs("--param", param, parsed=True) or None,
        "server_lr": number_or_word(server_lr),
        "optimizer": optimizer,
        "optimizer_parameters": pairs("--optimizer-param", optimizer_param, parsed=True) or None,
        "pull": pull,
    }


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
