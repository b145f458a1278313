"""
All that can be decided in a browser, as a table: of what, by which form, what it does and says.

The services do the deed, check the rights, and write it into the audit log.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from pydantic import BaseModel, Field

from coldfusion_server.dashboard.decisions import choices, known, outcomes, previews, sections
from coldfusion_server.dashboard.decisions.choices import Choice
from coldfusion_server.dashboard.decisions.known import Known
from coldfusion_server.dashboard.decisions.outcomes import Outcome, Wish
from coldfusion_server.dashboard.decisions.subjects import Item, Kind, Subject, subject
from coldfusion_server.services import models
from coldfusion_server.services.context import Context
from coldfusion_server.services.tokens import Principal, may
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.replays import OPEN, ReplayState
from coldfusion_shared.rounds import UNDER_WAY, RoundState
from coldfusion_shared.schemas.common import Reason, Request
from coldfusion_shared.schemas.contributions import Contribution, Withdrawal
from coldfusion_shared.schemas.contributions import Decision as Reasoned
from coldfusion_shared.schemas.evaluations import EvaluateRequest
from coldfusion_shared.schemas.models import Policy, RollbackRequest
from coldfusion_shared.schemas.replays import ReplayRequest
from coldfusion_shared.schemas.rounds import AgainRequest, CancelRequest, CloseRequest
from coldfusion_shared.schemas.tokens import Role
from coldfusion_shared.webhooks import PENDING

_C, _R = ContributionState, RoundState
_ID = re.compile(r"[0-9a-f]{16}")


class Removal(Withdrawal):
    """Take a contribution back, and say why."""

    reason: Reason = Field(description="why; its contributor reads it")


class Nothing(Request):
    """A decision that needs no more than to be made."""


@dataclass(frozen=True)
class Decision:
    """
    One kind of decision.

    Attributes:
        name: the last word of its address.
        kind: of what it is decided on.
        title: of its page; ``{}`` is what is decided on.
        button: what leads there, and does it.
        request: the model of its form.
        offered: whether it makes sense in the state in which something is.
        told: the sentences that say what it will do.
        do: does it.
        fixed: values of the form's model that what is decided on has.
        filled: how the form begins: values of its model.
        check: raises where it could not be done; null: that is seen when it is done.
        before: the state that is replaced by what is filled in; null: none is.
        choices: what the boxes of a list offer, by the name of its field.
        known: what fields can name, by theirs.
        order: of the form's fields, with headings.
        grave: whether it cannot be taken back.
    """

    name: str
    kind: Kind
    title: str
    button: str
    request: type[BaseModel]
    offered: Callable[[Any], bool]
    told: Callable[[Any, Any], list[str]]
    do: Callable[[Wish, Any], Outcome]
    fixed: Callable[[Any], dict[str, Any]] = lambda _: {}
    filled: Callable[[Any, Mapping[str, str]], dict[str, Any]] = lambda item, query: {}
    check: Callable[[Context, Any], None] | None = None
    before: Callable[[Any], BaseModel] | None = None
    choices: Mapping[str, Callable[[Wish], list[Choice]]] = field(default_factory=dict)
    known: Callable[[], Mapping[str, list[Known]]] = dict
    order: Sequence[tuple[str, Sequence[str]]] = ()
    grave: bool = False


@dataclass(frozen=True)
class Offer:
    """A link to a form."""

    address: str
    button: str
    grave: bool = False


def _quarantined(item: Any) -> bool:
    return bool(item.state == _C.QUARANTINED)


def _endable(item: Any) -> bool:
    """Return whether a round is under way, or open and has anything that would go on."""
    return item.state in UNDER_WAY or (item.state == _R.OPEN and previews.waits(item) > 0)


def _named(item: Any, query: Mapping[str, str]) -> dict[str, Any]:
    """Fill in the contribution that the link names; anything else in an address is none."""
    return {"without": [one for one in [query.get("without", "")] if _ID.fullmatch(one)]}


DECISIONS: tuple[Decision, ...] = (
    Decision(
        "release", "contribution", "Release {} from quarantine", "Release",
        Reasoned, _quarantined, previews.release, outcomes.release,
    ),
    Decision(
        "reject", "contribution", "Reject {}", "Reject",
        Reasoned, _quarantined, previews.reject, outcomes.reject, grave=True,
    ),
    Decision(
        "remove", "contribution", "Remove {}", "Remove", Removal,
        lambda item: item.state not in (_C.REJECTED, _C.EXPIRED, _C.WITHDRAWN),
        previews.remove, outcomes.remove, grave=True,
    ),
    Decision(
        "close", "round", "Close {}", "Close", CloseRequest,
        lambda item: item.state == _R.OPEN, previews.close, outcomes.close,
    ),
    Decision(
        "cancel", "round", "Cancel {}", "Cancel", CancelRequest,
        _endable, previews.cancel, outcomes.cancel, grave=True,
    ),
    Decision(
        "again", "round", "Fuse {} again", "Fuse again", AgainRequest,
        lambda item: item.state == _R.REJECTED, previews.again, outcomes.again,
        choices={"without": choices.set_aside},
    ),
    Decision(
        "rollback", "base", "Make {} the current base", "Make it the current base",
        RollbackRequest, lambda item: not item.current, previews.rollback, outcomes.rolled_back,
        fixed=lambda item: {"version": item.version},
    ),
    Decision(
        "evaluate", "base", "Measure {} once more", "Measure once more",
        EvaluateRequest, lambda item: True, previews.evaluate, outcomes.evaluate,
    ),
    Decision(
        "policy", "model", "Change the policy of {}", "Change the policy", Policy,
        lambda item: True, previews.policy, outcomes.policy,
        filled=lambda item, query: item.policy.model_dump(),
        check=models.check_settable, before=lambda item: item.policy, known=known.of_policy,
        order=sections.POLICY,
    ),
    Decision(
        "replay", "model", "Fuse the history of {} again", "Replay", ReplayRequest,
        lambda item: item.current != "v0", previews.replay, outcomes.replay, filled=_named,
    ),
    Decision(
        "publish", "replay", "Publish {}", "Publish", Nothing,
        lambda item: item.state == ReplayState.READY, previews.publish, outcomes.publish,
    ),
    Decision(
        "discard", "replay", "Discard {}", "Discard", Nothing,
        lambda item: item.state in OPEN, previews.discard, outcomes.discard, grave=True,
    ),
    Decision(
        "ping", "webhook", "Try out {}", "Send a ping", Nothing,
        lambda item: True, previews.ping, outcomes.ping,
    ),
    Decision(
        "pause", "webhook", "Pause {}", "Pause", Nothing,
        lambda item: item.active, previews.pause, outcomes.pause,
    ),
    Decision(
        "resume", "webhook", "Let {} go on", "Let it go on", Nothing,
        lambda item: not item.active, previews.resume, outcomes.resume,
    ),
    Decision(
        "delete", "webhook", "Delete {}", "Delete", Nothing,
        lambda item: True, previews.delete, outcomes.delete, grave=True,
    ),
    Decision(
        "redeliver", "delivery", "Send {} again", "Send again", Nothing,
        lambda item: item.state not in PENDING, previews.redeliver, outcomes.redeliver,
    ),
)  # fmt: skip

BY_NAME = {(decision.kind, decision.name): decision for decision in DECISIONS}


def offers(
    principal: Principal | None, item: Item, only: Sequence[str] | None = None
) -> list[Offer]:
    """
    Return the links to what a visitor may decide on something, as it is now.

    Args:
        principal: the visitor.
        item: as the API shows it.
        only: the names of the decisions that are asked for; null: all.
    """
    about = subject(item)
    if principal is None or not may(principal, Role.MAINTAINER, about.model or None):
        return []
    found = [
        Offer(f"{about.forms}/{one.name}", one.button, one.grave)
        for one in DECISIONS
        if one.kind == about.kind and (only is None or one.name in only) and one.offered(item)
    ]
    return found if only is not None else found + _beside(about)


def _beside(about: Subject) -> list[Offer]:
    """Return links from one thing to forms about another one."""
    if about.kind == "model":
        hooks = f"/webhooks?{urlencode({'model': about.model})}"
        return [Offer(f"{about.forms}/replays", "Replays"), Offer(hooks, "Webhooks")]
    if isinstance(about.item, Contribution) and about.item.result is not None:
        address = f"/decide/models/{about.model}/replay?without={about.item.id}"
        return [Offer(address, "Replay without it")]
    return []
