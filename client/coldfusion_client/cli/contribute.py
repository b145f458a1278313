"""``contribute``: finetune at home, send back weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from coldfusion_client.cli.options import (
    AsJson,
    Model,
    NoWait,
    Onto,
    Quiet,
    Server,
    is_onto_latest,
)
from coldfusion_client.cli.session import session
from coldfusion_shared.finetune.settings import FinetuneSettings

Column = Annotated[str | None, typer.Option(metavar="COLUMN", show_default=False)]


def _setting(name: str, metavar: str | None = None, *flags: str) -> Any:
    field = FinetuneSettings.model_fields[name]
    default = "none" if field.default is None else field.default
    text = f"{field.description}; by default {default}"
    return typer.Option(*flags, metavar=metavar, help=text, show_default=False)


def contribute(
    model: Model,
    data: Annotated[
        str,
        typer.Option(
            metavar="FILE_OR_DATASET",
            help="CSV, TSV, JSONL or Parquet file, a folder of splits, or a name of the "
            "datasets library. It stays on this machine.",
        ),
    ],
    text_column: Column = None,
    text_pair_column: Column = None,
    label_column: Column = None,
    dataset_name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What the data set may be called in public. By default it is not named.",
            show_default=False,
        ),
    ] = None,
    epochs: Annotated[float | None, _setting("epochs", "N")] = None,
    lr: Annotated[float | None, _setting("lr", "RATE")] = None,
    batch_size: Annotated[int | None, _setting("batch_size", "N")] = None,
    max_length: Annotated[int | None, _setting("max_length", "N")] = None,
    seed: Annotated[int | None, _setting("seed", "N")] = None,
    max_steps: Annotated[int | None, _setting("max_steps", "N")] = None,
    early_stopping: Annotated[
        bool | None,
        _setting("early_stopping", None, "--early-stopping/--no-early-stopping"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where your finetuned model goes; by default below ./coldfusion-runs.",
            show_default=False,
        ),
    ] = None,
    onto: Onto = None,
    no_wait: NoWait = False,
    server: Server = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """
    Finetune the newest base on your data and contribute what it learnt.

    The data and the task's head stay on this machine; the finetuned model is yours to use at
    once. A command that was interrupted goes on where it stopped when it is given again.
    """
    onto_latest = is_onto_latest(onto)
    with session(server, as_json=as_json, quiet=quiet) as at:
        from coldfusion_client.bases import model_name
        from coldfusion_client.contribute import Order
        from coldfusion_client.contribute import contribute as run
        from coldfusion_client.local_trainer import LocalTrainer, settings_of
        from coldfusion_client.training import Data

        options: dict[str, Any] = {
            "epochs": epochs,
            "lr": lr,
            "batch_size": batch_size,
            "max_length": max_length,
            "seed": seed,
            "max_steps": max_steps,
            "early_stopping": early_stopping,
        }
        order = Order(
            model=model_name(model),
            data=Data(data, text_column, text_pair_column, label_column),
            settings=settings_of(options),
            output=output,
            public_name=dataset_name,
            onto_latest=onto_latest,
            wait=not no_wait,
        )
        outcome = run(order, at.source, LocalTrainer())
        at.out.result(outcome.as_json(), outcome.summary, str(outcome.run.folder))
