"""A running Repository: the web server, and beside it scheduler, worker and an evaluator."""

from __future__ import annotations

import errno
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Event, Thread
from types import FrameType, TracebackType
from typing import Self

import structlog
import uvicorn

from coldfusion_server.app import create_app
from coldfusion_server.connections import protocol_of
from coldfusion_server.db.migrate import check_revision, migrate
from coldfusion_server.log import configure_logging
from coldfusion_server.scheduler import run_scheduler
from coldfusion_server.services.context import Context, open_context
from coldfusion_server.services.identity import claim_store
from coldfusion_server.services.tokens import create_first_token
from coldfusion_server.settings import Settings
from coldfusion_server.supervisor import END_SECONDS, end_with_parent, supervise
from coldfusion_server.tracing import configure_tracing, end_tracing
from coldfusion_server.worker import run_worker
from coldfusion_shared.errors import ConfigurationError, PortInUse

log = structlog.get_logger(__name__)

# A fuse is not waited for: whoever starts next goes on with it.
JOIN_SECONDS = 3
# An evaluator is: it has its own time to end, and some to be seen ending.
PATIENCE = {supervise.__name__: END_SECONDS + 1}
LAST_CHUNK_SECONDS = 8
POLL_SECONDS = 0.5
GRACE_SECONDS = 5
# How much a process beside the server lets others go first.
NICENESS = 10
BACKLOG = 2048


class Repository:
    """All of the server in one process, as `coldfusion-server up` runs it."""

    def __init__(
        self,
        settings: Settings,
        *,
        scheduler: bool = True,
        worker: bool = True,
        first_token: bool = True,
        evaluator: Sequence[str] | None = None,
        evaluator_once: Sequence[str] = (),
        evaluator_settings: Mapping[str, str] | None = None,
    ) -> None:
        """
        Prepare everything that can fail: folder, database, port.

        Args:
            settings: those in force.
            scheduler: whether to close rounds in this process.
            worker: whether to screen and fuse in this process.
            first_token: whether to make an admin's token if there is no token yet.
            evaluator: the command of an evaluator to run beside; it calls `give_way`.
            evaluator_once: more arguments of it, for its first start alone.
            evaluator_settings: variables of its environment beside this process's own.

        Raises:
            ConfigurationError, DataFolderTooNew, PortInUse: it cannot start; the message says why.
        """
        configure_logging(settings)
        configure_tracing("coldfusion")
        self.context = open_context(settings)
        try:
            migrate(self.context.database)
            claim_store(self.context)
            self.socket = _listen(settings.host, settings.port)
            self.first_token = create_first_token(self.context, "admin") if first_token else None
        except BaseException:
            self.context.close()
            raise
        self.stop = Event()
        targets = [run_scheduler] * scheduler + [run_worker] * worker
        self.threads = [
            Thread(target=target, args=(self.context, self.stop), daemon=True, name=target.__name__)
            for target in targets
        ]
        if evaluator is not None:
            arguments = ("evaluator", evaluator, self.stop, evaluator_once, evaluator_settings)
            self.threads.append(
                Thread(target=supervise, args=arguments, daemon=True, name=supervise.__name__)
            )

    @property
    def url(self) -> str:
        """Where the server listens."""
        host, port = self.socket.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop.set()
        for thread in self.threads:
            if thread.is_alive():
                thread.join(PATIENCE.get(thread.name, JOIN_SECONDS))
        self.socket.close()
        self.context.close()
        end_tracing()

    def serve(self) -> None:
        """Serve until a signal says to stop."""
        for thread in self.threads:
            thread.start()
        app = create_app(self.context)
        # What is there now stays: to look through all of it for garbage, again and again, would
        # keep everybody waiting for a fifth of a second.
        gc.collect()
        gc.freeze()
        config = uvicorn.Config(
            app,
            http=protocol_of(self.context.settings),
            # There are none: what asks for one is answered as if it had not.
            ws="none",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
            server_header=False,
            proxy_headers=True,
            forwarded_allow_ips=self.context.settings.trusted_proxies,
        )
        _Server(config).run(sockets=[self.socket])


def run_alone(settings: Settings, work: Callable[[Context, Event], None]) -> None:
    """
    Run the scheduler, a worker or an evaluator, and nothing else, until a signal says to stop.

    Args:
        settings: those in force.
        work: what to run; it ends soon after its event is set.

    Raises:
        ConfigurationError, DataFolderTooNew: it cannot start; the message says why.
    """
    configure_tracing(f"coldfusion-{work.__name__.removeprefix('run_')}")
    with opened(settings) as context:
        is_idle = _run_until_signal(context, work)
    end_tracing()
    if not is_idle:
        # Python's own end would tear torch's threads away from under the work, and abort.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


@contextmanager
def opened(settings: Settings) -> Iterator[Context]:
    """
    Open the Repository for a process beside the API; raises what `run_alone` raises.

    Args:
        settings: those in force; logs are written as they say.
    """
    configure_logging(settings)
    context = open_context(settings)
    try:
        # Not migrated here: of all processes one does it, before the others start.
        check_revision(context.database)
        claim_store(context)
        yield context
    finally:
        context.close()


def give_way() -> None:
    """Let the server beside which this process runs go first, and end with it."""
    end_with_parent()
    os.nice(NICENESS)


def _run_until_signal(context: Context, work: Callable[[Context, Event], None]) -> bool:
    """Return whether the work has ended, too."""
    stop = Event()

    def end(number: int, frame: FrameType | None) -> None:
        stop.set()
        # A second Ctrl-C ends at once, as everywhere.
        signal.signal(signal.SIGINT, signal.default_int_handler)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    # In a thread of its own: a handler that sets the event on which its own thread waits may find
    # the event's lock taken by that very thread.
    thread = Thread(target=work, args=(context, stop), daemon=True, name=work.__name__)
    log.info("started", work=work.__name__)
    thread.start()
    while thread.is_alive() and not stop.is_set():
        thread.join(POLL_SECONDS)
    # Work that does not end by then hangs; its lease runs out, and another takes it over.
    thread.join(LAST_CHUNK_SECONDS)
    is_idle = not thread.is_alive()
    log.info("stopped", work=work.__name__, idle=is_idle)
    return is_idle


class _Server(uvicorn.Server):
    """
    Ends the event streams first: uvicorn waits for open responses, and those never end.

    The last spans are sent before its own end: then it dies of the signal that it was sent.
    """

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        end_tracing()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.config.app.state.broker.stop()  # type: ignore[union-attr]
        super().handle_exit(sig, frame)
        # A second Ctrl-C ends at once, as everywhere.
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError):
        raise ConfigurationError(f"There is no address {host!r} to listen on.") from None
    # asyncio sends small answers at once only where a socket says that it is TCP; else the second
    # half of each waits for the first one to be acknowledged, 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"Port {port} on {host} is in use by another program.",
                hint="Choose another with --port, or 0 for any free one.",
            ) from None
        raise ConfigurationError(f"Cannot listen on {host}:{port}: {error.strerror}.") from None
    return listener
