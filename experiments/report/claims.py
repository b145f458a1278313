"""What the paper says, and what a run of ours says to it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from experiments.records import Group, Record
from experiments.report.finished import Finished

Verdict = Literal["agrees", "not shown", "contradicts", "not measured"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Claim(_Part):
    """One thing that the paper has found."""

    text: str
    arm: str
    against: str
    scoring: str
    group: Group
    points: Annotated[float | None, Field(description="the paper's; null: it gives none")] = None
    expects: Literal["higher", "alike"]


class Experiment(_Part):
    """One experiment of the paper."""

    setting: str
    claims: list[Claim]


@dataclass(frozen=True)
class Judged:
    """
    A claim and what a run has to say to it.

    Attributes:
        claim: the paper's.
        found: our difference; null: it was not measured.
        verdict: what is to be said.
        text: the same, with how far we are from the paper's figure.
    """

    claim: Claim
    found: Record | None
    verdict: Verdict
    text: str


def experiment_of(protocol: str) -> Experiment | None:
    """Return the paper's experiment that a protocol repeats; null: the protocol is our own."""
    text = (files(__package__ or "experiments.report") / "paper.yaml").read_text(encoding="utf-8")
    found = yaml.safe_load(text).get(protocol)
    return None if found is None else Experiment.model_validate(found)


def judged(finished: Finished) -> list[Judged]:
    """Return what a run says to each claim of its protocol."""
    experiment = experiment_of(finished.run.protocol)
    return [_judged(finished, claim) for claim in experiment.claims] if experiment else []


def _judged(finished: Finished, claim: Claim) -> Judged:
    swept = [arm for arm in finished.arms if arm != finished.reference]
    ends = {"first": swept[0], "last": swept[-1]} if swept else {}
    arm, against = (ends.get(name, name) for name in (claim.arm, claim.against))
    found = finished.difference(arm, against, claim.scoring, claim.group)
    turned = False
    if found is None:
        # Of a sweep's ends one difference is enough.
        found, turned = finished.difference(against, arm, claim.scoring, claim.group), True
    if found is None or found.value is None:
        return Judged(claim, None, "not measured", "not measured")
    if turned:
        found = _turned(found)
    verdict = _verdict(claim, found)
    return Judged(claim, found, verdict, verdict + _distance(claim, found))


def _turned(found: Record) -> Record:
    low, high = (None if one is None else -one for one in (found.high, found.low))
    value = None if found.value is None else -found.value
    return found.model_copy(update={"value": value, "low": low, "high": high})


def _verdict(claim: Claim, found: Record) -> Verdict:
    if found.low is None or found.high is None:
        return "not shown"
    if claim.expects == "alike":
        return "agrees" if found.low <= 0 <= found.high else "contradicts"
    if found.low > 0:
        return "agrees"
    return "contradicts" if found.high < 0 else "not shown"


def _distance(claim: Claim, found: Record) -> str:
    if claim.points is None or found.value is None:
        return ""
    missing = claim.points - found.value
    if missing > 0:
        return f"; {missing:.2f} points below the paper's figure"
    return "; the paper's figure is reached"
