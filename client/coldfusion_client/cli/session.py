"""What every command does first and last: find server and token, report errors."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from coldfusion_client.cli.errors import DISK, INTERRUPTED, UNEXPECTED, exit_code
from coldfusion_client.cli.output import Output
from coldfusion_shared.errors import ColdFusionError

if TYPE_CHECKING:
    from coldfusion_client.api import Api
    from coldfusion_client.source import Source


@dataclass(frozen=True)
class Session:
    """A server, and where to write."""

    api: Api
    out: Output

    @property
    def source(self) -> Source:
        """The server with the cache of this machine."""
        from coldfusion_client.cache import default_cache
        from coldfusion_client.source import Source

        return Source(self.api, default_cache(), self.out)


@contextmanager
def session(
    server: str | None, *, as_json: bool, quiet: bool, progress: bool = True
) -> Iterator[Session]:
    """Open the server that is meant; inside, errors are reported and become exit codes."""
    out = Output(as_json=as_json, quiet=quiet, progress=progress)
    with reported(out):
        from coldfusion_client.opening import choose, open_api

        url, token = choose(server)
        with open_api(url, token, out.warn) as api:
            yield Session(api, out)


@contextmanager
def reported(out: Output) -> Iterator[None]:
    """Turn what goes wrong inside into a message and an exit code, never a traceback."""
    try:
        yield
    except ColdFusionError as error:
        _debug()
        status = exit_code(error.code)
        out.error(error, status)
    except KeyboardInterrupt:
        status = INTERRUPTED
        out.interrupted(status)
    except BrokenPipeError:
        raise  # the reader has seen enough; typer ends quietly
    except OSError as error:
        _debug()
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        out.error(ColdFusionError(what), DISK)
        status = DISK
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except Exception as error:
        _debug()
        hint = "Set COLDFUSION_DEBUG=1 to see where, and report it, please."
        out.error(ColdFusionError(f"{type(error).__name__}: {error}", hint=hint), UNEXPECTED)
        status = UNEXPECTED
    else:
        return
    raise typer.Exit(status)


def _debug() -> None:
    if os.environ.get("COLDFUSION_DEBUG") == "1":
        traceback.print_exc(file=sys.stderr)
