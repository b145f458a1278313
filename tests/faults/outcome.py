"""What must hold of a Repository when all has come to rest, whatever happened to its processes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Any, TypeVar

from coldfusion_shared import contributions, rounds
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.rounds import ENDS, RoundState
from coldfusion_shared.schemas.bases import Manifest
from tests.faults.fleet import Fleet
from tests.server.repository import MODEL

S = TypeVar("S", bound=StrEnum)
Json = dict[str, Any]
WAITING = ("declared", "completed", "quarantined", "accepted")


def check_outcome(fleet: Fleet, told: Iterable[str]) -> Counter[str]:
    """
    Check everything that the API and `coldfusion-server verify` tell.

    Args:
        fleet: with its API running, and nothing left to do.
        told: ids of contributions that somebody was told of.

    Returns:
        how many rounds and contributions ended how.
    """
    opened, bases = fleet.listed(fleet.model("/rounds")), fleet.listed(fleet.model("/bases"))
    sent = fleet.listed(fleet.model("/contributions"))
    _check_rounds(opened, fleet.get(fleet.model()))
    _check_bases(bases, opened)
    _check_contributions(sent, bases)
    _check_events(_events(fleet), opened, bases, sent)
    # What was answered before a kill is there after it.
    assert set(told) <= {one["id"] for one in sent}
    _check_verified(fleet, len(bases))
    rounds_over = Counter(f"rounds {one['state']}" for one in opened[:-1])
    return rounds_over + Counter(f"contributions {one['state']}" for one in sent)


def _events(fleet: Fleet) -> list[Json]:
    found: list[Json] = []
    while page := fleet.get("/events", after=found[-1]["id"] if found else 0, limit=500):
        found += page
    return found


def _check_rounds(opened: list[Json], model: Json) -> None:
    """One is open, on the head; all before it have ended, and say how."""
    assert [one["number"] for one in opened] == list(range(1, len(opened) + 1))
    *over, last = opened
    assert (last["state"], last["base"]) == (RoundState.OPEN, model["current"]), last
    for one in over:
        assert one["state"] in ENDS, one
        assert one["result"] if one["state"] == RoundState.PUBLISHED else one["reason"], one


def _check_bases(bases: list[Json], opened: list[Json]) -> None:
    """Each comes from the one before, but for the first of a replay; a round of its own made it."""
    assert [base["version"] for base in bases] == [f"v{number}" for number in range(len(bases))]
    digests = {base["version"]: base["digest"] for base in bases}
    made_by = {one["result"]: one["number"] for one in opened if one["result"] is not None}
    fused = dict[str, int]()
    for before, base in zip(bases, bases[1:], strict=False):
        manifest = Manifest.model_validate(base["manifest"])
        assert manifest.digest() == base["digest"]
        assert manifest.parent is not None and manifest.round is not None
        assert digests[manifest.parent.version] == manifest.parent.digest
        if manifest.replays is None:
            assert manifest.parent.version == before["version"]
            fused[manifest.version] = manifest.round
    assert fused == made_by


def _check_contributions(sent: list[Json], bases: list[Json]) -> None:
    """Each is in one base, or in none and its reason says why; nothing waits for anything."""
    manifests = [Manifest.model_validate(base["manifest"]) for base in bases]
    fused = [
        (item.id, manifest.version)
        for manifest in manifests
        if manifest.replays is None
        for item in manifest.contributions
    ]
    fused_in = dict(fused)
    assert len(fused_in) == len(fused)
    for one in sent:
        assert one["result"] == fused_in.pop(one["id"], None), one
        assert one["state"] not in WAITING, one
        assert one["result"] if one["state"] == ContributionState.FUSED else one["reason"], one
    assert not fused_in


def _check_events(
    events: list[Json], opened: list[Json], bases: list[Json], sent: list[Json]
) -> None:
    """Each change was told once, in the order in which it happened."""
    assert [event["id"] for event in events] == sorted({event["id"] for event in events})
    published = [event["data"] for event in events if event["type"] == "base.published"]
    assert [(one["version"], one["digest"]) for one in published] == [
        (base["version"], base["digest"]) for base in bases
    ]
    ways = _ways(events)
    for one in opened:
        first, *way = ways.pop(("round", one["number"]))
        assert first == "opened"
        _check_way([RoundState.OPEN, *map(RoundState, way)], one["state"], rounds.check_transition)
    for one in sent:
        states = [ContributionState(state) for state in ways.pop(("contribution", one["id"]))]
        assert states[0] == ContributionState.DECLARED
        _check_way(states, one["state"], contributions.check_transition)
    assert not ways


def _ways(events: list[Json]) -> dict[tuple[str, Any], list[str]]:
    """Return the states of each round, by its number, and of each contribution, by its id."""
    states = {"round": {"opened", *RoundState}, "contribution": set(ContributionState)}
    found: dict[tuple[str, Any], list[str]] = defaultdict(list)
    for event in events:
        what, state = event["type"].split(".", 1)
        # Other things are told of them, too.
        if state in states.get(what, ()):
            found[what, event["data"][what]].append(state)
    return found


def _check_way(states: list[S], last: str, check: Callable[[S, S], None]) -> None:
    for before, after in zip(states, states[1:], strict=False):
        check(before, after)
    assert states[-1] == last


def _check_verified(fleet: Fleet, count: int) -> None:
    """Every object is there, and every base is what comes out when it is fused again."""
    verify = fleet.program("verify", "verify", MODEL, "--all")
    verify.start()
    status, said = verify.ended(), verify.log.read_text()
    fleet.programs.remove(verify)
    assert status == 0 and f"All is well with {count} base" in said, said
