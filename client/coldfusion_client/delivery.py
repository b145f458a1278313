"""A finished run to the Repository: one contribution, however often it is interrupted."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from coldfusion_client.bases import find_base
from coldfusion_client.forms import AUTO, LORA, Form
from coldfusion_client.journal import Submission
from coldfusion_client.moves import onto_newest
from coldfusion_client.packing import Score, pack
from coldfusion_client.runs import Run
from coldfusion_client.source import Source
from coldfusion_client.submission import TAKEN, declaration, send
from coldfusion_client.training import ADAPTER_FOLDER
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.errors import (
    BaseOutdated,
    EncodingRefused,
    InvalidRequest,
    QuotaExceeded,
    TooLarge,
)
from coldfusion_shared.schemas.bases import Base
from coldfusion_shared.schemas.contributions import Contribution, Declaration, Work


@dataclass(frozen=True)
class Goods:
    """
    What is to be delivered.

    Attributes:
        run: has its finetuned model in its folder.
        made_from: the base that it was finetuned from.
        work: what is said of the work.
        form: in which it may travel.
        score: measures a decoded model; null: none is made.
    """

    run: Run
    made_from: Base
    work: Work
    form: Form
    score: Score | None = None


def deliver(source: Source, goods: Goods, *, onto_latest: bool) -> Contribution:
    """
    Contribute the finetuned weights of `run`, or go on with what was begun.

    Args:
        source: the server and the cache.
        goods: what is contributed.
        onto_latest: contribute to the newest base, whichever the training began with.

    Raises:
        BaseOutdated: there is a newer base, and `onto_latest` is false.
        ContributionRejected, AlreadyContributed: it cannot be contributed.
    """
    attempt, journal = partial(_attempt, source, goods), goods.run.journal
    begun = journal.undecided or journal.taken
    if begun is not None:
        with suppress(BaseOutdated):
            return attempt(find_base(source, goods.made_from.model, begun.declaration.base))
    return onto_newest(source, goods.made_from, attempt, onto_latest=onto_latest)


def _attempt(source: Source, goods: Goods, onto: Base) -> Contribution:
    run = goods.run
    submission = _begun(source, goods, onto) or _declare(source, goods, onto)
    files = partial(_files, source, goods, onto, submission.declaration)
    try:
        contribution = send(onto.model, submission.declaration, files, source, run.note)
    except (BaseOutdated, EncodingRefused, InvalidRequest, QuotaExceeded, TooLarge):
        # The Repository has not taken it.
        run.forget(submission)
        raise
    run.note(contribution)
    run.tidy()
    return contribution


def _begun(source: Source, goods: Goods, onto: Base) -> Submission | None:
    """Return what is to go on; null: nothing was begun, or in another form than is asked for."""
    submission, asked = goods.run.journal.submission(onto.version), goods.form.asked
    if submission is None or asked in {submission.asked, submission.declaration.encoding}:
        return submission
    encoding = submission.declaration.encoding
    if _has_arrived(source, submission):
        if asked != AUTO:
            source.reporter.say(f"It was sent as {encoding} before, and is not sent as {asked}.")
        return submission
    if asked == AUTO:
        if submission.undecided:
            source.reporter.say(
                f"Going on as it was begun, in the encoding {encoding}; --encoding changes that."
            )
        return submission
    source.reporter.say(f"What was begun in the encoding {encoding} is given up for {asked}.")
    goods.run.forget(submission)
    return None


def _has_arrived(source: Source, submission: Submission) -> bool:
    """Return whether the Repository has all of it, so that another form were a second one."""
    state = submission.state
    if submission.contribution is None:
        return False  # bytes are only sent to what has an id
    if state in {None, ContributionState.DECLARED}:
        # It may have been completed without our hearing of it.
        state = source.api.contribution(submission.contribution).state
    return state in {ContributionState.COMPLETED, *TAKEN}


def _declare(source: Source, goods: Goods, onto: Base) -> Submission:
    run = goods.run
    package = pack(
        source, run.folder, goods.made_from, onto, goods.form, run.outbox(onto.version),
        score=goods.score, reference=goods.work.score_after,
    )  # fmt: skip
    declared = declaration(onto.version, package, goods.work)
    submission = Submission(declaration=declared, asked=goods.form.asked)
    # Before the server hears of it: killed in between, we ask it again in the same words.
    run.journal.submissions.append(submission)
    run.save()
    return submission


def _files(source: Source, goods: Goods, onto: Base, declared: Declaration) -> Mapping[str, Path]:
    """Return the files that were declared; written once more where they are gone."""
    outbox = goods.run.outbox(onto.version)
    files = {entry.path: outbox / entry.path for entry in declared.files}
    if all(path.exists() for path in files.values()):
        return files
    # The same encoding as it was declared gives the same bytes.
    adapter = goods.run.folder / ADAPTER_FOLDER if declared.encoding == LORA else None
    frozen = tuple(declared.frozen)
    form = replace(goods.form, encodings=[declared.encoding], frozen=frozen, adapter=adapter)
    return pack(source, goods.run.folder, goods.made_from, onto, form, outbox).files
