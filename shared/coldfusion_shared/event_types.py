"""All types of events, as they stand in an event and in the patterns of a webhook. Data."""

from __future__ import annotations

from fnmatch import fnmatchcase

from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.replays import ReplayState
from coldfusion_shared.rounds import RoundState

EVENT_TYPES: tuple[str, ...] = (
    "model.created",
    "model.policy",
    "model.rolled_back",
    "model.replayed",
    "base.published",
    "base.measured",
    "evaluation.posted",
    "evaluation.failed",
    "evaluation.requested",
    "suite.registered",
    "round.opened",
    "round.scheduled",
    *(f"round.{state}" for state in RoundState if state != RoundState.OPEN),
    *(f"contribution.{state}" for state in ContributionState),
    *(f"replay.{state}" for state in ReplayState),
    *(f"contribution.{what}" for what in ("kept", "carried", "measured", "rebased", "erased")),
    "webhook.paused",
)
# Of a stream alone: what a watcher resumed from is not there any more.
RESET = "events.reset"
# Of webhooks alone: a maintainer tries one out.
PING = "webhook.ping"


def fits(pattern: str, kind: str) -> bool:
    """Return whether a type of events is one that a pattern such as ``base.*`` means."""
    return fnmatchcase(kind, pattern)


def fitting(pattern: str) -> list[str]:
    """Return all types that a pattern means."""
    return [kind for kind in EVENT_TYPES if fits(pattern, kind)]
