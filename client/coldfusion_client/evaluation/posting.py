"""Scores are handed in."""

from __future__ import annotations

from collections.abc import Iterator

from coldfusion_client.bases import find_base
from coldfusion_client.candidates import given_up
from coldfusion_client.connection import USER_AGENT
from coldfusion_client.evaluation.order import Place
from coldfusion_client.evaluation.outcome import Measured, Outcome
from coldfusion_shared.errors import BaseNotFound, CandidateNotFound, ModelNotFound
from coldfusion_shared.schemas.bases import Base
from coldfusion_shared.schemas.evaluations import Evaluation
from coldfusion_shared.schemas.rounds import Candidate


def post(outcome: Outcome, place: Place) -> list[Evaluation]:
    """Hand in the scores of all that was asked for; raises as `posting` does."""
    return list(posting(outcome, place))


def posting(outcome: Outcome, place: Place) -> Iterator[Evaluation]:
    """
    Hand in the scores of what was asked for, one after the other.

    Their suite is made known before. With a candidate's go its base's: a gate compares scores of
    one evaluator. Done again it changes nothing.

    Raises:
        BaseNotFound, CandidateNotFound: it is no longer there.
        SuiteChanged: the server knows another suite of that name by now.
        Forbidden: the token is no evaluator's any more.
    """
    for one in outcome.measured:
        if one.asked and one.base is not None:
            yield _post_base(one.base, one, place)
        elif one.asked and one.candidate is not None:
            yield _post_candidate(one.candidate, outcome, place)


def _post_candidate(candidate: Candidate, outcome: Outcome, place: Place) -> Evaluation:
    from coldfusion_shared.evaluate.software import software

    assert outcome.comparison is not None, "it has its base beside it"
    evaluated, api = outcome.newest.evaluated, place.source.api
    report = evaluated.report(software(USER_AGENT), outcome.comparison.negative_flips)
    try:
        posted = api.report_candidate(candidate.model, candidate.id, report)
    except CandidateNotFound:
        raise given_up(candidate) from None
    place.reporter.say(f"Posted the scores of the candidate {candidate.id} to {api.server}.")
    return posted


def _post_base(base: Base, measured: Measured, place: Place) -> Evaluation:
    from coldfusion_shared.evaluate.software import software

    api, evaluated = place.source.api, measured.evaluated
    try:
        # Before the suite is made known for the sake of a base that is gone.
        find_base(place.source, base.model, base.version)
        api.register(evaluated.suite)
        posted = api.report(base.model, base.version, evaluated.report(software(USER_AGENT)))
    except (ModelNotFound, BaseNotFound):
        raise BaseNotFound(
            f"{base.model} {base.version} vanished while it was measured, so that its scores "
            "cannot be posted.",
            hint="If it comes back, the same command posts them at once.",
        ) from None
    place.reporter.say(f"Posted the scores of {base.model} {base.version} to {api.server}.")
    return posted
