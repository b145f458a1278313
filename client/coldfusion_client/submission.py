"""Weights to the Repository: declared, uploaded, completed, and the verdict waited for."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from coldfusion_client.api import Api
from coldfusion_client.packing import Package
from coldfusion_client.source import Source
from coldfusion_client.speeds import note_upload
from coldfusion_client.transfer.upload import upload
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.errors import ContributionRejected, StateConflict, UploadIncomplete
from coldfusion_shared.rounds import RoundState
from coldfusion_shared.schemas.contributions import Contribution, Declaration, UploadPlan, Work
from coldfusion_shared.weights.digests import file_entry

IN_SCREENING = frozenset({ContributionState.DECLARED, ContributionState.COMPLETED})
TAKEN = frozenset(
    {
        ContributionState.ACCEPTED,
        ContributionState.QUARANTINED,
        ContributionState.SET_ASIDE,
        ContributionState.FUSED,
    }
)

# Seconds between two looks at a contribution: soon at first, as small models are screened at once.
_FIRST_LOOK, _LONGEST_LOOK = 0.3, 5.0
# Parts that a server has lost are sent again, but not for ever.
_UPLOADS = 3


def declaration(base: str, package: Package, work: Work) -> Declaration:
    """Describe what is sent, made from the base `base`."""
    measured = {
        "relative_error": package.relative_error,
        "cosine": package.cosine,
        "score_decoded": package.score,
    }
    return Declaration(
        base=base,
        encoding=package.encoding,
        frozen=list(package.frozen),
        files=[file_entry(path, name) for name, path in package.files.items()],
        weights_sha256=package.weights_sha256,
        work=work.model_copy(update=measured),
    )


def idempotency_key(model: str, declared: Declaration) -> str:
    """
    Return a key that the same contribution to `model` always has, whenever it is made.

    What is said of the work is left out: another version of the client goes on with the upload.
    """
    same = declared.model_dump_json(include={"base", "encoding", "frozen", "files"})
    text = f"{model}\n{same}"
    return hashlib.sha256(text.encode()).hexdigest()


def send(
    model: str,
    declared: Declaration,
    files: Callable[[], Mapping[str, Path]],
    source: Source,
    noted: Callable[[Contribution], None] = lambda _: None,
) -> Contribution:
    """
    Declare a contribution, upload what has not arrived yet and complete it.

    Repeating it is harmless at any point: it goes on where the contribution stands.

    Args:
        model: the model.
        declared: what is contributed.
        files: gives the files to upload by name; called only if anything is to be uploaded.
        source: shows the upload, and remembers how quick it was.
        noted: is called with the contribution as soon as it has an id.

    Raises:
        BaseOutdated: there is a newer base.
        AlreadyContributed: the same weights were contributed before.
        DigestMismatch: what arrived is not what was declared.
    """
    answer = source.api.declare(model, declared, idempotency_key(model, declared))
    noted(answer.contribution)
    if answer.contribution.state != ContributionState.DECLARED:
        return answer.contribution
    if answer.prospect is not None:
        source.reporter.say(answer.prospect.sentence)
    return _upload(answer.upload, files(), source)


def _upload(plan: UploadPlan, files: Mapping[str, Path], source: Source) -> Contribution:
    for _ in range(_UPLOADS - 1):
        try:
            return _upload_once(plan, files, source)
        except UploadIncomplete:
            plan = source.api.upload_plan(plan.contribution)
    return _upload_once(plan, files, source)


def _upload_once(plan: UploadPlan, files: Mapping[str, Path], source: Source) -> Contribution:
    parts = [part for file in plan.files for part in file.parts]
    left = sum(part.size for part in parts if not part.uploaded)
    begun = time.monotonic()
    with source.reporter.bar("upload", sum(part.size for part in parts), "bytes") as bar:
        upload(source.api, plan, files, bar)
    note_upload(source.cache.root, source.api.server, left, time.monotonic() - begun)
    return source.api.complete(plan.contribution)


def await_verdict(
    api: Api,
    contribution: Contribution,
    noted: Callable[[Contribution], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Contribution:
    """
    Wait until the contribution is screened, and return it if it was taken.

    Args:
        api: the server.
        contribution: the contribution as it stood.
        noted: is called with the contribution as it stands in the end.
        sleep: waits between two looks.

    Raises:
        ContributionRejected: it was not; the message says why.
        StateConflict: it was withdrawn or its upload expired.
    """
    pause = _FIRST_LOOK
    while contribution.state in IN_SCREENING:
        sleep(pause)
        pause = min(_LONGEST_LOOK, pause * 1.5)
        contribution = api.contribution(contribution.id)
    noted(contribution)
    if contribution.state in TAKEN:
        return contribution
    raise _refusal(contribution)


def _refusal(contribution: Contribution) -> ContributionRejected | StateConflict:
    reason = (contribution.reason or "the server gives no reason").rstrip(".")
    if contribution.state != ContributionState.REJECTED:
        return StateConflict(
            f"Contribution {contribution.id} is {contribution.state}: {reason}.",
            hint=contribution.hint or "Give the same command again to contribute it anew.",
        )
    tensors = [name for finding in contribution.findings for name in finding.tensors]
    return ContributionRejected(
        f"Contribution {contribution.id} was rejected: {reason}.",
        hint=contribution.hint,
        tensors=tensors,
    )


def told(api: Api, contribution: Contribution) -> str:
    """Say in one sentence what became of a contribution that was not rejected."""
    name = f"Contribution {contribution.id}"
    if contribution.state == ContributionState.FUSED:
        return f"{name} is part of {contribution.model} {contribution.result}."
    if contribution.state == ContributionState.QUARANTINED:
        reason = contribution.reason or "it is unusual"
        return f"{name} waits for a maintainer to look at it: {reason}."
    if contribution.state in IN_SCREENING:
        return f"{name} arrived and will be screened. Ask with: coldfusion-client status " + (
            contribution.id
        )
    if contribution.state == ContributionState.SET_ASIDE:
        return f"{name} is set aside: {contribution.reason}"
    current = api.round(contribution.model, contribution.round)
    if current.state == RoundState.OPEN:
        needs = current.needs or f"Needs {current.missing} more."
        return f"{name} is accepted for round {current.number}. {needs}"
    if contribution.staleness is None:
        return f"{name} is accepted; it goes into the round after {current.number}."
    return f"{name} is in round {current.number}, which is {current.state}."
