"""The metrics of each model: its head, its rounds, its contributions, its bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from statistics import fmean, median
from typing import Any

from prometheus_client import Metric
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from sqlalchemy import Select, and_, func, or_, select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import (
    BaseFileRow,
    BaseRow,
    ContributionFileRow,
    ContributionRow,
    EvaluationRow,
    ModelRow,
    RoundRow,
)
from coldfusion_server.services.work_times import BUCKETS, WorkTimed, times
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.rounds import RoundState

_C = ContributionState
# What has arrived has been through here; whether what was withdrawn had, it tells by a time.
_NEVER_ARRIVED = (_C.DECLARED, _C.EXPIRED)
_BOUNDS = [*(str(float(one)) for one in BUCKETS), "+Inf"]
# How work ends that is timed.
_OUTCOMES = {
    WorkTimed.SCREENING: (_C.ACCEPTED.value, _C.QUARANTINED.value, _C.REJECTED.value),
    WorkTimed.FUSING: ("fused",),
    WorkTimed.EVALUATION: ("measured",),
}


class Models:
    """The models that are shown: whatever is of another one is left out."""

    def __init__(self, rows: Sequence[tuple[int, str, int]]) -> None:
        """Show those of these ids, names and heads' numbers."""
        self.names = {identity: name for identity, name, _ in rows}
        self.heads = {name: head for _, name, head in rows}

    def of(self, rows: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
        """Yield those of `rows`, which are by model's id, that are shown, by model's name."""
        return ((name, rows[key]) for key, name in self.names.items() if key in rows)


def of_models(session: Session, models: Models) -> list[Metric]:
    """Return the metrics of `models`."""
    return [
        *_bases(session, models),
        _scores(session, models),
        _rounds(session, models),
        *_contributions(session, models),
        *_bytes(session, models),
        *_times(session, models),
    ]


def _bases(session: Session, models: Models) -> Iterator[Metric]:
    versions = GaugeMetricFamily(
        "coldfusion_head_version", "Number of the base that is the model's head.", labels=["model"]
    )
    number = CounterMetricFamily(
        "coldfusion_bases_published", "Bases published so far, v0 among them.", labels=["model"]
    )
    newest = GaugeMetricFamily(
        "coldfusion_newest_base_timestamp_seconds",
        "When the model's newest base was published, in seconds since 1970.",
        labels=["model"],
    )
    query = select(BaseRow.model_id, func.count(), func.max(BaseRow.created_at))
    found = {key: rest for key, *rest in session.execute(query.group_by(BaseRow.model_id))}
    for name, (count, last) in models.of(found):
        versions.add_metric([name], models.heads[name])
        number.add_metric([name], count)
        newest.add_metric([name], last.timestamp())
    yield from (versions, number, newest)


def _scores(session: Session, models: Models) -> Metric:
    """Return the heads' scores, as the dashboard has them: of each evaluator the newest counts."""
    scores = GaugeMetricFamily(
        "coldfusion_head_score",
        "Score of the model's head in points: the average over the suite's data sets, each the "
        "median of the evaluators. Of registered suites alone.",
        labels=["model", "suite", "protocol"],
    )
    query = (
        select(
            BaseRow.model_id,
            EvaluationRow.suite,
            EvaluationRow.protocol,
            EvaluationRow.contributor_id,
            EvaluationRow.scores,
        )
        .join(BaseRow, BaseRow.id == EvaluationRow.base_id)
        .join(ModelRow, and_(ModelRow.id == BaseRow.model_id, ModelRow.current == BaseRow.number))
        # Others are free text.
        .where(EvaluationRow.suite_digest.is_not(None))
        .order_by(EvaluationRow.id)
    )
    newest: dict[tuple[int, str, str], dict[int, dict[str, float]]] = {}
    for model, suite, protocol, evaluator, measured in session.execute(query):
        newest.setdefault((model, suite, protocol), {})[evaluator] = measured
    for (model, suite, protocol), by_evaluator in sorted(newest.items()):
        if model in models.names:
            labels = [models.names[model], suite, protocol]
            scores.add_metric(labels, _average([*by_evaluator.values()]))
    return scores


def _average(measured: Sequence[Mapping[str, float]]) -> float:
    """Return the mean over all data sets of the median of what was measured of each."""
    names = {name for scores in measured for name in scores}
    return fmean(median(one[name] for one in measured if name in one) for name in sorted(names))


def _rounds(session: Session, models: Models) -> Metric:
    rounds = GaugeMetricFamily(
        "coldfusion_rounds", "Rounds that are in this state.", labels=["model", "state"]
    )
    query = select(RoundRow.model_id, RoundRow.state, func.count())
    _add_states(rounds, models, [*RoundState], session, query, RoundRow)
    return rounds


def _contributions(session: Session, models: Models) -> Iterator[Metric]:
    states = GaugeMetricFamily(
        "coldfusion_contributions",
        "Contributions that are in this state: the verdict, and what became of them.",
        labels=["model", "state"],
    )
    declared = CounterMetricFamily(
        "coldfusion_contributions_declared",
        "Contributions declared so far, whatever became of them.",
        labels=["model"],
    )
    query = select(ContributionRow.model_id, ContributionRow.state, func.count())
    counted = _add_states(states, models, [*_C], session, query, ContributionRow)
    for name, counts in counted.items():
        declared.add_metric([name], sum(counts.values()))
    yield from (states, declared)


def _add_states(
    family: GaugeMetricFamily,
    models: Models,
    states: Sequence[str],
    session: Session,
    query: Select[int, Any, int],
    table: type[RoundRow] | type[ContributionRow],
) -> dict[str, dict[str, int]]:
    """Add how many rows of each model are in each state, zeros among them; return the counts."""
    found: dict[str, dict[str, int]] = {name: {} for name in models.names.values()}
    for model, state, count in session.execute(query.group_by(table.model_id, table.state)):
        if model in models.names:
            found[models.names[model]][state] = count
    for name, counts in found.items():
        for state in states:
            family.add_metric([name, str(state)], counts.get(state, 0))
    return found


def _bytes(session: Session, models: Models) -> Iterator[Metric]:
    contributed = CounterMetricFamily(
        "coldfusion_contributed_bytes",
        "Bytes of contributions whose upload has come to its end, through whichever store.",
        labels=["model"],
    )
    stored = GaugeMetricFamily(
        "coldfusion_stored_bytes",
        "Bytes in the store by what they are for: the files of bases that people pull, "
        "contributions that are kept, uploads under way. What two models share counts for both.",
        labels=["model", "kind"],
    )
    arrived = dict(models.of(_contributed(session)))
    for name in models.names.values():
        contributed.add_metric([name], arrived.get(name, 0))
    kinds = {
        "bases": _of_bases(session),
        "contributions": _of_contributions(session, ContributionRow.state != _C.DECLARED),
        "uploads": _of_contributions(session, ContributionRow.state == _C.DECLARED),
    }
    for kind, sizes in kinds.items():
        for name in models.names.values():
            stored.add_metric([name, kind], dict(models.of(sizes)).get(name, 0))
    yield from (contributed, stored)


def _contributed(session: Session) -> dict[int, int]:
    arrived = or_(
        ContributionRow.state.not_in((*_NEVER_ARRIVED, _C.WITHDRAWN, _C.REJECTED)),
        ContributionRow.completed_at.is_not(None),
    )
    query = (
        select(ContributionRow.model_id, func.sum(ContributionFileRow.size))
        .join(ContributionFileRow, ContributionFileRow.contribution_id == ContributionRow.id)
        .where(arrived, ~ContributionFileRow.here)
        .group_by(ContributionRow.model_id)
    )
    return {model: int(size) for model, size in session.execute(query)}


def _of_bases(session: Session) -> dict[int, int]:
    # A file that many bases have is one object.
    files = (
        select(BaseRow.model_id, BaseFileRow.sha256, BaseFileRow.size)
        .join(BaseRow, BaseRow.id == BaseFileRow.base_id)
        .distinct()
        .subquery()
    )
    query = select(files.c.model_id, func.sum(files.c.size)).group_by(files.c.model_id)
    return {model: int(size) for model, size in session.execute(query)}


def _of_contributions(session: Session, which: Any) -> dict[int, int]:
    gone = (_C.EXPIRED, _C.REJECTED)
    taken_back = and_(
        ContributionRow.state == _C.WITHDRAWN, ContributionRow.result_number.is_(None)
    )
    files = (
        select(ContributionRow.model_id, ContributionFileRow.sha256, ContributionFileRow.size)
        .join(ContributionFileRow, ContributionFileRow.contribution_id == ContributionRow.id)
        .where(
            which,
            ~ContributionFileRow.here,
            ContributionFileRow.erased_at.is_(None),
            ContributionRow.state.not_in(gone),
            ~taken_back,
        )
        .distinct()
        .subquery()
    )
    query = select(files.c.model_id, func.sum(files.c.size)).group_by(files.c.model_id)
    return {model: int(size) for model, size in session.execute(query)}


def _times(session: Session, models: Models) -> Iterator[Metric]:
    families = {
        WorkTimed.SCREENING: HistogramMetricFamily(
            "coldfusion_screening_seconds",
            "What a worker took to screen a contribution, its waiting apart, by verdict.",
            labels=["model", "verdict"],
        ),
        WorkTimed.FUSING: HistogramMetricFamily(
            "coldfusion_fuse_seconds",
            "What a worker took to fuse a round into its candidates, its waiting apart.",
            labels=["model"],
        ),
        WorkTimed.EVALUATION: HistogramMetricFamily(
            "coldfusion_evaluation_seconds",
            "What the Repository's own evaluator took for a base, a candidate or a contribution.",
            labels=["model"],
        ),
    }
    kept = {(one.kind, one.model_id, one.outcome): one for one in times(session)}
    for (kind, outcomes), (model, name) in product(_OUTCOMES.items(), models.names.items()):
        for outcome in outcomes:
            found = kept.get((kind, model, outcome))
            # Zeros, too: what appears with its first count has grown by nothing, for Prometheus.
            counts = [0] * len(_BOUNDS) if found is None else [*found.within, found.number]
            labels = [name, outcome] if kind == WorkTimed.SCREENING else [name]
            seconds = 0.0 if found is None else found.seconds
            families[kind].add_metric(labels, [*zip(_BOUNDS, counts, strict=True)], seconds)
    yield from families.values()
