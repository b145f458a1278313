"""What became of a pull request, in the words of a discussion."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from coldfusion_server.services.pulled import Pull
from coldfusion_server.services.pushed_files import missing_of
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.schemas.contributions import Contribution

_S = ContributionState


@dataclass(frozen=True)
class Said:
    """
    One comment.

    Attributes:
        name: tells it from the others of its pull request.
        at: when it was made.
        text: Markdown.
        by_contributor: whether the contributor says it; else the Repository does.
    """

    name: str
    at: datetime
    text: str
    by_contributor: bool = False


def said_of(pull: Pull, base_url: str) -> list[Said]:
    """Return the contributor's words, and ours."""
    first = Said("description", pull.created_at, pull.description or pull.title, True)
    made = pull.contribution
    if made is None:
        missing = missing_of(file.path for file in pull.files)
        text = (
            f"This is no contribution yet: {missing} is missing. Push it to refs/pr/{pull.number}."
        )
        return [first, Said("draft", pull.created_at, text)]
    at = made.decided_at or made.completed_at or made.declared_at
    return [first, Said(f"{made.id}-{made.state}", at, receipt(made, base_url))]


def receipt(made: Contribution, base_url: str) -> str:
    """Return what became of a contribution, for who has sent it."""
    page = f"{base_url}/contributions/{made.id}"
    begun = f"Contribution [{made.id}]({page}), made from {made.base}: {_outcome(made)}"
    return "\n\n".join([begun, *_more(made)])


def _outcome(made: Contribution) -> str:
    into = f"round {made.round}"
    said = {
        _S.DECLARED: "its bytes are arriving.",
        _S.COMPLETED: f"it has arrived for {into} and waits for its screening.",
        _S.QUARANTINED: "a maintainer has to decide on it; it counts for no round until then.",
        _S.ACCEPTED: f"accepted. It is fused when {into} closes.",
        _S.SET_ASIDE: f"set aside: {into} did not become a base.",
        _S.FUSED: f"fused in {into} into {made.result}{_weight(made)}.",
        _S.REJECTED: "rejected.",
        _S.WITHDRAWN: "withdrawn.",
        _S.EXPIRED: "given up.",
    }
    return said[made.state]


def _weight(made: Contribution) -> str:
    return "" if made.weight is None else f", with the weight {made.weight:.4g}"


def _more(made: Contribution) -> Iterator[str]:
    """Yield why, what to do, and what screening had to remark."""
    if made.reason:
        yield " ".join(filter(None, (made.reason, made.hint)))
    if made.decision:
        yield f"The maintainers say: {made.decision}"
    told = [item for item in made.findings if item.verdict != "pass"]
    remarks = [f"- {item.message}" for item in told if item.message != made.reason]
    if remarks:
        yield "\n".join(["Screening remarks:", *remarks])
