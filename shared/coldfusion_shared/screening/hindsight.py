"""
A round set beside itself when all of it is there.

On arrival a contribution is compared with earlier rounds, and for copies with everybody: if those
of its own round said what is usual, the first ones would say it of all others. Before the round is
fused, its contributions are set beside each other, by what was measured of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from coldfusion_shared.schemas.contributions import Finding, worst
from coldfusion_shared.screening import check_parameters, discover
from coldfusion_shared.screening.check import Check, Subject
from coldfusion_shared.screening.history import Other, Past
from coldfusion_shared.screening.measures import Measures

# Contributors that a round has to have before most of them can say who is odd.
FEWEST = 5

_NOTHING_READ = Subject("", frozenset(), (), {})


@dataclass(frozen=True)
class Member:
    """
    A contribution that a round is about to fuse.

    Attributes:
        other: it, as the others of its round see it.
        measures: what was measured of it.
        released: whether a maintainer has let it in: it counts for the others, and is not judged.
    """

    other: Other
    measures: Measures
    released: bool = False


def in_hindsight(
    members: Sequence[Member],
    history: Sequence[Other] = (),
    screening: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, list[Finding]]:
    """
    Return what the checks say of those members that stick out of their round, by id.

    Each is set beside one contribution of every other contributor of the round, and the history, by
    all checks with `hindsight`. Those that stick out farthest go first and do not count for the
    others any more, until nobody else sticks out. So the members that stay are the same in whatever
    order they came, and looked at again all of them pass.

    The checks go by medians: as long as at most three of eight are bad, how a good one looks is for
    the good ones to say. Where fewer than `FEWEST` contributors are, or nobody would be left but
    half of them, there is no majority to go by, and nobody sticks out.

    Args:
        members: all that is to be fused, in any order.
        history: what was fused in earlier rounds of the model.
        screening: parameters of checks, by name, as in a model's policy; null: the defaults.

    Returns:
        the findings of all checks with `hindsight`, by id of a member of which one does not pass.
        None of them rejects: who came too late to be asked may not refuse anybody. The member is to
        be quarantined if the worst verdict is that, and remarked upon if it is a warning.

    Raises:
        UnknownName, InvalidRequest: the parameters are wrong.
    """
    checks = _checks(screening or {})
    staying, held = list(members), dict[str, list[Finding]]()
    while _contributors(staying) >= FEWEST:
        found = {one.other.id: _findings(one, staying, history, checks) for one in staying}
        odd = _farthest(found)
        if not odd:
            warned = {name: told for name, told in found.items() if worst(told) == "warn"}
            return {**held, **warned} if _is_majority(staying, members) else {}
        held |= {name: found[name] for name in odd}
        staying = [one for one in staying if one.other.id not in odd]
    return held if _is_majority(staying, members) else {}


def _checks(screening: Mapping[str, Mapping[str, Any]]) -> list[Check]:
    chosen, registry = check_parameters(screening), discover()
    return [
        registry[name](_NOTHING_READ, chosen[name])
        for name in registry
        if registry[name].hindsight and getattr(chosen[name], "enabled", True)
    ]


def _contributors(members: Iterable[Member]) -> int:
    return len({one.other.contributor for one in members})


def _is_majority(staying: Sequence[Member], members: Sequence[Member]) -> bool:
    return 2 * _contributors(staying) > _contributors(members)


def _findings(
    member: Member, members: Sequence[Member], history: Sequence[Other], checks: Sequence[Check]
) -> list[Finding]:
    """Return what all checks say of a member that may be judged; of a released one nothing."""
    if member.released:
        return []
    own = member.other
    others = [*_votes(own, members), *history]
    past = Past(own.contributor, own.round, own.base, others=others, complete=True)
    found = [check.conclude(member.measures, past) for check in checks]
    return [
        one.model_copy(update={"verdict": "quarantine"}) if one.verdict == "reject" else one
        for one in found
    ]


def _farthest(found: Mapping[str, Sequence[Finding]]) -> set[str]:
    """
    Return who lies beyond the limit of a check at least half as far as the farthest one.

    The others may be over it because of those, and are looked at again without them.
    """
    beyond: dict[str, dict[str, float]] = {}
    for name, told in found.items():
        for one in told:
            if one.verdict == "quarantine":
                beyond.setdefault(one.check, {})[name] = _distance(one)
    return {
        name
        for distances in beyond.values()
        for name, distance in distances.items()
        if distance >= max(distances.values()) / 2
    }


def _distance(found: Finding) -> float:
    if found.measured is None or found.limit is None:
        return inf
    return abs(found.measured - found.limit)


def _votes(own: Other, members: Sequence[Member]) -> list[Other]:
    """Return one contribution of each other contributor, or who sends many would be many."""
    chosen: dict[str, Member] = {}
    for one in sorted(members, key=lambda one: (one.measures.digest, one.other.id)):
        chosen.setdefault(one.other.contributor, one)
    return [one.other for name, one in chosen.items() if name != own.contributor]
