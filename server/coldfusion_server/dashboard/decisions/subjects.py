"""What is decided on: found with the visitor's rights, and named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from coldfusion_server.services import (
    bases,
    contributions,
    deliveries,
    models,
    replays,
    rounds,
    webhooks,
)
from coldfusion_server.services.context import Context
from coldfusion_server.services.tokens import Principal
from coldfusion_shared.schemas.bases import Base
from coldfusion_shared.schemas.contributions import Contribution
from coldfusion_shared.schemas.models import Model
from coldfusion_shared.schemas.replays import Replay
from coldfusion_shared.schemas.rounds import Round
from coldfusion_shared.schemas.webhooks import Delivery, Webhook

Kind = Literal["model", "round", "base", "replay", "contribution", "webhook", "delivery"]
Item = Model | Round | Base | Replay | Contribution | Webhook | Delivery

# Below which addresses what is decided on has its forms.
ADDRESSES: dict[Kind, str] = {
    "replay": "/decide/models/{owner}/{name}/replays/{replay}",
    "round": "/decide/models/{owner}/{name}/rounds/{number}",
    "base": "/decide/models/{owner}/{name}/bases/{version}",
    "model": "/decide/models/{owner}/{name}",
    "contribution": "/decide/contributions/{contribution}",
    "delivery": "/decide/webhooks/{webhook}/deliveries/{delivery}",
    "webhook": "/decide/webhooks/{webhook}",
}


@dataclass(frozen=True)
class Subject:
    """
    What is decided on.

    Attributes:
        kind: which of them it is.
        item: as the API shows it.
        model: the name of its model; empty: it is of none.
        name: as a sentence calls it: ``round 3 of demo/tiny``.
        state: in which it is, in words.
        page: the address of its page.
        forms: the address that its forms are below.
    """

    kind: Kind
    item: Item
    model: str
    name: str
    state: str
    page: str
    forms: str


def find(ctx: Context, who: Principal, kind: Kind, names: Mapping[str, str]) -> Subject:
    """
    Return what the parts of an address name.

    Raises:
        ModelNotFound, RoundNotFound, BaseNotFound, ReplayNotFound, ContributionNotFound,
            WebhookNotFound: there is no such thing, or `who` may not know of it.
        Forbidden: it is a replay, or a webhook, and `who` is no maintainer.
    """
    if kind == "webhook":
        return subject(webhooks.get_webhook(ctx, names["webhook"], who))
    if kind == "delivery":
        found = deliveries.get_delivery(ctx, names["webhook"], names["delivery"], who)
        return subject(found)
    if kind == "contribution":
        return subject(contributions.get_contribution(ctx, names["contribution"], who))
    model = f"{names['owner']}/{names['name']}"
    match kind:
        case "model":
            return subject(models.get_model(ctx, model, who))
        case "round":
            return subject(rounds.get_round(ctx, model, names["number"], who))
        case "base":
            return subject(bases.get_base(ctx, model, names["version"], who))
        case "replay":
            return subject(replays.get_replay(ctx, model, names["replay"], who))


def subject(item: Item) -> Subject:
    """Return what decides on `item` go by."""
    if isinstance(item, Contribution):
        return Subject(
            "contribution",
            item,
            item.model,
            f"contribution {item.id} of {item.contributor}",
            item.state.value,
            f"/contributions/{item.id}",
            f"/decide/contributions/{item.id}",
        )
    if isinstance(item, Webhook | Delivery):
        return _of_webhook(item)
    if isinstance(item, Model):
        page = f"/models/{item.name}"
        return Subject(
            "model", item, item.name, item.name, f"at {item.current}", page, f"/decide{page}"
        )
    page = f"/models/{item.model}"
    if isinstance(item, Replay):
        forms = f"/decide{page}/replays"
        name = f"replay {item.id} of {item.model}"
        state = item.state.value
        return Subject("replay", item, item.model, name, state, forms, f"{forms}/{item.id}")
    if isinstance(item, Round):
        page, name = f"{page}/rounds/{item.number}", f"round {item.number} of {item.model}"
        return Subject("round", item, item.model, name, item.state.value, page, f"/decide{page}")
    page, name = f"{page}/bases/{item.version}", f"{item.version} of {item.model}"
    state = "the current base" if item.current else "published"
    return Subject("base", item, item.model, name, state, page, f"/decide{page}")


def _of_webhook(item: Webhook | Delivery) -> Subject:
    if isinstance(item, Delivery):
        page = f"/webhooks/{item.webhook}"
        state = item.state.value.replace("_", " ")
        forms = f"/decide{page}/deliveries/{item.id}"
        name = f"{item.type} {item.id}"
        return Subject("delivery", item, item.model or "", name, state, page, forms)
    page, name = f"/webhooks/{item.id}", f"webhook {item.id}"
    state = "active" if item.active else "paused"
    return Subject("webhook", item, item.model or "", name, state, page, f"/decide{page}")
