"""Contributions as the screening sees them: measured once, then judged beside any others."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.kept import Kept
from benchmarks.sent import Sent
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.schemas.contributions import Finding, Verdict
from coldfusion_shared.screening import check_parameters, discover
from coldfusion_shared.screening.check import Subject
from coldfusion_shared.screening.hindsight import Member, in_hindsight
from coldfusion_shared.screening.history import Other, Past
from coldfusion_shared.screening.measures import Measures
from coldfusion_shared.screening.screen import Encoded, screen
from coldfusion_shared.screening.sketch import Sketch
from coldfusion_shared.weights.checkpoint import Checkpoint
from coldfusion_shared.weights.header import TensorSpan

# Anybody's: nothing here is a secret.
KEY = bytes(range(32))
# Checks of the measures alone, which can be made again beside any others.
BESIDE = (
    "copies",
    "direction",
    "magnitude",
    "norm",
    "sparsity",
    "tensor_outliers",
    "unrelated",
)
Parameters = Mapping[str, Mapping[str, Any]]
# The verdicts that keep contributions out, by contribution and by check; none: let in.
Alarms = dict[str, dict[str, Verdict]]


@dataclass(frozen=True)
class Seen:
    """
    What one reading of a contribution has shown.

    Attributes:
        name: of the contribution.
        contributor: whose it is.
        encoding: the form that it came in.
        round: number of its round.
        measures: null where its values are not finite, or were not read.
        flagged: findings of the checks that need no others, but for those that pass.
        base: the model folder that it was made from; null: it is never judged.
    """

    name: str
    contributor: str
    encoding: str
    round: int
    measures: Measures | None
    flagged: Sequence[Finding]
    base: Path | None = None

    def other(self, state: ContributionState = ContributionState.ACCEPTED) -> Other | None:
        """Return what the next ones are compared with; null where there is nothing."""
        if self.measures is None:
            return None
        return Other(
            id=self.name,
            contributor=self.contributor,
            round=self.round,
            base="",
            state=state,
            relative_norm=self.measures.relative_norm,
            tensor_norms=self.measures.tensor_norms,
            digest=self.measures.digest,
            sketch=self.measures.sketch,
        )


def see(
    kept: Kept, key: str, sent: Sent, base: Path, name: str, contributor: str, number: int
) -> Seen:
    """
    Read a contribution, or what `kept` has of an earlier reading, under `key`.

    Args:
        kept: results of earlier runs.
        key: says all that the contribution's bytes depend on.
        sent: its files; they need not be there any more where they were read before.
        base: the model folder that it was made from.
        name: of the contribution.
        contributor: whose it is.
        number: of its round.
    """
    known = kept.get(key)
    if known is None:
        known = {"name": name, "encoding": sent.encoding, **_read(sent, base)}
        kept.put(key, known)
    return replace(_seen(known, name, contributor, number), base=base)


def seen_before(kept: Kept, names: str) -> list[Seen]:
    """
    Return all contributions that were read, each of a contributor of its own, in an earlier round.

    Args:
        kept: results of earlier runs.
        names: a regular expression; what it matches wholly is taken.
    """
    # Of one that was read again, the last.
    found = {one["name"]: one for one in kept.values() if re.fullmatch(names, one["name"])}
    return [_seen(known, name, name, -1) for name, known in found.items()]


def _seen(known: Mapping[str, Any], name: str, contributor: str, number: int) -> Seen:
    measures = None
    if known["measures"] is not None:
        measures = Measures.from_json(known["measures"], Sketch.from_text(known["sketch"]))
    flagged = [Finding.model_validate(finding) for finding in known["flagged"]]
    return Seen(name, contributor, known["encoding"], number, measures, flagged)


def _read(sent: Sent, base: Path) -> dict[str, Any]:
    with ExitStack() as stack:
        ours = stack.enter_context(Checkpoint.from_folder(base))
        found = screen(Encoded(sent.encoding, sent.sources(stack)), ours, key=KEY)
    measures = found.measures
    return {
        "measures": None if measures is None else measures.to_json(),
        "sketch": None if measures is None else measures.sketch.to_text(),
        "flagged": [
            finding.model_dump(mode="json")
            for finding in found.findings
            if finding.verdict != "pass" and finding.check not in BESIDE
        ],
    }


def findings(seen: Seen, others: Sequence[Other], parameters: Parameters) -> list[Finding]:
    """
    Return what all checks say of a contribution.

    Args:
        seen: the contribution.
        others: those that it is compared with.
        parameters: of checks, by name; what is not given is the default.
    """
    if seen.measures is None:
        return list(seen.flagged)
    past = past_of(seen, others)
    chosen, registry = check_parameters(parameters), discover()
    spans = {} if seen.base is None else _spans(seen.base)
    subject = Subject(seen.encoding, frozenset(seen.measures.tensor_norms), (), spans)
    made = [registry[name](subject, chosen[name]) for name in BESIDE]
    return [*seen.flagged, *(check.conclude(seen.measures, past) for check in made)]


@cache
def _spans(base: Path) -> dict[str, TensorSpan]:
    with Checkpoint.from_folder(base) as checkpoint:
        return dict(checkpoint.spans())


def past_of(seen: Seen, others: Sequence[Other], *, complete: bool = False) -> Past:
    """Return what a contribution is compared with, on arrival or when its round is complete."""
    return Past(seen.contributor, seen.round, "", others=others, complete=complete)


def alarms(found: Sequence[Finding]) -> dict[str, Verdict]:
    """Return the verdicts that keep a contribution out, by check."""
    return {one.check: one.verdict for one in found if one.verdict in ("quarantine", "reject")}


def judged(arriving: Sequence[Seen], before: Sequence[Seen], parameters: Parameters) -> Alarms:
    """
    Return who is kept out of a round on arrival, and by which checks.

    As on a server each is screened once, when it arrives, beside all that were let in by then, and
    for copies beside those in quarantine, too.

    Args:
        arriving: the round's contributions, in the order of their arrival.
        before: those of earlier rounds that were let in.
        parameters: of checks, by name.
    """
    verdicts: Alarms = {}
    known = [other for one in before if (other := one.other()) is not None]
    for one in arriving:
        verdicts[one.name] = alarms(findings(one, known, parameters))
        state = _state(verdicts[one.name])
        if state is not None and (other := one.other(state)) is not None:
            known.append(other)
    return verdicts


def sticking_out(inside: Sequence[Seen], before: Sequence[Seen], parameters: Parameters) -> Alarms:
    """
    Return whom the look at the whole round takes out again when it closes, and by which checks.

    Args:
        inside: those that were let in on arrival.
        before: those of earlier rounds.
        parameters: of checks, by name.
    """
    members = [
        Member(other, one.measures)
        for one in inside
        if one.measures is not None and (other := one.other()) is not None
    ]
    history = [other for one in before if (other := one.other()) is not None]
    found = in_hindsight(members, history, parameters)
    return {name: out for name, said in found.items() if (out := alarms(said))}


def _state(found: Mapping[str, Verdict]) -> ContributionState | None:
    """Return what becomes of a contribution by its alarms; null: it is forgotten."""
    if "reject" in found.values():
        return None
    return ContributionState.QUARANTINED if found else ContributionState.ACCEPTED
