"""Policies that can never close, or that contradict themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coldfusion_shared.rounds.limits import KINDS, limits

if TYPE_CHECKING:
    from coldfusion_shared.schemas.models import Policy

# The largest number of contributions that a policy may ask for.
_MOST = 10_000


def contradictions(policy: Policy) -> list[str]:
    """Return a sentence for each contradiction in `policy`."""
    return [*_of_numbers(policy), *_of_shares(policy), *_of_line_search(policy)]


def _of_numbers(policy: Policy) -> list[str]:
    most = _MOST if policy.max_contributions is None else policy.max_contributions
    cases = {
        "max_contributions is smaller than min_contributions": most < policy.min_contributions,
        "max_contributions is smaller than min_contributors": most < policy.min_contributors,
        "by_hand and deadline_seconds contradict each other: what closes only by hand has no "
        "deadline": policy.by_hand and policy.deadline_seconds is not None,
    }
    return [sentence for sentence, wrong in cases.items() if wrong]


def _of_shares(policy: Policy) -> list[str]:
    most = policy.max_contributions
    return [
        f"max_share_per_{limit.kind} needs rounds of {limit.fewest()} contributions, each of "
        f"another {KINDS[limit.kind]}, and a round has {most or _MOST} at most"
        for limit in limits(policy)
        if limit.fewest() > (most or _MOST)
    ]


def _of_line_search(policy: Policy) -> list[str]:
    rates = policy.line_search
    if not rates:
        return []
    cases = {
        "line_search needs two server learning rates at least": len(rates) < 2,
        "line_search has a server learning rate twice": len(set(rates)) < len(rates),
        "line_search needs a gate of kind suite: its scores tell which candidate is the best": (
            policy.gate.kind != "suite"
        ),
        "line_search and server_lr contradict each other: the search sets the rate": (
            policy.server_lr is not None
        ),
    }
    return [sentence for sentence, wrong in cases.items() if wrong]
