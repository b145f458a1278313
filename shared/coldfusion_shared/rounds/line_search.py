"""
Which of several server learning rates is the best, and whether its candidate is published.

The highest of several scores is mostly a little higher than if it were measured again: the gate
sees it as it was measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from coldfusion_shared.rounds.gate import (
    Measurements,
    Reports,
    complete,
    decide,
    too_few,
    too_long,
)
from coldfusion_shared.rounds.measured import mean
from coldfusion_shared.schemas.evaluations import Suite
from coldfusion_shared.schemas.gates import CandidateScore, GateVerdict

if TYPE_CHECKING:
    from coldfusion_shared.schemas.gates import Gate


@dataclass(frozen=True)
class Tried:
    """
    A candidate of one server learning rate.

    Attributes:
        candidate: its id.
        server_lr: the rate.
        relative_norm: norm of its step over the base's norm; null: not known.
        reports: each evaluator's newest one of it, by the gate's suite.
    """

    candidate: str
    server_lr: float
    relative_norm: float | None
    reports: Reports


@dataclass(frozen=True)
class Found:
    """
    What a line search came to.

    Attributes:
        index: of the best candidate; null: it waits, or none is within the limits.
        verdict: what the gate makes of it, with the scores of all.
    """

    index: int | None
    verdict: GateVerdict


def best(rates: Sequence[float], scores: Sequence[float]) -> int:
    """
    Return the index of the highest score; of equal ones, that of the rate nearest to 1.0.

    Args:
        rates: server learning rates, at least one.
        scores: one each, the mean over evaluators, in percent.
    """
    order = range(len(rates))
    return min(order, key=lambda index: (-scores[index], abs(rates[index] - 1.0), rates[index]))


def search(
    gate: Gate,
    tried: Sequence[Tried],
    suite: Suite | None,
    base: Reports,
    *,
    timed_out: bool = False,
) -> Found:
    """
    Choose the best candidate, and return what the gate makes of it.

    Only the evaluators that have measured the base and all candidates choose: each is a little
    higher or lower than the others. A candidate whose step is too long is no choice, and nobody
    needs to measure it. If time is up before enough have measured all, the choice is theirs that
    have. If the best of those fails by their reports, it is rejected; else the policy's
    `on_timeout` holds. If that is to publish, and nobody has measured all, the rate nearest to 1.0
    is taken, if those that measured that one let it pass.

    Args:
        gate: the policy's, of kind suite.
        tried: a candidate of each rate, at least one.
        suite: the gate's; null: it is not registered.
        base: each evaluator's newest report of the base.
        timed_out: whether the time for evaluations is up.
    """
    fitting = [one for one in tried if too_long(gate, one.relative_norm) is None]
    if not fitting:
        verdict = decide(gate, _nearest(tried).relative_norm)
        return Found(None, _recorded(verdict, tried, {}))
    found = [Measurements(suite, base, one.reports, timed_out) for one in fitting]
    common = set.intersection(*(set(complete(gate, one)[0]) for one in found))
    scores = {one.candidate: _score(one, suite, common) for one in fitting}
    notes = _notes(gate, fitting, found)
    few = too_few(gate, suite, len(common), notes, timed_out=timed_out)
    heard = timed_out and (bool(common) or gate.on_timeout == "publish")
    if len(common) < gate.min_evaluators and not heard:
        return Found(None, _recorded(few, tried, scores))
    chosen = _highest(fitting, scores) if common else _nearest(fitting)
    verdict = decide(gate, chosen.relative_norm, _of(chosen, suite, base, common, timed_out))
    if verdict.passed is None:
        few = few.model_copy(update={"evaluators": verdict.evaluators})
        return Found(None, _recorded(few, tried, scores))
    return Found(tried.index(chosen), _recorded(verdict, tried, scores))


def _highest(fitting: Sequence[Tried], scores: Mapping[str, float | None]) -> Tried:
    known = [(one, score) for one in fitting if (score := scores[one.candidate]) is not None]
    rates = [one.server_lr for one, _ in known]
    return known[best(rates, [score for _, score in known])][0]


def _nearest(tried: Sequence[Tried]) -> Tried:
    return tried[best([one.server_lr for one in tried], [0.0] * len(tried))]


def _of(
    chosen: Tried, suite: Suite | None, base: Reports, common: set[str], timed_out: bool
) -> Measurements:
    """Return what those that chose measured; all that was measured, if nobody chose."""
    of_base, of_chosen = (
        {name: report for name, report in reports.items() if name in common or not common}
        for reports in (base, chosen.reports)
    )
    return Measurements(suite, of_base, of_chosen, timed_out)


def _score(one: Tried, suite: Suite | None, common: set[str]) -> float | None:
    """Return the mean over those that have measured all; null: nobody has."""
    if suite is None or not common:
        return None
    names = [entry.name for entry in suite.datasets]
    return fmean(mean(one.reports[name], names) for name in common)


def _notes(gate: Gate, fitting: Sequence[Tried], found: Sequence[Measurements]) -> list[str]:
    """Return what is wanting, each clause once with the rates that it is wanting at."""
    rates: dict[str, list[str]] = {}
    for one, measurements in zip(fitting, found, strict=True):
        for note in complete(gate, measurements)[1]:
            rates.setdefault(note, []).append(f"{one.server_lr:g}")
    return [
        note if len(at) == len(fitting) else f"{note} of rate {', '.join(at)}"
        for note, at in rates.items()
    ]


def _recorded(
    verdict: GateVerdict, tried: Sequence[Tried], scores: Mapping[str, float | None]
) -> GateVerdict:
    line = [
        CandidateScore(
            candidate=one.candidate, server_lr=one.server_lr, score=scores.get(one.candidate)
        )
        for one in tried
    ]
    return verdict.model_copy(update={"line_search": line})
