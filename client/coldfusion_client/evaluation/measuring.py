"""One model is measured, and shown while it is; a candidate only as long as it waits for that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coldfusion_client.candidates import given_up
from coldfusion_client.evaluation.finding import Found, bring
from coldfusion_client.evaluation.order import Order, Place
from coldfusion_client.evaluation.outcome import Measured, last_part
from coldfusion_client.reporting import Steps, steps_shown
from coldfusion_shared.errors import CandidateNotFound, ColdFusionError
from coldfusion_shared.schemas.rounds import Candidate

if TYPE_CHECKING:
    from coldfusion_shared.evaluate.results import Evaluated
    from coldfusion_shared.evaluate.suite import LoadedSuite


def measure(
    found: Found, order: Order, loaded: LoadedSuite, place: Place, candidate: Candidate | None
) -> Measured:
    """
    Return a model with its scores, which are measured where they are not known.

    Args:
        found: the model.
        order: what is asked for.
        loaded: the suite.
        place: where.
        candidate: for whose sake, perhaps its own; null: for no candidate's.

    Raises:
        CandidateNotFound: that candidate was given up meanwhile.
        and what measuring raises.
    """
    evaluated = found.scores or _measure(found, order, loaded, place, candidate)
    return Measured(found.name, found.base, found.asked, evaluated, found.candidate)


def _measure(
    found: Found, order: Order, loaded: LoadedSuite, place: Place, candidate: Candidate | None
) -> Evaluated:
    from coldfusion_shared.evaluate.runner import evaluate_base

    name = last_part(found.name) if found.folder else found.name
    folder = bring(found, place)
    with steps_shown(place.reporter, name) as progress:
        if candidate is not None:
            progress = _while_waited_for(candidate, order.seeds, place, progress)
        return evaluate_base(
            folder,
            loaded,
            order.protocol,
            range(order.seeds),
            place.kept,
            progress,
            place.reporter.say,
        )


def _while_waited_for(candidate: Candidate, seeds: int, place: Place, progress: Steps) -> Steps:
    """Return `progress` that ends the work before a data set if the candidate was given up."""
    before = ""

    def looking(done: float, total: int, what: str) -> None:
        nonlocal before
        # A data set begins with its first seed.
        if what != before and done % seeds == 0:
            _check_waited_for(candidate, place)
        before = what
        progress(done, total, what)

    return looking


def _check_waited_for(candidate: Candidate, place: Place) -> None:
    try:
        place.source.api.candidate(candidate.model, candidate.id)
    except CandidateNotFound:
        raise given_up(candidate) from None
    except ColdFusionError:
        # A server that is away for a moment ends no work of hours; the posting will tell.
        return
