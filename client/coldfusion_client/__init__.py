"""
The contributor's side: pull a base, finetune it at home, send back weights.

    from coldfusion_client import Client

    client = Client()
    folder = client.pull("org/base")
    client.contribute("org/base", model, base="v3")

Importing this package loads nothing heavy; what is named below is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from coldfusion_shared.errors import ColdFusionError, MissingExtra

if TYPE_CHECKING:
    from coldfusion_client.callback import ColdFusionCallback, ContributionWarning
    from coldfusion_client.client import Client
    from coldfusion_shared.schemas.contributions import Work

__all__ = ["Client", "ColdFusionCallback", "ColdFusionError", "ContributionWarning", "Work"]

# What is loaded late: where it is, and which extra brings what it needs.
_LATE = {
    "Client": ("coldfusion_client.client", "client"),
    "ColdFusionCallback": ("coldfusion_client.callback", "train"),
    "ContributionWarning": ("coldfusion_client.callback", "train"),
    "Work": ("coldfusion_shared.schemas.contributions", "client"),
}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, extra = _LATE[name]
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        raise MissingExtra.of(extra, error.name or name) from None


def __dir__() -> list[str]:
    return sorted(__all__)
