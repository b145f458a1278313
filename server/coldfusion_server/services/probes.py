"""
What a container's health check asks: whether the process beside it works.

It runs every few seconds, in every container; so nothing heavy is imported here.
"""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass

from coldfusion_server.services.heartbeat import Part, heartbeat_file, silence
from coldfusion_server.settings import Settings
from coldfusion_shared.errors import ConfigurationError

ANSWER_SECONDS = 10.0
# Where a server that listens everywhere is found from the same machine.
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


@dataclass(frozen=True)
class Diagnosis:
    """What one look has found."""

    subject: str
    ok: bool
    message: str
    hint: str | None = None


def examine_process(settings: Settings, part: Part) -> Diagnosis:
    """Look at the process of this machine or container that runs `part`, from outside it."""
    return _answer(settings) if part == Part.API else _heartbeat(settings, part)


def _answer(settings: Settings) -> Diagnosis:
    """Ask the API, as its clients do, whether it is ready."""
    host = ANY_ADDRESS.get(settings.host, settings.host)
    connection = http.client.HTTPConnection(host, settings.port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        what = f"Nothing answers at {host}:{settings.port}: {error}."
        return Diagnosis(Part.API, False, what, "Is it up, with the same host and port?")
    finally:
        connection.close()
    if answer.status == 200:
        return Diagnosis(Part.API, True, "ready")
    return Diagnosis(Part.API, False, _detail(body) or f"It answers {answer.status}.")


def _detail(body: bytes) -> str | None:
    """Return what a problem's JSON says is wrong."""
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, KeyError, TypeError):
        return None


def patience(settings: Settings, part: Part) -> float:
    """Return how many seconds a part that is well may give no sign of life."""
    pause = settings.scheduler_seconds if part is Part.SCHEDULER else settings.worker_seconds
    return settings.heartbeat_seconds + pause


def _heartbeat(settings: Settings, part: Part) -> Diagnosis:
    file = heartbeat_file(settings, part)
    if file is None:
        raise ConfigurationError(
            f"The setting run_dir is not set, so the {part} gives no sign of life.",
            hint="Set COLDFUSION_RUN_DIR to one folder for both that process and this command.",
        )
    seconds = silence(file)
    if seconds is None:
        message = f"The {part} has done nothing without an error since it started, or is not up."
        return Diagnosis(part, False, message, "Its log says why.")
    if seconds > patience(settings, part):
        message = f"The {part} gave its last sign of life {seconds:.0f} seconds ago."
        hint = "Its log says what it began. End it; whoever starts next goes on with its work."
        return Diagnosis(part, False, message, hint)
    return Diagnosis(part, True, f"last sign of life {seconds:.0f} seconds ago")
