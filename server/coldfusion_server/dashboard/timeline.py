"""The rounds of a model and the moves of its head in their order, as marks and in words. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median_low
from typing import Literal

from coldfusion_server.dashboard import formats
from coldfusion_server.services.courses import Course, PastRound
from coldfusion_shared.rounds import RoundState
from coldfusion_shared.schemas.gates import EvaluatorVerdict
from coldfusion_shared.schemas.models import HeadMove

Kind = Literal[
    "published", "abandoned", "rejected", "failed", "cancelled", "open", "rollback", "replay"
]
# In the order of a legend: what a mark means, of one and of several.
KINDS: dict[Kind, str] = {
    "published": "published",
    "abandoned": "published, then left behind",
    "rejected": "rejected by the gate",
    "failed": "failed, to be tried again",
    "cancelled": "cancelled",
    "open": "under way",
    "rollback": "rolled back",
    "replay": "replaced by a replay",
}
# What is no round.
_MOVES: tuple[Kind, ...] = ("rollback", "replay")
_ENDED: dict[RoundState, Kind] = {
    RoundState.PUBLISHED: "published",
    RoundState.REJECTED: "rejected",
    RoundState.FAILED: "failed",
    RoundState.CANCELLED: "cancelled",
}


@dataclass(frozen=True)
class Missed:
    """
    By how much a candidate missed its gate.

    Attributes:
        points: lost over what was allowed; null: it was no loss of points that rejected it.
        dataset: which lost them; null: the average did.
        times: how many times as long as allowed its step was; null: it was not too long.
    """

    points: float | None = None
    dataset: str | None = None
    times: float | None = None

    @property
    def text(self) -> str:
        """In words."""
        if self.times is not None:
            return f"its step was {self.times:.3g} times as long as allowed"
        on = "" if self.dataset is None else f" on {formats.printable(self.dataset)}"
        return f"missed by {self.points:.2f} points{on}"

    @property
    def short(self) -> str:
        """In as few letters as stand under a mark."""
        if self.times is not None:
            return f"{self.times:.3g}×"
        return f"{formats.MINUS}{self.points:.2f}"


@dataclass(frozen=True)
class Mark:
    """
    A round, or a move of the head.

    Attributes:
        kind: what became of it.
        at: when it ended, or happened; of what is under way, when it began.
        round: number of the round; null: it is a move.
        move: null: it is a round.
        before: the base that the round went from, or the head before the move.
        after: the base that came of it; null: none did.
        accepted: contributions of the round.
        missed: by how much a rejected candidate missed; null where that is told in words alone.
        reason: why it ended so, as others wrote it.
        label: a few letters to stand under it.
    """

    kind: Kind
    at: datetime
    round: PastRound | None
    move: HeadMove | None
    before: str
    after: str | None
    accepted: int | None
    missed: Missed | None
    reason: str | None
    label: str

    @property
    def name(self) -> str:
        """What it is called."""
        if self.round is not None:
            return f"Round {self.round.number}"
        return "Rollback" if self.kind == "rollback" else "Replay"

    @property
    def state(self) -> str:
        """What became of it, in a word or two."""
        return "under way" if self.round is not None and self.kind == "open" else self.kind

    @property
    def told(self) -> str:
        """All of it, in a line."""
        went = f"{self.before} \N{RIGHTWARDS ARROW} {self.after}" if self.after else self.before
        said = [f"{self.name} {self.state}" if self.round else self.name, went]
        said += [] if self.accepted is None else [formats.count(self.accepted, "contribution")]
        said += [] if self.missed is None else [self.missed.text]
        said += [formats.utc(self.at)]
        return ", ".join(said)


def marks(course: Course) -> list[Mark]:
    """Return what happened, oldest first; what is under way stands at the end."""
    left = {base.number for base in course.bases if not base.on_line}
    rounds = [_of_round(row, left) for row in course.rounds]
    moves = [_of_move(move) for move in course.moves]
    # Before what is older, nothing is known of the rounds.
    since = course.rounds[0].opened_at if course.rounds else None
    found = [*rounds, *(mark for mark in moves if since is not None and mark.at >= since)]
    # A round that a move cancels ends at the same moment: first the move's cause, then its effect.
    return sorted(found, key=lambda mark: (mark.kind == "open", mark.at, mark.round is None))


def summary(found: Sequence[Mark]) -> str:
    """Return how many there are of each kind, in a sentence."""
    counted = Counter(mark.kind for mark in found)
    rounds = sum(mark.round is not None for mark in found)
    said = [
        f"{counted[kind]} {meaning}"
        for kind, meaning in KINDS.items()
        if counted[kind] and kind not in _MOVES
    ]
    moved = [formats.count(counted[kind], kind) for kind in _MOVES if counted[kind]]
    between = f" Between them {' and '.join(moved)}." if moved else ""
    return f"{formats.count(rounds, 'round')}: {'; '.join(said)}.{between}"


def missed(row: PastRound) -> Missed | None:
    """Return by how much a round's candidate missed its gate; null: nothing says so in numbers."""
    verdict, limit = row.verdict, row.max_relative_norm
    if verdict is None or verdict.passed is not False:
        return None
    norm = verdict.relative_norm
    if limit is not None and norm is not None and norm > limit:
        return Missed(times=norm / limit)
    losses = [found for one in verdict.evaluators if not one.passed and (found := _lost(one))]
    if not losses:
        return None
    # Of several evaluators, the one in the middle.
    middle = median_low(points for points, _ in losses)
    return next(Missed(points, name) for points, name in losses if points == middle)


def _lost(verdict: EvaluatorVerdict) -> tuple[float, str | None] | None:
    """Return by how many points it lost more than it might, and where; on average before all."""
    over = -verdict.difference - verdict.allowed_loss
    if over > 0:
        return over, None
    single = [
        (verdict.losses[name] - allowed, name)
        for name, allowed in verdict.allowed_losses.items()
        if verdict.losses[name] > allowed
    ]
    return max(single, default=None)


def _of_round(row: PastRound, left: set[int]) -> Mark:
    kind = _ENDED.get(row.state, "open")
    if kind == "published" and row.result in left:
        kind = "abandoned"
    after = None if row.result is None else f"v{row.result}"
    over = missed(row) if kind == "rejected" else None
    labels = {"rejected": over.short if over else "", "open": "now"}
    return Mark(
        kind=kind,
        at=row.finished_at or row.opened_at,
        round=row,
        move=None,
        before=f"v{row.base}",
        after=after,
        accepted=row.accepted,
        missed=over,
        reason=row.reason,
        label=labels.get(kind, after or ""),
    )


def _of_move(move: HeadMove) -> Mark:
    return Mark(
        kind="rollback" if move.kind == "rollback" else "replay",
        at=move.at,
        round=None,
        move=move,
        before=move.before or move.after,
        after=move.after,
        accepted=None,
        missed=None,
        reason=move.reason,
        label=f"to {move.after}",
    )
