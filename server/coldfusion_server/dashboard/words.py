"""States and rounds in words: colour alone tells nothing to many."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from coldfusion_server.dashboard.formats import change, score
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.rounds import RoundState
from coldfusion_shared.rounds.closing import needed_to_close
from coldfusion_shared.schemas.contributions import Contribution, Effect, Verdict
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
    _C.SET_ASIDE: "wait",
    _C.FUSED: "good",
    _C.WITHDRAWN: "still",
    _C.EXPIRED: "still",
    _R.OPEN: "live",
    _R.CLOSED: "wait",
    _R.FUSING: "wait",
    _R.EVALUATING: "wait",
    _R.PUBLISHED: "good",
    _R.REJECTED: "bad",
    _R.FAILED: "bad",
    _R.CANCELLED: "still",
}

# Of what a screening check found.
TONES_OF_VERDICTS: dict[Verdict, str] = {
    "pass": "good",
    "warn": "wait",
    "quarantine": "wait",
    "reject": "bad",
}

CONTRIBUTION_TEXTS: dict[ContributionState, str] = {
    _C.DECLARED: "announced; its bytes are still to arrive",
    _C.COMPLETED: "all bytes are here; screening is next",
    _C.ACCEPTED: "passed screening; it waits for its round to be fused",
    _C.REJECTED: "not taken; the reason is given",
    _C.QUARANTINED: "in quarantine until a maintainer decides",
    _C.SET_ASIDE: "its round was rejected by the gate; a maintainer may have it fused again",
    _C.FUSED: "part of a published base",
    _C.WITHDRAWN: "taken back by its contributor, or removed by a maintainer",
    _C.EXPIRED: "the upload was not finished in time",
}

ROUND_TEXTS: dict[RoundState, str] = {
    _R.OPEN: "takes contributions",
    _R.CLOSED: "closed; fusing is next",
    _R.FUSING: "the contributions are being fused",
    _R.EVALUATING: "fused; its gate decides whether it is published",
    _R.PUBLISHED: "its base is published",
    _R.REJECTED: "its gate let nothing through; the base stays as it was",
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
    "unknown": ("still", "Not known"),
}

# Of a base that the Repository's own evaluator could not measure: whether it is tried no more.
FAILED = {
    True: "The Repository's own evaluator could not measure {}",
    False: "The Repository's own evaluator has failed to measure {} and tries again",
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
        at: the time that the sentence speaks of; null if it speaks of none.
    """

    needed: int
    sentence: str
    at: datetime | None


def closing(round_: Round, policy: Policy, now: datetime) -> Closing:
    """Say what `round_`, which is open, waits for."""
    needed = needed_to_close(policy)
    overdue = round_.closes_at is not None and round_.closes_at <= now
    at = None if overdue else round_.closes_at
    if policy.by_hand:
        set_to = "" if at is None else " It is set to close"
        return Closing(needed, f"{round_.needs}{set_to}", at)
    if round_.missing:
        more = (round_.needs or "").rstrip(".")
        return Closing(needed, f"{more}, then closes{' at once.' if at is None else ''}", at)
    if at is None:
        return Closing(needed, "Has all that it needs and is about to close.", None)
    limit = policy.max_contributions
    sooner = "" if limit is None else f" as soon as {limit} are accepted, at the latest"
    return Closing(needed, f"Has enough to close. Takes more and closes{sooner}", at)


def lateness(item: Contribution) -> str:
    """Say how late a contribution is, and whether it was moved on; empty: neither."""
    said = []
    if item.carried:
        times = "once" if item.carried == 1 else f"{item.carried} times"
        said.append(f"kept for later: moved on to a later round {times}")
    if item.staleness and item.factor is not None:
        bases = "1 base" if item.staleness == 1 else f"{item.staleness} bases"
        said.append(
            f"made {bases} away from the one it goes onto, so that it counts "
            f"{item.factor:.2f} times"
        )
    return "; ".join(said)


def in_the_fuse(item: Contribution) -> list[tuple[str, str, str]]:
    """Return what a contribution was in its fuse, and did: names, values and what they mean."""
    said = []
    if item.weight is not None:
        said.append(("Weight", f"{item.weight:.4g}", "factor of its update in the fused one"))
    if item.cosine is not None:
        meaning = "between its update and the mean of the round; 1: the same direction"
        said.append(("Cosine", score(item.cosine), meaning))
    if item.norm_ratio is not None:
        said.append(("Length", f"{item.norm_ratio:.2f}", "of its update, over the round’s median"))
    effects = [("Score alone", item.own_effect), ("Score of the round", item.round_effect)]
    said += [_effect(name, found) for name, found in effects if found is not None]
    return said


def _effect(name: str, found: Effect) -> tuple[str, str, str]:
    moved = f"{score(found.base)} \N{RIGHTWARDS ARROW} {score(found.score)}"
    error = "" if found.standard_error is None else f" ± {score(found.standard_error)}"
    return name, moved, f"{change(found.difference)}{error} points on {found.suite}"
