"""Structured logs on standard error: lines for people, JSON for programs."""

from __future__ import annotations

import logging
import sys

import structlog

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
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(message)s"
    )
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if settings.log_json
        # repr of values: a contributor's text cannot break or colour the line.
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
