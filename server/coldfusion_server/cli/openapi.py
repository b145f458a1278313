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
    from coldfusion_server.settings import load_settings

    with tempfile.TemporaryDirectory() as folder:
        context = open_context(load_settings(data_dir=Path(folder)))
        document = create_app(context).openapi()
        context.close()
    typer.echo(json.dumps(document, indent=2, sort_keys=True))
