"""``contribute``: finetune at home, send back weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from coldfusion_client.cli.options import (
    AsJson,
    Encoding,
    Model,
    Onto,
    Progress,
    Quiet,
    Server,
    Wait,
    is_onto_latest,
)
from coldfusion_client.cli.order_file import Config
from coldfusion_client.cli.session import session
from coldfusion_client.cli.text import size, typed
from coldfusion_client.forms import AUTO
from coldfusion_shared.finetune import processes
from coldfusion_shared.finetune.settings import OF_DP, OF_LORA, FinetuneSettings


def setting(name: str, metavar: str | None, *flags: str, callback: Any = None) -> Any:
    """Return the option of a finetuning setting; its own description is the help."""
    field = FinetuneSettings.model_fields[name]
    what = (field.description or "").rstrip(".")
    default = field.get_default()
    usual = "" if default is None else f" Default: {default}."
    help_text = f"{what[:1].upper()}{what[1:]}.{usual}"
    return typer.Option(
        *flags, metavar=metavar, help=help_text, show_default=False, callback=callback
    )


def _without_lora(context: typer.Context, lora: bool | None) -> bool | None:
    """Let a ``--no-lora`` that is typed overrule what a file says of adapters, too."""
    return _without(context, "lora", OF_LORA, chosen=lora)


def _without_dp(context: typer.Context, dp: bool | None) -> bool | None:
    """Let a ``--no-dp`` that is typed overrule what a file says of the noise, too."""
    return _without(context, "dp", OF_DP, chosen=dp)


def _without(
    context: typer.Context, name: str, others: tuple[str, ...], *, chosen: bool | None
) -> bool | None:
    source = context.get_parameter_source(name)
    if chosen is False and source is not None and source.name == "COMMANDLINE":
        written = context.default_map or {}
        context.default_map = {k: value for k, value in written.items() if k not in others}
    return chosen


def columns_of(pairs: list[str] | None) -> dict[str, str]:
    """Return column names by role; raises a usage error for what is no ROLE=NAME."""
    columns: dict[str, str] = {}
    for pair in pairs or ():
        role, equals, name = pair.partition("=")
        if not (role and equals and name):
            raise typer.BadParameter(
                f"{pair!r} is not ROLE=NAME, such as label=verdict", param_hint="--column"
            )
        if role in columns:
            raise typer.BadParameter(f"{role!r} is given twice", param_hint="--column")
        columns[role] = typed(name)
    return columns


def contribute(
    model: Model,
    data: Annotated[
        str,
        typer.Option(
            metavar="FILE_OR_DATASET",
            help="CSV, TSV, JSONL, Parquet, .conll or .txt file, a folder of splits, or a name of "
            "the datasets library. It stays on this machine.",
        ),
    ],
    task: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The kind of task, such as classification or question-answering; by default the "
            "first one that fits the columns and the model.",
            show_default=False,
        ),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE=NAME",
            help="The column NAME is the task's ROLE, such as label=verdict; repeatable. By "
            "default columns are found by their usual names.",
            show_default=False,
        ),
    ] = None,
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
    gradient_accumulation: Annotated[int | None, setting("gradient_accumulation", "N")] = None,
    gradient_checkpointing: Annotated[
        bool | None,
        setting(
            "gradient_checkpointing",
            None,
            "--gradient-checkpointing/--no-gradient-checkpointing",
        ),
    ] = None,
    precision: Annotated[str | None, setting("precision", "NUMBERS")] = None,
    max_length: Annotated[int | None, setting("max_length", "TOKENS")] = None,
    group_by_length: Annotated[
        bool | None,
        setting("group_by_length", None, "--group-by-length/--no-group-by-length"),
    ] = None,
    seed: Annotated[int | None, setting("seed", "N")] = None,
    max_steps: Annotated[int | None, setting("max_steps", "N")] = None,
    early_stopping: Annotated[
        bool | None,
        setting("early_stopping", None, "--early-stopping/--no-early-stopping"),
    ] = None,
    lora: Annotated[
        bool | None, setting("lora", None, "--lora/--no-lora", callback=_without_lora)
    ] = None,
    lora_rank: Annotated[int | None, setting("lora_rank", "N", "--rank")] = None,
    lora_alpha: Annotated[int | None, setting("lora_alpha", "N", "--alpha")] = None,
    lora_targets: Annotated[str | None, setting("lora_targets", "NAMES", "--targets")] = None,
    rslora: Annotated[bool | None, setting("rslora", None, "--rslora/--no-rslora")] = None,
    dora: Annotated[bool | None, setting("dora", None, "--dora/--no-dora")] = None,
    freeze: Annotated[str | None, setting("freeze", "NAMES")] = None,
    dp: Annotated[bool | None, setting("dp", None, "--dp/--no-dp", callback=_without_dp)] = None,
    dp_epsilon: Annotated[float | None, setting("dp_epsilon", "EPSILON")] = None,
    dp_noise: Annotated[float | None, setting("dp_noise", "NOISE")] = None,
    dp_delta: Annotated[float | None, setting("dp_delta", "DELTA")] = None,
    dp_clip: Annotated[float | None, setting("dp_clip", "LENGTH")] = None,
    encoding: Encoding = AUTO,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where your finetuned model goes; by default below ./coldfusion-runs.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Only read and check the data, and say what would happen: time, memory, bytes.",
        ),
    ] = False,
    onto: Onto = None,
    wait: Wait = True,
    config: Config = None,
    progress: Progress = True,
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
    columns = columns_of(column)
    first = processes.is_first()
    as_json, quiet = as_json and first, quiet or not first
    with (
        session(server, as_json=as_json, quiet=quiet, progress=progress) as at,
        processes.together(),
    ):
        if config is not None:
            at.out.say(f"Options that were not given come from {config}.")
        from coldfusion_client.bases import model_name
        from coldfusion_client.contribute import Order
        from coldfusion_client.contribute import contribute as run
        from coldfusion_client.dry_run import dry_run as plan_of
        from coldfusion_client.following import follow
        from coldfusion_client.local_trainer import LocalTrainer, settings_of
        from coldfusion_client.training import Data

        options: dict[str, Any] = {
            "epochs": epochs,
            "lr": lr,
            "batch_size": batch_size,
            "gradient_accumulation": gradient_accumulation,
            "gradient_checkpointing": gradient_checkpointing,
            "precision": precision,
            "max_length": max_length,
            "group_by_length": group_by_length,
            "seed": seed,
            "max_steps": max_steps,
            "early_stopping": early_stopping,
            "lora": lora,
            "lora_rank": lora_rank,
            "lora_alpha": lora_alpha,
            "lora_targets": lora_targets,
            "rslora": rslora,
            "dora": dora,
            "freeze": freeze,
            "dp": dp,
            "dp_epsilon": dp_epsilon,
            "dp_noise": dp_noise,
            "dp_delta": dp_delta,
            "dp_clip": dp_clip,
        }
        order = Order(
            model=model_name(model),
            data=Data(data, columns, task),
            settings=settings_of(options),
            output=output,
            public_name=dataset_name and typed(dataset_name),
            onto_latest=onto_latest,
            wait=wait,
            encoding=encoding,
        )
        if dry_run:
            plan = plan_of(order, at.source, LocalTrainer())
            at.out.result(plan.as_json(), plan.as_text(size))
            return
        if not first:
            follow(order, at.source, LocalTrainer())
            return
        outcome = run(order, at.source, LocalTrainer())
        at.out.result(outcome.as_json(), outcome.summary, str(outcome.run.folder))
