"""A running Repository: the web server, and scheduler and worker beside it in threads."""

from __future__ import annotations

import errno
import signal
import socket
from threading import Event, Thread
from types import FrameType, TracebackType
from typing import Self

import uvicorn

from coldfusion_server.app import create_app
from coldfusion_server.db.migrate import migrate
from coldfusion_server.log import configure_logging
from coldfusion_server.scheduler import run_scheduler
from coldfusion_server.services.context import open_context
from coldfusion_server.services.tokens import create_token, list_tokens
from coldfusion_server.settings import Settings
from coldfusion_server.worker import run_worker
from coldfusion_shared.errors import ConfigurationError, PortInUse
from coldfusion_shared.schemas.tokens import Role

# A fuse is not waited for: whoever starts next goes on with it.
JOIN_SECONDS = 3
GRACE_SECONDS = 5
BACKLOG = 2048


class Repository:
    """All of the server in one process, as `coldfusion-server up` runs it."""

    def __init__(self, settings: Settings, *, scheduler: bool = True, worker: bool = True) -> None:
        """
        Prepare everything that can fail: folder, database, port.

        Raises:
            ConfigurationError, DataFolderTooNew, PortInUse: it cannot start; the message says why.
        """
        configure_logging(settings)
        self.context = open_context(settings)
        migrate(self.context.database)
        self.socket = _listen(settings.host, settings.port)
        self.first_token = self._make_first_token()
        self.stop = Event()
        targets = [run_scheduler] * scheduler + [run_worker] * worker
        self.threads = [
            Thread(target=target, args=(self.context, self.stop), daemon=True, name=target.__name__)
            for target in targets
        ]

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
                thread.join(JOIN_SECONDS)
        self.socket.close()
        self.context.close()

    def serve(self) -> None:
        """Serve until a signal says to stop."""
        for thread in self.threads:
            thread.start()
        app = create_app(self.context)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
            server_header=False,
            proxy_headers=True,
        )
        _Server(config).run(sockets=[self.socket])

    def _make_first_token(self) -> str | None:
        if list_tokens(self.context):
            return None
        token, _ = create_token(self.context, "admin", Role.ADMIN)
        return token


class _Server(uvicorn.Server):
    """Ends the event streams first: uvicorn waits for open responses, and those never end."""

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
    listener = socket.socket(family)
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
