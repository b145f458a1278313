"""
The evaluator's work: measure bases, candidates or models of this machine, and post the scores.

Features and results are kept in the cache: a run that was interrupted goes on, and what was
measured before is not measured again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from coldfusion_client.candidates import find_candidates
from coldfusion_client.evaluation.checks import check_found, ready, warn_of_gate
from coldfusion_client.evaluation.finding import Found, beside_base, find_subjects
from coldfusion_client.evaluation.measuring import measure
from coldfusion_client.evaluation.order import Order, Place
from coldfusion_client.evaluation.outcome import Outcome
from coldfusion_client.extras import needs_train
from coldfusion_client.subjects import CandidateName

if TYPE_CHECKING:
    from coldfusion_shared.evaluate.suite import LoadedSuite


def evaluate(order: Order, place: Place) -> Outcome:
    """
    Measure what is asked for, and compare it where there are two.

    All that can be refused is refused before anything is computed.

    Raises:
        Forbidden: the scores are to be posted, and the token is no evaluator's.
        BadSuite: the suite, or data that it names, cannot be used.
        SuiteChanged: the data are not those that the suite is pinned to, or the server knows
            another suite of that name.
        UnknownName, InvalidRequest: there is no such protocol, or the numbers make no sense.
        ModelNotFound, BaseNotFound: there is no such base.
        BadModel: a base or a folder is no model that can be measured, or not by that protocol.
        EvaluationFailed, TrainingFailed: a model could not be measured.
    """
    with needs_train():
        loaded = ready(order, place)
        return _outcome(find_subjects(order, place), order, loaded, place)


def evaluate_candidates(order: Order, place: Place) -> Iterator[Outcome]:
    """
    Measure a candidate, or all that wait to be, each beside the base it was fused onto.

    A replay's are measured beside the base that each stands in for. Each is yielded as soon as it
    is measured, so that its scores can be posted before the next one. What was measured of a base
    is not measured again.

    Raises:
        CandidateNotFound: there is none, or it was given up meanwhile, which is looked at before
            each data set.
        Forbidden: the token is no evaluator's.
        and what `evaluate` raises.
    """
    with needs_train():
        loaded = ready(order, place)
        for subject in order.subjects:
            assert isinstance(subject, CandidateName), "all of them are candidates"
            found = find_candidates(place.source, subject)
            for number in {one.round for one in found if one.round is not None}:
                warn_of_gate(subject.model, number, order, loaded.suite, place)
            seen = set[str]()
            for candidate in found:
                # A base's scores are posted once, with the first one's that has it.
                pair = beside_base(candidate, place, asked=candidate.base not in seen)
                seen.add(candidate.base)
                yield _outcome(pair, order, loaded, place)


def _outcome(found: Sequence[Found], order: Order, loaded: LoadedSuite, place: Place) -> Outcome:
    from coldfusion_shared.evaluate.comparison import compare

    check_found(found, order, loaded, place)
    candidate = found[-1].candidate
    measured = tuple(measure(one, order, loaded, place, candidate) for one in found)
    if len(measured) == 1:
        return Outcome(measured)
    return Outcome(measured, compare(*(one.evaluated for one in measured)))
