"""The program `coldfusion-client`."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from io import TextIOWrapper

from coldfusion_client.cli.errors import INTERRUPTED, exit_code
from coldfusion_client.cli.output import Output
from coldfusion_shared.errors import MissingExtra

_NEEDED = ("typer", "httpx", "rich", "platformdirs")


def main() -> None:
    """Run the command line; says what to install where the extra `client` is missing."""
    for module in _NEEDED:
        if find_spec(module) is None:
            missing = MissingExtra.of("client", module)
            status = exit_code(missing.code)
            Output(as_json="--json" in sys.argv).error_document(missing, status)
            sys.stderr.write(f"Error: {missing.message}\n{missing.hint}\n")
            sys.exit(status)

    from coldfusion_client.cli.usage import run

    if isinstance(sys.stdout, TextIOWrapper):
        # Other people's names may have letters that a Windows code page or a log has not.
        sys.stdout.reconfigure(errors="backslashreplace")
    status = run(sys.argv[1:])
    if status != INTERRUPTED:
        sys.exit(status)
    # At once: the interpreter would wait for threads that wait for a silent network.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
