"""What is measured: subjects that are there, not brought yet, and what each is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coldfusion_client.bases import base_folder, find_base
from coldfusion_client.candidates import candidate_folder, check_base, label
from coldfusion_client.evaluation.order import Order, Place
from coldfusion_client.subjects import SCORES_SUFFIX, BaseName, CandidateName, Subject
from coldfusion_shared.schemas.bases import Base
from coldfusion_shared.schemas.rounds import Candidate

if TYPE_CHECKING:
    from coldfusion_shared.evaluate.results import Evaluated

PRETRAINED = "v0"


@dataclass(frozen=True)
class Found:
    """A subject that is there: what is still to be brought, a folder, or known scores."""

    name: str
    asked: bool = True
    base: Base | None = None
    candidate: Candidate | None = None
    folder: Path | None = None
    scores: Evaluated | None = None


def find_subjects(order: Order, place: Place) -> list[Found]:
    """Return what is measured, what it is compared with before it."""
    found = [_find(one, place) for one in order.subjects]
    if not order.gain or len(found) > 1:
        return found
    base = found[0].base
    if base is None or base.version == PRETRAINED:
        return found
    return [_find(BaseName(base.model, PRETRAINED), place, asked=False), *found]


def beside_base(candidate: Candidate, place: Place, *, asked: bool) -> list[Found]:
    """Return a candidate, and before it its base; `asked`: whether the base's scores are, too."""
    base = find_base(place.source, candidate.model, candidate.base)
    check_base(candidate, base)
    return [
        Found(f"{base.model} {base.version}", asked, base=base),
        Found(f"{candidate.model} {label(candidate)}", candidate=candidate),
    ]


def bring(found: Found, place: Place) -> Path:
    """Return the folder of what has no scores yet; bases and candidates come into the cache."""
    if found.candidate is not None:
        return candidate_folder(place.source, found.candidate)
    folder = base_folder(place.source, found.base) if found.base else found.folder
    assert folder is not None, "what has no scores yet is at the server or in a folder"
    return folder


def _find(one: Subject, place: Place, *, asked: bool = True) -> Found:
    from coldfusion_shared.evaluate.results import Evaluated

    assert not isinstance(one, CandidateName), "candidates are measured beside their base"
    if isinstance(one, BaseName):
        base = find_base(place.source, one.model, one.version)
        return Found(f"{base.model} {base.version}", asked, base=base)
    if one.suffix == SCORES_SUFFIX and not one.is_dir():
        return Found(str(one), scores=Evaluated.from_json(one.read_bytes()))
    return Found(str(one), folder=one)
