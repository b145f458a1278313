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


def setting(name: str, metavar: str | None, *flags: str) -> Any:
    """Return the option of a finetuning setting; its own description is the help."""
    field = FinetuneSettings.model_fields[name]
    what = (field.description or "").rstrip(".")
    default = field.get_default()
    usual = "" if default is None else f" Default: {default}."
    help_text = f"{what[:1].upper()}{what[1:]}.{usual}"
    return typer.Option(*flags, metavar=metavar, help=help_text, show_default=False)


def column(what: str) -> Any:
    """Return the option that names a column."""
    help_text = f"The column of {what}; by default found by its usual names."
    return typer.Option(metavar="COLUMN", help=help_text, show_default=False)


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
    text_column: Annotated[str | None, column("the text")] = None,
    text_pair_column: Annotated[str | None, column("the second text of a pair")] = None,
    label_column: Annotated[str | None, column("the label")] = None,
    dataset_name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What the data set may be called in public. By default it is not named.",
            show_default=False,
        ),
    ] = None,
    epochs: Annotated[float | None, setting("epochs", "N")] = None,
    lr: Annotated[float | None, setting("lr", "RATE")] = None,
    batch_size: Annotated[int | None, setting("batch_size", "N")] = None,
    max_length: Annotated[int | None, setting("max_length", "TOKENS")] = None,
    seed: Annotated[int | None, setting("seed", "N")] = None,
    max_steps: Annotated[int | None, setting("max_steps", "N")] = None,
    early_stopping: Annotated[
        bool | None,
        setting("early_stopping", None, "--early-stopping/--no-early-stopping"),
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
