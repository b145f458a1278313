"""What the paper says, and what a run of ours says to it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from coldfusion_shared.evaluate.statistics import CONFIDENCE
from experiments.records import Group, Record
from experiments.report.finished import Finished

Verdict = Literal["agrees", "not shown", "contradicts", "not measured"]
# What lies between two bases that are called alike, in points to either side, at most.
ALIKE = 1.0
# The share of data sets that gain by chance, in percent.
EVEN = 50.0


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
    share: Annotated[float | None, Field(description="the paper's, in percent; of most")] = None
    expects: Literal["higher", "alike", "most"]


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
        found: our difference, or share of the data sets; null: it was not measured.
        verdict: what is to be said.
        text: the same, with how far we are from the paper's figure, and of which seeds it is.
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
    found = _share(finished, claim) if claim.expects == "most" else _difference(finished, claim)
    if found is None or found.value is None:
        return Judged(claim, None, "not measured", "not measured")
    verdict = _verdict(claim, found)
    told = (verdict, _distance(claim, found), found.note)
    return Judged(claim, found, verdict, "; ".join(one for one in told if one))


def _difference(finished: Finished, claim: Claim) -> Record | None:
    # A sweep's arms are lines; what is learnt at one place stands beside them.
    swept = [arm for arm in finished.arms if finished.last_iteration(arm, claim.scoring)]
    ends = {"first": swept[0], "last": swept[-1]} if swept else {}
    arm, against = (ends.get(name, name) for name in (claim.arm, claim.against))
    found = finished.difference(arm, against, claim.scoring, claim.group)
    if found is not None:
        return found
    # Of a sweep's ends one difference is enough.
    found = finished.difference(against, arm, claim.scoring, claim.group)
    return found and _turned(found)


def _share(finished: Finished, claim: Claim) -> Record | None:
    """
    Return on how many percent of the data sets an arm's last base is above the reference.

    The interval is the binomial distribution's (Clopper and Pearson 1934). It is about whether
    gains come more often than losses, data set by data set; what moves all of them together is in
    the interval of their average.
    """
    gains = [
        one
        for one in finished.gains(claim.arm, claim.scoring)
        if claim.group in ("all", "seen" if one.seen else "unseen")
    ]
    if claim.against != finished.reference or not gains:
        return None
    from scipy.stats import binomtest

    better = sum((one.value or 0.0) > 0 for one in gains)
    low, high = binomtest(better, len(gains)).proportion_ci(CONFIDENCE)
    return Record(
        kind="measure", protocol=finished.run.protocol, arm=claim.arm, scoring=claim.scoring,
        value=100.0 * better / len(gains), low=100.0 * low, high=100.0 * high, note=gains[0].note,
    )  # fmt: skip


def _turned(found: Record) -> Record:
    low, high = (None if one is None else -one for one in (found.high, found.low))
    value = None if found.value is None else -found.value
    return found.model_copy(update={"value": value, "low": low, "high": high})


def _verdict(claim: Claim, found: Record) -> Verdict:
    if found.low is None or found.high is None:
        return "not shown"
    if claim.expects == "alike":
        if found.low >= -ALIKE and found.high <= ALIKE:
            return "agrees"
        return "contradicts" if found.low > ALIKE or found.high < -ALIKE else "not shown"
    nothing = EVEN if claim.expects == "most" else 0.0
    if found.low > nothing:
        return "agrees"
    return "contradicts" if found.high < nothing else "not shown"


def _distance(claim: Claim, found: Record) -> str | None:
    if claim.points is None or found.value is None:
        return None
    missing = claim.points - found.value
    if missing > 0:
        return f"{missing:.2f} points below the paper's figure"
    return "the paper's figure is reached"
