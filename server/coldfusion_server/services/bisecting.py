"""
Which contributions did the harm, when a gate has rejected a round.

Parts of what the round fused are fused again, as it did, and judged as its gate judges: by the norm
of the step, or by a suite that is measured here. Nothing is kept of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import CandidateRow, ContributionRow, ModelRow
from coldfusion_server.services import fuse_inputs, rounds
from coldfusion_server.services.again import set_aside
from coldfusion_server.services.checkout import check_out
from coldfusion_server.services.context import Context
from coldfusion_server.services.digesting import DigestSink
from coldfusion_server.services.fuse_inputs import Input
from coldfusion_server.services.fused_folder import fuse_into
from coldfusion_server.services.fusing import Work, compare, fuse
from coldfusion_server.services.lookup import find_model, find_round
from coldfusion_server.services.measuring import Measure
from coldfusion_server.services.tokens import Principal, require
from coldfusion_shared.errors import InvalidRequest, StateConflict, SuiteChanged
from coldfusion_shared.fusion.culprits import (
    Culprits,
    Strategy,
    Suspicion,
    Try,
    find_culprits,
    suspicion,
)
from coldfusion_shared.rounds import gate as gates
from coldfusion_shared.rounds.line_search import best
from coldfusion_shared.schemas.evaluations import EvaluationReport, Suite
from coldfusion_shared.schemas.gates import Gate, GateVerdict
from coldfusion_shared.schemas.recipes import Recipe
from coldfusion_shared.schemas.tokens import Role

# Who has measured, as the gate names evaluators; of this one only the numbers are used.
HERE = "bisect"


@dataclass(frozen=True)
class Evaluator:
    """
    How parts of a round are measured.

    Attributes:
        suite: the gate's.
        measure: measures the model in a folder.
        folder: models are brought into folders in it, for as long as they are measured.
    """

    suite: Suite
    measure: Measure
    folder: Path


@dataclass(frozen=True)
class Search:
    """
    How culprits are looked for.

    Attributes:
        strategy: in which order.
        max_tries: at most so many parts are fused.
        evaluator: for a gate by a suite; null: there is none at hand.
        progress: told of each try, with what the gate made of it.
        alive: called all the time, and may end it.
    """

    strategy: Strategy = "halving"
    max_tries: int = 32
    evaluator: Evaluator | None = None
    progress: Callable[[Try, str], None] = lambda tried, reason: None
    alive: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Bisection:
    """
    What was found.

    Attributes:
        model: owner/name.
        round: its number.
        culprits: what the search has named; null: what is left of the round does no harm here as
            it is, so nobody is named.
        note: a sentence: why nobody is named, or that the gate itself has measured no harm; null:
            there is nothing to say.
        suspicions: what the updates themselves tell of all, those first that moved the result most.
        contributors: who sent each.
    """

    model: str
    round: int
    culprits: Culprits | None
    note: str | None
    suspicions: list[Suspicion]
    contributors: dict[str, str]


@dataclass(frozen=True)
class _Case:
    """A rejected round: what it fused, by what it was rejected, and what is missing of it."""

    given: Input
    gate: Gate
    verdict: GateVerdict
    fewest: int
    withdrawn: int
    contributors: dict[str, str]

    @property
    def by_norm(self) -> bool:
        """Whether the step's length alone was the reason, so that no suite is needed."""
        return gates.too_long(self.gate, self.verdict.relative_norm) is not None

    @property
    def is_measured(self) -> bool:
        """Whether the gate has found harm, and not only that time was up."""
        return self.by_norm or not all(one.passed for one in self.verdict.evaluators)

    @property
    def is_certain(self) -> bool:
        """Whether all together do harm for certain, so that they need not be tried."""
        # A measurement may come out otherwise here, or nobody has made one.
        return self.by_norm and not self.withdrawn


def bisect(
    ctx: Context, name: str, number: str, principal: Principal | None, search: Search
) -> Bisection:
    """
    Name the contributions without which the gate would have let a rejected round pass.

    It only reads, and takes as long as some fuses and, by a suite, as many evaluations.

    Args:
        ctx: the service's surroundings.
        name: owner/name.
        number: the round's.
        principal: who asks.
        search: how.

    Raises:
        ModelNotFound, RoundNotFound: there is no such round.
        StateConflict: it was not rejected, or what it had was decided on already.
        InvalidRequest: its gate needs a suite, and none is given; or it has measured no harm.
        SuiteChanged: the suite is not the one that the gate has measured with.
        StorageUnavailable: a contribution's files are not in the store.
    """
    require(principal, Role.MAINTAINER, name)
    case = _read(ctx, name, number, principal)
    found = suspicion(
        compare(ctx, case.given, search.alive), [item.prior for item in case.given.contributions]
    )
    with TemporaryDirectory(prefix="bisect.", dir=_room(case, search)) as folder:
        trial = _Trial(ctx, case, search, Path(folder))
        ids = [one.id for one in found]
        culprits = None
        if case.is_certain or _all_do_harm(trial, ids, search):
            culprits = find_culprits(
                ids,
                trial,
                strategy=search.strategy,
                max_tries=search.max_tries,
                progress=lambda tried: search.progress(tried, trial.reason),
            )
    return Bisection(
        model=name,
        round=case.given.round or 0,
        culprits=culprits,
        note=_note(case, does_harm=culprits is not None),
        suspicions=found,
        contributors=case.contributors,
    )


def _all_do_harm(trial: _Trial, ids: Sequence[str], search: Search) -> bool:
    harmful = trial(frozenset(ids))
    search.progress(Try((), harmful), trial.reason)
    return harmful


