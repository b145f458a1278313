"""
Whether a candidate is published: its step's length, and what evaluators measured of it.

By an evaluator's reports a candidate passes if its mean score has lost no more beside the base's
than the tolerance and, for what may be chance, `noise` standard errors of the difference; see
`measured` for those. The same holds for every data set by itself, with its own error, where the
policy limits its loss. Of several evaluators that have measured both, more than half must let it
pass. A report that lacks a data set of the suite tells nothing of it, so it does not count at all.
Noise allows `max_noise` points at most, whatever errors are told.

How often a gate by one evaluator's report is wrong, in percent, with noise 1 and tolerance 0, where
accuracies of 80 percent over 400 examples vary by 2.2 points from seed to seed, and base and
candidate mostly together (by simulation, see the tests): a harmless candidate is rejected, and one
that loses 3 or 6 points on every data set passes.

| data sets | seeds | harmless, rejected | loss of 3, passes | loss of 6, passes |
|---|---|---|---|---|
| 1 | 2 | 2 | 50 | 2 |
| 1 | 3 | 2 | 46 | 2 |
| 1 | 5 | 3 | 46 | 1 |
| 4 | 2 | 3 | 3 | 0 |
| 4 | 3 | 2 | 2 | 0 |
| 4 | 5 | 2 | 1 | 0 |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coldfusion_shared.rounds.measured import (
    Report,
    absent,
    error_of_mean,
    mean,
    mean_flips,
    variances_of_differences,
    with_flips,
)
from coldfusion_shared.schemas.evaluations import Suite
from coldfusion_shared.schemas.gates import EvaluatorVerdict, GateVerdict

if TYPE_CHECKING:
    from coldfusion_shared.schemas.gates import Gate

# Points: 84.2 less 83.7 is 0.5, whatever comes of it in binary.
_ROUNDING = 1e-9
# More is not told of who is waited for.
_MOST_NOTES = 5

# An evaluator's newest report, by the evaluator's name.
Reports = Mapping[str, Report]


@dataclass(frozen=True)
class Measurements:
    """
    What evaluators reported of a candidate and its base, by the gate's suite, protocol frozen.

    Attributes:
        suite: that both were measured by; null: it is not registered.
        base: each evaluator's newest report.
        candidate: likewise.
        timed_out: whether the time for evaluations is up.
    """

    suite: Suite | None
    base: Reports
    candidate: Reports
    timed_out: bool = False


def decide(
    gate: Gate, relative_norm: float | None, measurements: Measurements | None = None
) -> GateVerdict:
    """
    Return what becomes of a candidate; `passed` is null while it waits for evaluators.

    Args:
        gate: the policy's.
        relative_norm: norm of the candidate's step over the base's norm; null: not known.
        measurements: of the candidate and its base; only a gate of kind suite looks at them.
    """
    if fault := too_long(gate, relative_norm):
        return GateVerdict(
            kind=gate.kind,
            passed=False,
            reason=fault,
            relative_norm=relative_norm,
            suite=gate.suite,
        )
    if gate.kind == "suite":
        found = measurements or Measurements(None, {}, {})
        return _by_suite(gate, found).model_copy(update={"relative_norm": relative_norm})
    reason = "The policy has no gate."
    if gate.max_relative_norm is not None:
        reason = f"The step is {relative_norm:.4g} of the base's norm, {_allowed_norm(gate)}."
    return GateVerdict(kind=gate.kind, passed=True, reason=reason, relative_norm=relative_norm)


def too_long(gate: Gate, relative_norm: float | None) -> str | None:
    """Return a sentence if a candidate's step is longer than the gate allows; else null."""
    if gate.max_relative_norm is None:
        return None
    if relative_norm is None:
        return "The norm of the step is not known, and the policy limits it."
    # Not a number is no number that is allowed.
    if relative_norm <= gate.max_relative_norm:
        return None
    return f"The step is {relative_norm:.4g} of the base's norm, {_allowed_norm(gate)}."


def complete(gate: Gate, found: Measurements) -> tuple[list[str], list[str]]:
    """Return those who have measured both, by name, and what the others lack, a clause each."""
    if found.suite is None:
        return [], [f"the suite {gate.suite!r} is not registered"]
    both, notes = [], []
    for name in sorted(found.base.keys() | found.candidate.keys()):
        if note := _lacking(gate, found.suite, found.base.get(name), found.candidate.get(name)):
            notes.append(f"{name} {note}")
        else:
            both.append(name)
    return both, notes


def too_few(
    gate: Gate, suite: Suite | None, have: int, notes: Sequence[str], *, timed_out: bool
) -> GateVerdict:
    """
    Return what becomes of a candidate that fewer evaluators have measured than must.

    Args:
        gate: the policy's.
        suite: the gate's; null: it is not registered.
        have: how many evaluators have measured all that is compared.
        notes: what the others lack, a clause each.
        timed_out: whether the time for evaluations is up.
    """
    end = {"wait": "goes on waiting", "reject": "rejects then", "publish": "publishes then"}
    passed = {"wait": None, "reject": False, "publish": True}[gate.on_timeout]
    text = f"{have} of {gate.min_evaluators} evaluators have measured all that is compared"
    if timed_out:
        began = f"The time for evaluations is up, and the policy {end[gate.on_timeout]}: {text}"
    else:
        began, passed = f"Waits for evaluations by the suite {gate.suite!r}: {text}", None
    return _verdict(gate, suite, passed, "; ".join([began, *_few(notes)]) + ".", [])


