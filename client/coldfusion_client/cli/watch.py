"""``watch``: a model, live."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from coldfusion_client.cli.options import AsJson, Model, Quiet, Server
from coldfusion_client.cli.session import session
from coldfusion_client.cli.text import clean

if TYPE_CHECKING:
    from coldfusion_shared.schemas.events import Event


def watch(
    model: Model, server: Server = None, as_json: AsJson = False, quiet: Quiet = False
) -> None:
    """Show what happens to a model, as it happens, until Ctrl-C. --json: one event a line."""
    with session(server, as_json=as_json, quiet=quiet) as at:
        from coldfusion_client.bases import model_name
        from coldfusion_client.events import follow

        current = at.api.model(model_name(model))
        at.out.say(f"{current.name}: newest base {current.current}. Ctrl-C ends.")

        def seen(event: Event) -> None:
            line = _line(event)
            at.out.result(event.model_dump(mode="json"), line, line)

        follow(at.api, current.name, seen)


def _line(event: Event) -> str:
    when = event.at.astimezone().strftime("%H:%M:%S")
    known = {key: value for key, value in event.data.items() if value is not None}
    facts = " ".join(f"{key}={_short(value)}" for key, value in known.items())
    return clean(f"{when} {event.type} {facts}")


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
