"""How things stand: a model with its round that has not ended, and what is ours."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from coldfusion_client.api import Api
from coldfusion_client.bases import model_name
from coldfusion_shared.errors import NotFound
from coldfusion_shared.schemas.contributions import Contribution
from coldfusion_shared.schemas.models import Model
from coldfusion_shared.schemas.rounds import Round
from coldfusion_shared.schemas.tokens import Whoami
from coldfusion_shared.schemas.usage import OwnUsage


@dataclass(frozen=True)
class ModelStatus:
    """
    How a model stands.

    Attributes:
        model: the model.
        round: its open round or, while one is under way, that one; null: it has none.
        contributions: those to that round that the token may see, newest first.
    """

    model: Model
    round: Round | None
    contributions: list[Contribution]

    def as_json(self) -> dict[str, Any]:
        """Return it for ``--json``."""
        return {
            "model": self.model.model_dump(mode="json"),
            "round": self.round.model_dump(mode="json") if self.round else None,
            "contributions": _dumped(self.contributions),
        }


@dataclass(frozen=True)
class OwnStatus:
    """
    What is ours at a server.

    Attributes:
        server: its URL.
        whoami: who the token belongs to.
        usage: what we have stored, and the quota; null: an older server, which has none.
        contributions: ours to all rounds that have not ended.
    """

    server: str
    whoami: Whoami
    usage: OwnUsage | None
    contributions: list[Contribution]

    def as_json(self) -> dict[str, Any]:
        """Return it for ``--json``."""
        return {
            "server": self.server,
            "whoami": self.whoami.model_dump(mode="json"),
            "usage": None if self.usage is None else self.usage.model_dump(mode="json"),
            "contributions": _dumped(self.contributions),
        }


def model_status(api: Api, name: str) -> ModelStatus:
    """Return how the model `name` stands; raises `ModelNotFound`, `InvalidRequest`."""
    model = api.model(model_name(name))
    number = _current(api, model)
    if number is None:
        return ModelStatus(model, None, [])
    found = list(api.contributions(model.name, round=number))
    return ModelStatus(model, api.round(model.name, number), found)


def own_status(api: Api) -> OwnStatus:
    """Return what is ours; raises `Unauthenticated` without a token."""
    me = api.whoami()
    found = [
        contribution
        for model in list(api.models())
        if (number := _current(api, model)) is not None
        for contribution in api.contributions(model.name, contributor="me", round=number)
    ]
    return OwnStatus(api.server, me, _own_usage(api), found)


def _current(api: Api, model: Model) -> int | None:
    """Return the number of the open round or, as none opens before it ends, of the newest one."""
    if model.open_round is not None:
        return model.open_round
    return next((one.number for one in api.rounds(model.name)), None)


def _own_usage(api: Api) -> OwnUsage | None:
    try:
        return api.own_usage()
    except NotFound:
        return None  # An older server, which has no quotas.


def _dumped(found: Iterable[Contribution]) -> list[dict[str, Any]]:
    return [one.model_dump(mode="json") for one in found]
