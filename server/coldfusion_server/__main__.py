"""Console script `coldfusion-server`: say what is missing before importing what needs it."""

from __future__ import annotations

import os
import sys

from coldfusion_shared.errors import ColdFusionError, MissingExtra


def main() -> None:
    """Run the command line; whatever goes wrong is one sentence and a fitting exit code."""
    try:
        _run()
    except KeyboardInterrupt:
        sys.exit(130)


def _run() -> None:
    try:
        from coldfusion_server.cli import app
        from coldfusion_server.cli.output import fail
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("coldfusion"):
            raise
        missing = MissingExtra.of("server", error.name)
        sys.exit(f"Error: {missing.message}\n{missing.hint}")
    try:
        app()
    except ColdFusionError as error:
        if os.environ.get("COLDFUSION_DEBUG"):
            raise
        fail(error)
    except Exception as error:
        if os.environ.get("COLDFUSION_DEBUG"):
            raise
        hint = "Set COLDFUSION_DEBUG=1 to see where, and report it, please."
        fail(ColdFusionError(f"{type(error).__name__}: {error}", hint=hint))


if __name__ == "__main__":
    main()
