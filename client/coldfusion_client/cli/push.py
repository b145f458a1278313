"""``push``: a model that was finetuned elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
from coldfusion_client.cli.session import session
from coldfusion_client.forms import FULL


def push(
    model: Model,
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="What save_pretrained wrote: a model, or a LoRA adapter of peft's.",
        ),
    ],
    base: Annotated[
        str | None,
        typer.Option(
            metavar="v3",
            help="The base that it was finetuned from; by default what the folder's "
            "coldfusion.json says.",
            show_default=False,
        ),
    ] = None,
    encoding: Encoding = FULL,
    onto: Onto = None,
    wait: Wait = True,
    progress: Progress = True,
    server: Server = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Contribute an already finetuned model or adapter; its head stays at home."""
    onto_latest = is_onto_latest(onto)
    with session(server, as_json=as_json, quiet=quiet, progress=progress) as at:
        from coldfusion_client.bases import model_name, version_name
        from coldfusion_client.push import push as send
        from coldfusion_client.submission import told

        contribution = send(
            at.source,
            model_name(model),
            folder,
            version_name(base) if base else None,
            onto_latest=onto_latest,
            wait=wait,
            encoding=encoding,
        )
        at.out.result(
            contribution.model_dump(mode="json"), told(at.api, contribution), contribution.id
        )
