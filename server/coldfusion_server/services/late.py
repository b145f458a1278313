"""How late a contribution is, and whether its model takes it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from coldfusion_server.db.tables import ModelRow, RoundRow
from coldfusion_server.services import head_moves, rounds
from coldfusion_server.services.lookup import policy_of
from coldfusion_shared.errors import BaseOutdated
from coldfusion_shared.rounds import RoundState
from coldfusion_shared.rounds.lateness import Lateness, distance, factor, too_old
from coldfusion_shared.schemas.contributions import Prospect

ONTO_LATEST = "Your training is not lost: run the same command with --onto latest."


@dataclass(frozen=True)
class Line:
    """
    A model's bases and the round that is to take contributions, read in one transaction.

    Attributes:
        model: the model.
        parents: the tree of its bases, a replay's in the place of those that they stand in for:
            what was made from these is not late because of it.
        places: where each base stands in the tree.
        made_from: the parent of each base as it was published, a replay's bases on their own line.
        head: the base that the next round is fused onto, as far as anybody knows.
        coming: 1 while a round is under way, whose base will then be the head; else 0.
        round: the number of the round that takes what arrives now.
        gated: whether the round under way waits for a gate that may leave the head as it is.
    """

    model: ModelRow
    parents: dict[int, int | None]
    places: dict[int, int]
    made_from: dict[int, int | None]
    head: int
    coming: int
    round: int
    gated: bool = False


def line_of(session: Session, model: ModelRow, newest: RoundRow) -> Line:
    """Return the line as it stands; `newest` is the model's newest round."""
    coming = 0 if newest.state == RoundState.OPEN else 1
    places = head_moves.places(session, model)
    made_from = head_moves.parents(session, model)
    parents = {
        number: None if parent is None else places[parent]
        for number, parent in made_from.items()
        if places[number] == number
    }
    number = newest.number + coming
    gated = _waits_for_gate(model, newest)
    return Line(model, parents, places, made_from, model.current, coming, number, gated)


def _waits_for_gate(model: ModelRow, newest: RoundRow) -> bool:
    """Return whether a suite's gate decides on the round, also where a try to ask it failed."""
    asked = newest.state == RoundState.EVALUATING or (
        newest.state == RoundState.FAILED and newest.evaluating_at is not None
    )
    return asked and rounds.policy_in_force(model, newest).gate.kind == "suite"


def expected(line: Line, base: int) -> Lateness:
    """Return how late what was made from base `base` will be when its round is fused."""
    away = distance(line.parents, line.places[base], line.places[line.head])
    staleness = away + line.coming
    return Lateness(staleness, factor(staleness, policy_of(line.model).staleness_exponent))


def check_in_time(line: Line, base: int) -> None:
    """
    Raise `BaseOutdated` unless the model takes what was made from base number `base`.

    What is too late only if a suite's gate lets the candidate pass is taken: when the round has
    ended it is asked again.
    """
    policy = policy_of(line.model)
    late = expected(line, base)
    if policy.after_rollback == "refuse" and _is_abandoned(line, base):
        raise BaseOutdated(
            f"This was made from v{base}, which the maintainers have gone back from: "
            f"v{line.head} is the base to finetune now.",
            hint=ONTO_LATEST,
        )
    if not too_old(policy, late.staleness):
        return
    if _hangs_on_gate(line, late):
        return
    if line.coming and not too_old(policy, late.staleness - line.coming):
        raise BaseOutdated(
            f"Round {line.round - 1}, which takes what was made from v{line.head}, has closed and "
            "its new base is about to be published.",
            hint=f"{ONTO_LATEST} Wait for the new base first: coldfusion-client watch.",
        )
    limit = f", and at most {policy.max_staleness} behind are taken" if policy.max_staleness else ""
    raise BaseOutdated(
        f"This was made from v{base}, but v{line.head} is the newest base{limit}.",
        hint=ONTO_LATEST,
    )


def _hangs_on_gate(line: Line, late: Lateness) -> bool:
    """Return whether it is too late only if the candidate that waits for its gate passes."""
    policy = policy_of(line.model)
    in_time = not too_old(policy, late.staleness - line.coming)
    return line.gated and line.coming > 0 and in_time and too_old(policy, late.staleness)


def _is_abandoned(line: Line, base: int) -> bool:
    """Return whether the head comes neither from `base` nor from what a replay put in its place."""
    place = line.places[base]
    number: int | None = line.places[line.head]
    while number is not None and number != place:
        number = line.parents[number]
    if number is None:
        return True
    stands: int | None = line.head
    while stands is not None and line.places[stands] != place:
        stands = line.made_from[stands]
    # An older one in its place: the head went back from the replay's line that `base` is of.
    return stands is not None and stands < base


def prospect(line: Line, base: int) -> Prospect:
    """Return what will become of a contribution made from base `base`, as things stand."""
    late = expected(line, base)
    return Prospect(
        round=line.round,
        staleness=late.staleness,
        factor=late.factor,
        sentence=_sentence(line, base, late),
    )


def _sentence(line: Line, base: int, late: Lateness) -> str:
    goes = f"It goes into round {line.round}"
    if line.coming:
        goes += f", which opens when round {line.round - 1} has ended"
    if _hangs_on_gate(line, late):
        return f"{goes}; if its gate lets the candidate pass, this is too late then and refused."
    if not late.staleness:
        return f"{goes}."
    bases = "base" if late.staleness == 1 else "bases"
    where = "away from the head" if _is_abandoned(line, base) else "behind"
    counts = "in full" if late.factor == 1 else f"{late.factor:.2f} times"
    return (
        f"{goes}; made from v{base}, it is {late.staleness} {bases} {where} by then and "
        f"counts {counts}."
    )