def _note(case: _Case, *, does_harm: bool) -> str | None:
    if does_harm:
        known = case.is_measured
        return None if known else "The gate itself has measured no harm; it was measured here."
    if case.withdrawn:
        return "Others of this round were withdrawn, and these do no harm here; nobody is named."
    if not case.is_measured:
        return "The gate has measured no harm, and all together do none here; nobody is named."
    return "All together do no harm here, unlike in the gate's measurement; nobody is named."


def _read(ctx: Context, name: str, number: str, principal: Principal | None) -> _Case:
    with ctx.database.read() as session:
        model = find_model(session, name, principal)
        row = find_round(session, model, number)
        items = [item for item in set_aside(session, model, row) if item.chosen]
        policy = rounds.policy_in_force(session.get_one(ModelRow, row.model_id), row)
        if row.gate is None or not items:
            raise StateConflict(f"Of round {row.number} of {name} nothing is kept to look into.")
        taken = session.scalar(
            select(func.count())
            .select_from(ContributionRow)
            .where(ContributionRow.round_id == row.id, ContributionRow.chosen)
        )
        verdict = GateVerdict.model_validate(row.gate)
        given = fuse_inputs.of_round(session, row, items)
        gate = policy.gate.model_copy(update={"min_evaluators": 1})
        return _Case(
            given=replace(given, recipe=_recipe(session, given.recipe, gate, verdict)),
            gate=gate,
            verdict=verdict,
            fewest=rounds.fewest(policy),
            withdrawn=(taken or 0) - len(items),
            contributors={item.id: item.contributor.name for item in items},
        )


def _recipe(session: Session, recipe: Recipe, gate: Gate, verdict: GateVerdict) -> Recipe:
    """Return the recipe; after a line search with the rate that the gate took, or would have."""
    ids = [one.candidate for one in verdict.line_search]
    rows = session.scalars(select(CandidateRow).where(CandidateRow.id.in_(ids)))
    fitting = {row.id for row in rows if gates.too_long(gate, row.relative_norm) is None}
    tried = [one for one in verdict.line_search if one.candidate in fitting]
    if not tried:
        return recipe
    rates = [one.server_lr for one in tried]
    # Of those that nobody has scored the nearest to 1.0.
    index = best(rates, [one.score or 0.0 for one in tried])
    return recipe.model_copy(update={"server_lr": rates[index]})


def _room(case: _Case, search: Search) -> Path | None:
    """Return where models may be written; null: anywhere, since none are."""
    if case.by_norm:
        return None
    if search.evaluator is None and not case.is_measured:
        raise InvalidRequest(
            f"The gate has measured no harm in round {case.given.round}, so nobody is known to "
            f"have done any: {case.verdict.reason}",
            hint="Fuse all again with: coldfusion-server round again; or have it measured here, "
            "with the suite's file: --evaluate SUITE.yaml",
        )
    if search.evaluator is None:
        raise InvalidRequest(
            f"The gate measured by the suite {case.gate.suite!r}, which needs its data here.",
            hint="Give the suite's file: --evaluate SUITE.yaml",
        )
    if not _is_the_gates(search.evaluator.suite, case):
        raise SuiteChanged(
            f"The suite {search.evaluator.suite.name!r} is not the one that the gate measured "
            f"with, {case.gate.suite!r}: their data or settings differ.",
            hint="Give the file, and the data, that the evaluators of the gate have.",
        )
    search.evaluator.folder.mkdir(parents=True, exist_ok=True)
    return search.evaluator.folder


def _is_the_gates(suite: Suite, case: _Case) -> bool:
    if case.verdict.suite_digest is None:
        # Nobody had registered it by then.
        return suite.name == case.gate.suite
    return suite.digest() == case.verdict.suite_digest


class _Trial:
    """Fuses a part of the round and asks whether the gate would reject that."""

    def __init__(self, ctx: Context, case: _Case, search: Search, folder: Path) -> None:
        self.ctx, self.case, self.folder, self.search = ctx, case, folder, search
        self.reason = ""
        self.base: EvaluationReport | None = None

    def __call__(self, ids: frozenset[str]) -> bool:
        given = _part(self.case.given, ids)
        if len(ids) < self.case.fewest or not any(one.prior for one in given.contributions):
            self.reason = "Too few to be fused: there would be no new base."
            return False
        verdict = self._judged(given)
        self.reason = verdict.reason
        return not verdict.passed

    def _judged(self, given: Input) -> GateVerdict:
        gate, alive = self.case.gate, self.search.alive
        if self.case.by_norm:
            rates = [one.server_lr for one in self.case.verdict.line_search]
            found = fuse(self.ctx, given, Work(alive), DigestSink(), rates)
            norms = [made.relative_norm for made in found if made.relative_norm is not None]
            # How it scores was never asked of the whole round, either.
            only = Gate(kind="norm", max_relative_norm=gate.max_relative_norm)
            # Of a line search one rate that is short enough is enough.
            return gates.decide(only, min(norms, default=None))
        evaluator = self.search.evaluator
        assert evaluator is not None, "checked at the beginning"
        with TemporaryDirectory(prefix="part.", dir=self.folder) as part:
            norm = fuse_into(self.ctx, given, Path(part), alive)
            base = self.folder / "base"
            if self.base is None:
                check_out(self.ctx, given.base.files, base, alive)
                self.base = evaluator.measure(base, alive)
            report = evaluator.measure(Path(part) / "model", alive, base)
        measured = gates.Measurements(evaluator.suite, {HERE: self.base}, {HERE: report})
        return gates.decide(gate, norm, measured)


def _part(given: Input, ids: frozenset[str]) -> Input:
    return replace(given, contributions=[one for one in given.contributions if one.id in ids])


def named(found: Bisection) -> Sequence[str]:
    """Return the ids that are to be left out, by what was found."""
    return () if found.culprits is None else found.culprits.named + found.culprits.suspected
