"""States and rounds in words: colour alone tells nothing to many."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.rounds import RoundState, needed_to_close
from coldfusion_shared.schemas.models import Policy
from coldfusion_shared.schemas.rounds import Round

_C, _R = ContributionState, RoundState

# The tone picks a colour; the state's own name stands on the badge.
TONES: dict[str, str] = {
    _C.DECLARED: "wait",
    _C.COMPLETED: "wait",
    _C.ACCEPTED: "good",
    _C.REJECTED: "bad",
    _C.QUARANTINED: "wait",
    _C.FUSED: "good",
    _C.WITHDRAWN: "still",
    _C.EXPIRED: "still",
    _R.OPEN: "live",
    _R.CLOSED: "wait",
    _R.FUSING: "wait",
    _R.EVALUATING: "wait",
    _R.PUBLISHED: "good",
    _R.FAILED: "bad",
    _R.CANCELLED: "still",
}

CONTRIBUTION_TEXTS: dict[ContributionState, str] = {
    _C.DECLARED: "announced; its bytes are still to arrive",
    _C.COMPLETED: "all bytes are here; screening is next",
    _C.ACCEPTED: "passed screening; it goes into the next base",
    _C.REJECTED: "not taken; the reason is given",
    _C.QUARANTINED: "set aside until a maintainer decides",
    _C.FUSED: "part of a published base",
    _C.WITHDRAWN: "taken back by its contributor",
    _C.EXPIRED: "the upload was not finished in time",
}

ROUND_TEXTS: dict[RoundState, str] = {
    _R.OPEN: "takes contributions",
    _R.CLOSED: "closed; fusing is next",
    _R.FUSING: "the contributions are being fused",
    _R.EVALUATING: "the candidate is fused and about to be published",
    _R.PUBLISHED: "its base is published",
    _R.REJECTED: "its candidate was not published",
    _R.FAILED: "fusing failed; it is tried again by itself",
    _R.CANCELLED: "cancelled; nothing was published",
}

# Whether the newest base is better than v0: the tone of the answer, and the answer.
ANSWERS: dict[str, tuple[str, str]] = {
    "better": ("good", "Yes"),
    "worse": ("bad", "No"),
    "same": ("still", "The same"),
    "unclear": ("still", "Not measurably"),
    "one seed": ("still", "Not known"),
}

# While these last, numbers move that no event tells of.
MOVING_ROUNDS = (_R.CLOSED, _R.FUSING, _R.EVALUATING)
MOVING_CONTRIBUTIONS = (_C.DECLARED, _C.COMPLETED)


@dataclass(frozen=True)
class Closing:
    """
    What an open round still needs.

    Attributes:
        needed: accepted contributions that it needs to close by itself.
        sentence: what is missing, in words.
        at: the deadline that the sentence speaks of; null if it speaks of none.
    """

    needed: int
    sentence: str
    at: datetime | None


def closing(round_: Round, policy: Policy, now: datetime) -> Closing:
    """Say what `round_`, which is open, waits for."""
    needed = needed_to_close(policy)
    overdue = round_.closes_at is not None and round_.closes_at <= now
    if round_.missing:
        more = f"Needs {round_.missing} more accepted contribution{'s'[: round_.missing != 1]}"
        if round_.closes_at is None or overdue:
            return Closing(needed, f"{more}, then closes at once.", None)
        return Closing(needed, f"{more}, then closes", round_.closes_at)
    if round_.closes_at is None or overdue:
        return Closing(needed, "Has all that it needs and is about to close.", None)
    limit = policy.max_contributions
    sooner = "" if limit is None else f" as soon as {limit} are accepted, at the latest"
    return Closing(needed, f"Has enough to close. Takes more and closes{sooner}", round_.closes_at)
