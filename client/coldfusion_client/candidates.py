"""Candidates, fused bases before publication: found, verified and brought into the cache."""

from __future__ import annotations

from pathlib import Path

from coldfusion_client.bases import bring, not_named
from coldfusion_client.source import Source
from coldfusion_client.subjects import WAITING, CandidateName
from coldfusion_shared.errors import CandidateNotFound
from coldfusion_shared.schemas.bases import Base, ParentBase
from coldfusion_shared.schemas.rounds import Candidate


def find_candidates(source: Source, named: CandidateName) -> list[Candidate]:
    """
    Return the candidate of that id, or all that wait to be measured, at least one.

    Those wait for their round's gate, or for a maintainer to decide on their replay.

    Raises:
        ModelNotFound, CandidateNotFound: there is none, or it has been given up.
        Forbidden: the token is no evaluator's.
        DigestMismatch: the server's manifest is not what it says.
    """
    if named.identity != WAITING:
        return [_checked(source.api.candidate(named.model, named.identity))]
    found = source.api.candidates(named.model)
    if not found:
        raise CandidateNotFound(
            f"No candidate of {named.model} waits to be measured now.",
            hint=f"See how far its round is: coldfusion-client status {named.model}",
        )
    return [_checked(one) for one in found]


def check_base(candidate: Candidate, base: Base) -> None:
    """Raise `DigestMismatch` unless `candidate` was fused onto `base`, or stands in for it."""
    manifest = candidate.manifest
    if manifest.replays is not None:
        same = manifest.replays == base.version
    else:
        same = manifest.parent == ParentBase(version=base.version, digest=base.digest)
    if not same:
        raise not_named(f"the candidate {candidate.id}, made from {base.version},")


def candidate_folder(source: Source, candidate: Candidate) -> Path:
    """Return a folder with the model `candidate`, in the cache: to be read, not to be written."""
    bring(source, candidate.manifest, candidate.id)
    return source.cache.folder(candidate.manifest)


def given_up(candidate: Candidate) -> CandidateNotFound:
    """Return the error for a candidate that was given up while it was measured."""
    why = "its round was decided, or is fused again"
    if candidate.replay is not None:
        why = f"its replay, {candidate.replay}, is not to be published"
    return CandidateNotFound(
        f"The candidate {candidate.id} of {candidate.model} was given up while it was measured: "
        f"{why}.",
        hint="Measure what waits now: coldfusion-client evaluate "
        f"{candidate.model} --candidate {WAITING} --suite FILE --post",
    )


def label(candidate: Candidate) -> str:
    """Return what a candidate is called beside others, short."""
    if candidate.server_lr is None:
        return f"candidate {candidate.id}"
    return f"{candidate.id} at {candidate.server_lr:g}"


def _checked(candidate: Candidate) -> Candidate:
    named = candidate.model == candidate.manifest.model
    if not named or candidate.manifest.digest() != candidate.digest:
        raise not_named(f"the candidate {candidate.id}")
    return candidate
