"""A finished run to the Repository: one contribution, however often it is interrupted."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path

from coldfusion_client.bases import Source, find_base
from coldfusion_client.bodies import write_contribution
from coldfusion_client.journal import Submission
from coldfusion_client.moves import onto_newest
from coldfusion_client.runs import Run
from coldfusion_client.submission import declaration, send
from coldfusion_shared.errors import BaseOutdated
from coldfusion_shared.schemas.bases import Base
from coldfusion_shared.schemas.contributions import Contribution, Work


def deliver(
    source: Source, run: Run, made_from: Base, work: Work, *, onto_latest: bool
) -> Contribution:
    """
    Contribute the finetuned weights of `run`, or go on with what was begun.

    Args:
        source: the server and the cache.
        run: has its finetuned model in its folder.
        made_from: the base that it was finetuned from.
        work: what is said of the work.
        onto_latest: contribute to the newest base, whichever the training began with.

    Raises:
        BaseOutdated: there is a newer base, and `onto_latest` is false.
        ContributionRejected, AlreadyContributed: it cannot be contributed.
    """
    attempt = partial(_attempt, source, run, made_from, work)
    begun = run.journal.undecided or run.journal.taken
    if begun is not None:
        with suppress(BaseOutdated):
            return attempt(find_base(source.api, made_from.model, begun.declaration.base))
    return onto_newest(source, made_from, attempt, onto_latest=onto_latest)


def _attempt(source: Source, run: Run, made_from: Base, work: Work, onto: Base) -> Contribution:
    submission = run.journal.submission(onto.version)
    if submission is None:
        submission = _declare(source, run, made_from, work, onto)
    body = partial(_body, source, run, made_from, onto)
    try:
        contribution = send(
            source.api, onto.model, submission.declaration, body, source.reporter, run.note
        )
    except BaseOutdated:
        # The Repository has not taken it, so it is as if we had not asked.
        run.journal.submissions.remove(submission)
        run.save()
        raise
    run.note(contribution)
    run.tidy()
    return contribution


def _declare(source: Source, run: Run, made_from: Base, work: Work, onto: Base) -> Submission:
    body = _body(source, run, made_from, onto)
    submission = Submission(declaration=declaration(onto.version, body, work))
    # Before the server hears of it: killed in between, we ask it again in the same words.
    run.journal.submissions.append(submission)
    run.save()
    return submission


def _body(source: Source, run: Run, made_from: Base, onto: Base) -> Path:
    body = run.body(onto.version)
    if not body.exists():
        write_contribution(source, run.folder, made_from, onto, body)
    return body
