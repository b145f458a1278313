"""``models``: what a server has."""

from __future__ import annotations

from coldfusion_client.cli.options import AsJson, Quiet, Server
from coldfusion_client.cli.session import session

TITLES = ("model", "base", "round", "accepted", "contributors")


def models(server: Server = None, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """List the models that you may read."""
    with session(server, as_json=as_json, quiet=quiet) as at:
        found = list(at.api.models())
        at.out.say(f"Models at {at.api.server}:")
        rows = [
            (
                model.name,
                model.current,
                "-" if model.open_round is None else model.open_round,
                model.accepted,
                model.contributors,
            )
            for model in found
        ]
        at.out.table([model.model_dump(mode="json") for model in found], TITLES, rows)
