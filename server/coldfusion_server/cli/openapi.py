"""`coldfusion-server openapi`: the API's own description."""

from __future__ import annotations

import json

import typer


def openapi() -> None:
    """Print the API's OpenAPI document."""
    import tempfile
    from pathlib import Path

    from coldfusion_server.app import create_app
    from coldfusion_server.services.context import open_context
    from coldfusion_server.settings import Settings

    with tempfile.TemporaryDirectory() as folder:
        # It says nothing of a deployment, so that no setting of one is read.
        settings = Settings.model_construct(data_dir=Path(folder))
        context = open_context(settings)
        document = create_app(context).openapi()
        context.close()
    typer.echo(json.dumps(document, indent=2, sort_keys=True))
