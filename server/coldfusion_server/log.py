"""
Structured logs on standard error: lines for people, JSON for programs.

Much of what is logged are the words of whoever asks. They neither end a line nor move a cursor: all
that is not printable is escaped.
"""

from __future__ import annotations

import json
import logging
import sys

import structlog

from coldfusion_server import tracing
from coldfusion_server.settings import Settings
from coldfusion_shared.errors import ConfigurationError

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configure_logging(settings: Settings) -> None:
    """
    Write logs as `settings` say.

    Raises:
        ConfigurationError: there is no such level.
    """
    level = LEVELS.get(settings.log_level.lower())
    if level is None:
        raise ConfigurationError(
            f"There is no log level {settings.log_level!r}.",
            hint=f"Use one of {', '.join(LEVELS)}.",
        )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OfLibraries(as_json=settings.log_json))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    renderers: list[structlog.typing.Processor] = (
        [structlog.processors.JSONRenderer()]
        if settings.log_json
        else [_escape, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _in_trace,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )


def escaped(text: str) -> str:
    """Return `text` on one line, with escapes for what is not printable."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def _escape(
    logger: structlog.typing.WrappedLogger, name: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Escape the texts of a line; other values are shown by their repr, which does the same."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = _indented(value) if key == "exception" else escaped(value)
    return event


def _in_trace(
    logger: structlog.typing.WrappedLogger, name: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Add the ids of the trace that a line was written in."""
    event.update(tracing.ids())
    return event


def _indented(trace: str) -> str:
    """Return a traceback whose lines are whole, and none of which looks like one of the log's."""
    return "\n".join(f"  {escaped(line)}" for line in trace.split("\n"))


class _OfLibraries(logging.Formatter):
    """Writes what uvicorn and other libraries log as our own lines are written."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self.as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        said, level = record.getMessage(), record.levelname
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        if self.as_json:
            line = {"event": said, "level": level.lower(), "logger": record.name}
            return json.dumps({**line, "exception": trace} if trace else line)
        return f"{level} {escaped(said)}" + (f"\n{_indented(trace)}" if trace else "")