def _by_suite(gate: Gate, found: Measurements) -> GateVerdict:
    both, notes = complete(gate, found)
    if found.suite is None:
        return too_few(gate, None, 0, notes, timed_out=found.timed_out)
    verdicts = [
        _judged(gate, name, found.suite, found.base[name], found.candidate[name]) for name in both
    ]
    enough = len(both) >= gate.min_evaluators
    if enough or (found.timed_out and both):
        passed, reason = _by_majority(gate, verdicts)
        if not enough:
            reason += f" The time is up, and {gate.min_evaluators} evaluators were to measure it."
        # Too few to publish it are enough to reject it, when time is up.
        if enough or not passed:
            return _verdict(gate, found.suite, passed, reason, verdicts)
    verdict = too_few(gate, found.suite, len(both), notes, timed_out=found.timed_out)
    return verdict.model_copy(update={"evaluators": verdicts})


def _verdict(
    gate: Gate,
    suite: Suite | None,
    passed: bool | None,
    reason: str,
    evaluators: list[EvaluatorVerdict],
) -> GateVerdict:
    return GateVerdict(
        kind=gate.kind,
        passed=passed,
        reason=reason,
        suite=gate.suite,
        suite_digest=None if suite is None else suite.digest(),
        evaluators=evaluators,
    )


def _by_majority(gate: Gate, verdicts: Sequence[EvaluatorVerdict]) -> tuple[bool, str]:
    passing = sum(verdict.passed for verdict in verdicts)
    passed = 2 * passing > len(verdicts)
    told = [
        f"by {verdict.evaluator}'s measurement {verdict.reason or _gain(verdict)}"
        for verdict in verdicts
    ]
    if len(verdicts) == 1:
        reason = f"{told[0][0].upper()}{told[0][1:]}."
    else:
        end = "" if passed else ", and more than half must"
        reason = f"{passing} of {len(verdicts)} evaluators let it pass{end}: {'; '.join(told)}."
    unknown = [one.evaluator for one in verdicts if one.standard_error is None]
    if unknown and gate.noise:
        names = ", ".join(unknown)
        reason += f" Reports of {names} tell no errors, so only the tolerance counts for those."
    return passed, reason


def _judged(
    gate: Gate, evaluator: str, suite: Suite, base: Report, candidate: Report
) -> EvaluatorVerdict:
    names = [entry.name for entry in suite.datasets]
    variances = variances_of_differences(suite, base, candidate)
    error, flips = error_of_mean([*variances.values()]), mean_flips(candidate, names)
    before, after = mean(base, names), mean(candidate, names)
    allowed = gate.tolerance + _noise(gate, error)
    losses = {name: base.scores[name] - candidate.scores[name] for name in names}
    errors = {name: found**0.5 for name, found in variances.items() if found is not None}
    limits = _limits(gate, names, errors)
    faults = [
        *_lost("the mean score", before - after, allowed),
        *(fault for name in limits for fault in _lost(repr(name), losses[name], limits[name])),
        *_flipped(gate, flips),
    ]
    return EvaluatorVerdict(
        evaluator=evaluator,
        passed=not faults,
        reason=" and ".join(faults) or None,
        base=before,
        candidate=after,
        difference=after - before,
        standard_error=error,
        standard_errors=errors,
        allowed_loss=allowed,
        losses=losses,
        allowed_losses=limits,
        negative_flips=flips,
    )


def _lost(what: str, loss: float, allowed: float) -> list[str]:
    if loss <= allowed + _ROUNDING:
        return []
    return [f"{what} lost {loss:.2f} points ({allowed:.2f} are allowed)"]


def _noise(gate: Gate, error: float | None) -> float:
    """Return how many points may be lost by chance."""
    return min(gate.noise * (error or 0.0), gate.max_noise)


def _limits(gate: Gate, names: Sequence[str], errors: Mapping[str, float]) -> dict[str, float]:
    """Return how many points each data set may lose; empty: as many as it likes."""
    if gate.max_dataset_loss is None:
        return {}
    return {name: gate.max_dataset_loss + _noise(gate, errors.get(name)) for name in names}


def _flipped(gate: Gate, flips: float | None) -> list[str]:
    if gate.max_negative_flips is None:
        return []
    if flips is None:
        return [
            "negative flips are not known, as no data set's examples are plainly right or wrong"
        ]
    if flips <= gate.max_negative_flips + _ROUNDING:
        return []
    return [
        f"{flips:.2f} percent of the test examples turned from right to wrong "
        f"({gate.max_negative_flips:.2f} are allowed)"
    ]


def _lacking(gate: Gate, suite: Suite, base: Report | None, candidate: Report | None) -> str | None:
    """Return what is wanting in an evaluator's two reports; null: nothing."""
    if candidate is None:
        return "has not measured the candidate"
    if base is None:
        return "has not measured the base"
    names = [entry.name for entry in suite.datasets]
    if lost := absent(base, names):
        return f"has no score of the base on {_named(lost)}"
    if lost := absent(candidate, [*names, *sorted(base.scores.keys() - set(names))]):
        return f"has no score of the candidate on {_named(lost)}"
    limited = gate.max_negative_flips is not None
    if limited and (
        lost := [one for one in with_flips(suite) if one not in candidate.negative_flips]
    ):
        return f"has told no negative flips of {_named(lost)}"
    return None


def _gain(verdict: EvaluatorVerdict) -> str:
    # Zero has no minus.
    points = round(verdict.difference, 2) + 0.0
    return (
        f"the mean score changed by {points:+.2f} points (a loss of {verdict.allowed_loss:.2f} is "
        "allowed)"
    )


def _allowed_norm(gate: Gate) -> str:
    return f"{gate.max_relative_norm:.4g} is allowed"


def _named(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (f" and {len(names) - 3} more" if names[3:] else "")


def _few(notes: Sequence[str]) -> list[str]:
    return [*notes[:_MOST_NOTES], *(["and others"] if notes[_MOST_NOTES:] else [])]
