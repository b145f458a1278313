"""The registered checks, described: for the CLI and the documentation."""

from __future__ import annotations

from coldfusion_shared.fusion.catalogue import parameters_of
from coldfusion_shared.schemas.screening import CheckDescription
from coldfusion_shared.screening import discover


def catalogue() -> list[CheckDescription]:
    """Return every check, by name."""
    registry = discover()
    return [
        CheckDescription(
            name=name,
            summary=registry[name].summary,
            parameters=parameters_of(registry[name].parameters_type),
        )
        for name in registry
    ]
