"""`coldfusion-server scheduler`: a process that closes rounds, clears up and tells webhooks."""

from __future__ import annotations

from coldfusion_server.cli.options import DatabaseUrl, DataDir, LogJson, LogLevel


def scheduler(
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    log_level: LogLevel = None,
    log_json: LogJson = False,
) -> None:
    """Close rounds, clear up and send events to webhooks, alone, until SIGTERM or Ctrl-C.

    One is enough; a second one does no harm, and stands in for the first.
    """
    from coldfusion_server.process import run_alone
    from coldfusion_server.scheduler import run_scheduler
    from coldfusion_server.settings import load_settings

    settings = load_settings(
        data_dir=data_dir,
        database_url=database_url,
        log_level=log_level,
        log_json=log_json or None,
    )
    run_alone(settings, run_scheduler)
