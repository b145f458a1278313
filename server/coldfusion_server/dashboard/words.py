"""States and rounds in words: colour alone tells nothing to many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import fmean

from coldfusion_server.dashboard.formats import change, count, score
from coldfusion_server.services.tallying import Tally
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.replays import ReplayState
from coldfusion_shared.rounds import RoundState
from coldfusion_shared.rounds.closing import needed_to_close
from coldfusion_shared.schemas.contributions import (
    VERDICTS,
    Contribution,
    Effect,
    Finding,
    Verdict,
)
from coldfusion_shared.schemas.contributors import Usefulness
from coldfusion_shared.schemas.models import Policy
from coldfusion_shared.schemas.rounds import Round
from coldfusion_shared.schemas.usage import OwnUsage
from coldfusion_shared.schemas.waiting import Waiting, WaitingItem, WaitingKind
from coldfusion_shared.webhooks import DeliveryState

_C, _R, _P = ContributionState, RoundState, ReplayState

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
    _P.QUEUED: "wait",
    _P.RUNNING: "wait",
    _P.READY: "live",
    _P.DISCARDED: "still",
    DeliveryState.WAITING: "wait",
    DeliveryState.FAILED: "bad",
    DeliveryState.DELIVERED: "good",
    DeliveryState.GIVEN_UP: "bad",
}

# Of what a screening check found.
TONES_OF_VERDICTS: dict[Verdict, str] = {
    "pass": "good",
    "warn": "wait",
    "quarantine": "wait",
    "reject": "bad",
}

# What passed where there is room for a letter, and the shapes of the others.
PASSED = "\N{CHECK MARK}"
MARKS: dict[Verdict, str] = {
    "warn": "\N{BLACK UP-POINTING TRIANGLE}",
    "quarantine": "\N{BLACK DIAMOND}",
    "reject": "\N{MULTIPLICATION SIGN}",
}
OBJECTED: dict[Verdict, str] = {
    "warn": "warned",
    "quarantine": "asked for a maintainer",
    "reject": "refused it",
}

# A round's contributions counted, in the order in which they are told.
TALLIED: dict[ContributionState, str] = {
    _C.ACCEPTED: "accepted",
    _C.FUSED: "fused",
    _C.SET_ASIDE: "set aside",
    _C.DECLARED: "uploading",
    _C.COMPLETED: "screening",
    _C.QUARANTINED: "in quarantine",
    _C.REJECTED: "rejected",
    _C.WITHDRAWN: "withdrawn",
    _C.EXPIRED: "given up",
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

# To its contributor; where a reason is given, its hint stands before this.
NEXT_STEPS: dict[ContributionState, str] = {
    _C.DECLARED: "let the upload go on; if it broke off, run the same command again.",
    _C.COMPLETED: "nothing, screening takes a moment; look here again.",
    _C.ACCEPTED: "nothing, it waits for its round; until that closes you can take it back.",
    _C.REJECTED: "read the reason above, mend it and contribute again from the newest base.",
    _C.QUARANTINED: "wait for a maintainer, or take it back and send a better one.",
    _C.SET_ASIDE: "wait for a maintainer, or finetune from the newest base and send that.",
    _C.FUSED: "pull the newest base and finetune from that one.",
    _C.WITHDRAWN: "contribute again from the newest base.",
    _C.EXPIRED: "send it again with the same command.",
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

# What waits for a maintainer: its tone, and what it is.
WAITING: dict[WaitingKind, tuple[str, str]] = {
    "quarantine": ("wait", "in quarantine"),
    "set_aside": ("wait", "set aside"),
    "gate": ("wait", "not measured in time"),
    "failed": ("bad", "round failed"),
    "idle": ("bad", "nothing works on it"),
    "lacking": ("wait", "due, and lacks something"),
    "by_hand": ("wait", "ready to close"),
    "replay": ("wait", "replay to review"),
    "replay_failed": ("bad", "replay failed"),
    "evaluation": ("bad", "evaluation given up"),
    "webhook": ("bad", "webhook paused"),
}
# What waits for work, on the page of the Repository's health.
QUEUES: dict[str, str] = {
    "uploading": "Uploads on their way",
    "screening": "Screening",
    "fusing": "Fusing",
    "gates": "Evaluations for a gate",
    "replays": "Replays",
    "webhooks": "Sending to webhooks",
}
# So many stand in the list at once: below it are the models.
WAITING_SHOWN = 4

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


def states(found: Mapping[ContributionState, int]) -> list[tuple[str, int, str]]:
    """Say how many contributions are in each state: tones, numbers above 0 and words."""
    return tally(Tally(found, 0))


def effects(found: Sequence[Usefulness]) -> str:
    """Say in a sentence what the contributions did alone, of which that was measured."""
    points = [one.own_effect.difference for one in found if one.own_effect is not None]
    better = sum(one > 0 for one in points)
    return (
        f"Measured alone, {better} of {len(points):,} made its base better; on average "
        f"{change(fmean(points))} points."
    )


def quotas(found: OwnUsage) -> list[tuple[str, int, int | None, str]]:
    """Say what is used of each quota: a label, how much, how much may be (null: any), its kind."""
    stored = found.kept_bytes + found.unfinished_bytes
    return [
        ("Stored and on the way", stored, found.quota_bytes, "bytes"),
        ("Unfinished uploads", found.uploads, found.quota_uploads, "number"),
        ("Declared in 24 hours", found.day_contributions, found.quota_day, "number"),
        ("Bytes of those", found.day_bytes, found.quota_day_bytes, "bytes"),
    ]


def cosines(found: Sequence[Usefulness]) -> list[tuple[str, float]]:
    """Return the cosines with their rounds that are known, oldest first, and what they are of."""
    return [
        (f"{one.model}, round {one.round}", one.cosine)
        for one in reversed(found)
        if one.cosine is not None
    ]


def tally(found: Tally) -> list[tuple[str, int, str]]:
    """Say how many contributions there are of which kind: tones, numbers above 0 and words."""
    said = [(TONES[state], found.states.get(state, 0), what) for state, what in TALLIED.items()]
    said.append(("wait", found.late, "late"))
    return [one for one in said if one[1]]


def checks(findings: Sequence[Finding]) -> str:
    """Say how many checks came to which verdict: ``7 checks passed, 1 warned``."""
    counts = {verdict: sum(f.verdict == verdict for f in findings) for verdict in VERDICTS}
    passed = f"{count(counts.pop('pass'), 'check')} passed"
    others = [f"{number} {OBJECTED[verdict]}" for verdict, number in counts.items() if number]
    return ", ".join([passed, *others])


def by_check(findings: Sequence[Finding]) -> dict[str, Finding]:
    """Return the findings by the name of their check."""
    return {finding.check: finding for finding in findings}


def counted(item: Contribution) -> str:
    """Say what a contribution counts in its fuse; empty: it was not fused, or has no weight."""
    if item.weight is None:
        return ""
    return f"weight {item.weight:.4g} in the fuse"


def among(own: float, others: Sequence[float]) -> str:
    """Say where a value stands among the others of its round, to follow it."""
    if not others:
        return ", the only one that is known"
    above = sum(one > own for one in others)
    return f"; of {count(len(others), 'other')} {above} {'is' if above == 1 else 'are'} larger"


def next_step(item: Contribution) -> str:
    """Say to a contributor what can be done next about a contribution."""
    return NEXT_STEPS[item.state]


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


def spread(items: Sequence[WaitingItem]) -> list[WaitingItem]:
    """Return the items with one of each model and kind first: a hundred alike hide no other."""
    first: dict[tuple[str, WaitingKind], WaitingItem] = {}
    for item in items:
        first.setdefault((item.model, item.kind), item)
    heads = list(first.values())
    return heads + [item for item in items if item not in heads]


def all_waiting(found: Waiting) -> int:
    """Return how much waits in the models that there are items of, those that are not told too."""
    told = {item.model for item in found.items}
    return sum(sum(one.counts.values()) for one in found.models if one.model in told)


def subject(item: WaitingItem) -> str:
    """Return what waits, as its page is called."""
    nouns: dict[WaitingKind, str] = {
        "quarantine": "contribution ",
        "replay": "replay ",
        "replay_failed": "replay ",
        "evaluation": "",
        "webhook": "webhook ",
    }
    return f"{nouns.get(item.kind, 'round ')}{item.subject}"
