"""`coldfusion-server worker`: a process that only screens and fuses."""

from __future__ import annotations

from coldfusion_server.cli.options import DatabaseUrl, DataDir, LogJson, LogLevel


def worker(
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    log_level: LogLevel = None,
    log_json: LogJson = False,
) -> None:
    """Screen and fuse, in this process alone, until SIGTERM or Ctrl-C.

    Any number of workers may run, on any number of machines. What one of them was at when it ended
    is taken over by another: at once after a signal, after `lease_seconds` if it was killed.
    """
    from coldfusion_server.process import run_alone
    from coldfusion_server.settings import load_settings
    from coldfusion_server.worker import run_worker

    settings = load_settings(
        data_dir=data_dir,
        database_url=database_url,
        log_level=log_level,
        log_json=log_json or None,
    )
    run_alone(settings, run_worker)
