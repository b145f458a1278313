"""What each page or part of one shows, read through the services with the visitor's rights."""

from __future__ import annotations

from dataclasses import dataclass

from coldfusion_server.dashboard import words
from coldfusion_server.dashboard.scores import Measured, Series, Table, series
from coldfusion_server.services import (
    bases,
    comparing,
    contributed,
    contributions,
    courses,
    head_moves,
    lineage,
    models,
    rounds,
    tallying,
    usage,
    waiting,
)
from coldfusion_server.services.agreement import agreements
from coldfusion_server.services.bases import OriginOfBase
from coldfusion_server.services.comparing import Compared, Place
from coldfusion_server.services.context import Context
from coldfusion_server.services.evaluation_tries import EvaluationFailure
from coldfusion_server.services.lineage import Lineage
from coldfusion_server.services.lookup import find_model
from coldfusion_server.services.measured import Measurements, measurements
from coldfusion_server.services.paging import Window
from coldfusion_server.services.tallying import Tally
from coldfusion_server.services.tokens import Principal
from coldfusion_shared.rounds import RoundState
from coldfusion_shared.schemas.agreement import EvaluatorAgreement
from coldfusion_shared.schemas.bases import Base
from coldfusion_shared.schemas.common import Page
from coldfusion_shared.schemas.contributions import Contribution
from coldfusion_shared.schemas.contributors import Contributor
from coldfusion_shared.schemas.evaluations import Suite
from coldfusion_shared.schemas.models import Model
from coldfusion_shared.schemas.rounds import Round
from coldfusion_shared.schemas.usage import ModelUsage
from coldfusion_shared.schemas.waiting import Waiting

NEWEST = Window(limit=1)
# v0 and so many of the newest bases of the head's line are drawn; on the overview fewer.
DRAWN, SKETCHED = 199, 30
# Rounds on a time line.
COURSE = 300


@dataclass(frozen=True)
class Card:
    """A model on the overview."""

    model: Model
    base: Base
    round: Round
    closing: words.Closing | None
    series: Series | None
    failed: bool


@dataclass(frozen=True)
class RoundView:
    """
    A round with a page of its contributions.

    Attributes:
        model: whose round it is.
        round: the round.
        closing: what it still needs; null: it is not open.
        contributions: a page of them.
        tally: of all of them.
    """

    model: Model
    round: Round
    closing: words.Closing | None
    contributions: Page[Contribution]
    tally: Tally

    @property
    def moving(self) -> bool:
        """Whether numbers change that no event tells of: bytes arriving, a fuse."""
        return self.fusing or self.arriving

    @property
    def fusing(self) -> bool:
        """Whether the round itself moves without an event: it is on its way to a base."""
        return self.round.state in words.MOVING_ROUNDS

    @property
    def arriving(self) -> bool:
        """Whether bytes arrive that no event tells of."""
        return self.round.state == RoundState.OPEN and any(
            item.state in words.MOVING_CONTRIBUTIONS for item in self.contributions.items
        )


@dataclass(frozen=True)
class ContributionView:
    """A contribution, and where the others lay that were fused with it."""

    item: Contribution
    others: list[Place]

    @property
    def cosines(self) -> list[float]:
        """Cosines of the others with the mean of the round."""
        return [one.cosine for one in self.others if one.cosine is not None]

    @property
    def norm_ratios(self) -> list[float]:
        """Lengths of the others over the median of the round."""
        return [one.norm_ratio for one in self.others if one.norm_ratio is not None]


@dataclass(frozen=True)
class ContributorView:
    """A contributor with a page of the contributions."""

    contributor: Contributor
    contributions: Page[Contribution]

    @property
    def moving(self) -> bool:
        """Whether bytes arrive that no event tells of."""
        return any(c.state in words.MOVING_CONTRIBUTIONS for c in self.contributions.items)


@dataclass(frozen=True)
class CurrentView:
    """The current base and how good it is, beside the bases before it; what failed is of it."""

    model: Model
    base: Base
    series: list[Series]
    failures: list[EvaluationFailure]


@dataclass(frozen=True)
class Result:
    """
    How good one base is, by one protocol on one suite.

    Attributes:
        series: of v0, its parent and itself, as far as they were measured; it is the last one.
        table: the same data set by data set, with what changed since the other two.
        suite: the registered one; null: the scores are not pinned.
        agreement: of its evaluators, by name.
    """

    series: Series
    table: Table
    suite: Suite | None
    agreement: dict[str, EvaluatorAgreement]

    @property
    def measured(self) -> Measured:
        """The base itself."""
        return self.series.bases[-1]

    @property
    def tested(self) -> int:
        """How many examples the suite scores."""
        return sum(dataset.test for dataset in self.suite.datasets) if self.suite else 0

    def beside(self, evaluator: str) -> EvaluatorAgreement | None:
        """Return an evaluator beside the others; null: nobody else measured the same."""
        return self.agreement.get(evaluator)


@dataclass(frozen=True)
class BaseView:
    """
    A base and how good it is, beside v0 and its parent; what failed is of it.

    Attributes:
        model: whose base it is.
        base: the base.
        abandoned: whether the head neither is it nor comes from it, as after a rollback.
        results: how good it is.
        failures: what could not be measured of it.
    """

    model: Model
    base: Base
    abandoned: bool
    results: list[Result]
    failures: list[EvaluationFailure]


@dataclass(frozen=True)
class History:
    """All rounds and bases, newest first."""

    model: Model
    rounds: Page[Round]
    bases: Page[OriginOfBase]


@dataclass(frozen=True)
class Reader:
    """Reads for one visitor."""

    ctx: Context
    who: Principal | None

    def overview(self, window: Window) -> Page[Card]:
        """Return the models that the visitor may read."""
        page = models.list_models(self.ctx, self.who, window)
        cards = [self._card(model) for model in page.items]
        return Page[Card](items=cards, next_cursor=page.next_cursor)

    def waiting(self, name: str | None = None) -> Waiting:
        """Return what waits for a maintainer, of all models or of one."""
        return waiting.waiting(self.ctx, self.who, name)

    def lineage(self, model: Model, upto: int | None = None) -> Lineage:
        """Return a model's bases, and what those of a range were fused from."""
        return lineage.lineage(self.ctx, model.name, self.who, upto)

    def model(self, name: str) -> Model:
        """Return a model."""
        return models.get_model(self.ctx, name, self.who)

    def current(self, model: Model) -> CurrentView:
        """Return the current base and its scores."""
        base = bases.get_base(self.ctx, model.name, model.current, self.who)
        found = self._newest(model, DRAWN)
        return CurrentView(model, base, _together(found), _failures(found, base))

    def base(self, name: str, version: str) -> BaseView:
        """Return one base and its scores, beside those of v0 and of its parent."""
        model = self.model(name)
        base = bases.get_base(self.ctx, name, version, self.who)
        abandoned = not base.current and int(base.version[1:]) not in self._line(model)
        parent = base.manifest.parent
        others = ["v0", *([parent.version] if parent else [])]
        versions = list(dict.fromkeys([*others, base.version]))
        found = self._measured(name, {int(version[1:]) for version in versions})
        results = [
            _result(item, found, versions)
            for item in _together(found)
            if item.versions[-1] == base.version
        ]
        return BaseView(model, base, abandoned, results, _failures(found, base))

    def round(self, model: Model, number: str | None, window: Window) -> RoundView:
        """Return a round, by default the newest, with its contributions."""
        if number is None:
            found = self._newest_round(model)
        else:
            found = rounds.get_round(self.ctx, model.name, number, self.who)
        page = contributions.list_contributions(
            self.ctx, model.name, self.who, window, round_number=str(found.number)
        )
        tally = tallying.of_round(self.ctx, model.name, str(found.number), self.who)
        return RoundView(model, found, self._closing(model, found), page, tally)

    def compared(self, view: RoundView) -> Compared:
        """Return how the contributions of a round's page lie to each other."""
        ids = [item.id for item in view.contributions.items]
        return comparing.compare(self.ctx, view.model.name, str(view.round.number), ids, self.who)

    def contributor(self, name: str, window: Window) -> ContributorView:
        """Return what one contributor has done, as far as the visitor may know."""
        return ContributorView(
            contributed.get_contributor(self.ctx, name, self.who),
            contributed.list_contributed(self.ctx, name, self.who, window),
        )

    def history(self, model: Model, past: Window, versions: Window) -> History:
        """Return rounds and bases."""
        return History(
            model,
            rounds.list_rounds(self.ctx, model.name, self.who, past),
            bases.list_origins(self.ctx, model.name, self.who, versions),
        )

    def course(self, model: Model) -> courses.Course:
        """Return what became of the newest rounds, of the head and of the bases."""
        return courses.course(self.ctx, model.name, self.who, COURSE)

    def usage(self, model: Model) -> ModelUsage:
        """Return what the model's bases and contributions take."""
        return usage.model_usage(self.ctx, model.name, self.who)

    def contribution(self, number: str) -> ContributionView:
        """Return one contribution, and where the others of its round lay."""
        item = contributions.get_contribution(self.ctx, number, self.who)
        places = comparing.places(self.ctx, item.model, str(item.round), self.who)
        return ContributionView(item, [one for one in places if one.id != item.id])

    def _card(self, model: Model) -> Card:
        base = bases.get_base(self.ctx, model.name, model.current, self.who)
        newest = self._newest_round(model)
        found = self._newest(model, SKETCHED)
        first = next(iter(_together(found)), None)
        failed = any(failure.left for failure in _failures(found, base))
        return Card(model, base, newest, self._closing(model, newest), first, failed)

    def _newest_round(self, model: Model) -> Round:
        # A model is made with its first round.
        return rounds.list_rounds(self.ctx, model.name, self.who, NEWEST).items[0]

    def _closing(self, model: Model, round_: Round) -> words.Closing | None:
        if round_.state != RoundState.OPEN:
            return None
        return words.closing(round_, model.policy, self.ctx.now())

    def _newest(self, model: Model, newest: int) -> Measurements:
        return self._measured(model.name, {0, *self._line(model)[:newest]})

    def _line(self, model: Model) -> list[int]:
        """Return the numbers of the head and of all that it comes from, down to v0."""
        with self.ctx.database.read() as session:
            parents = head_moves.parents(session, find_model(session, model.name, self.who))
        line = [int(model.current[1:])]
        while (parent := parents[line[-1]]) is not None:
            line.append(parent)
        return line

    def _measured(self, name: str, numbers: set[int]) -> Measurements:
        return measurements(self.ctx, name, self.who, numbers)


def _together(found: Measurements) -> list[Series]:
    seen = {
        digest: {dataset.name: dataset.seen for dataset in suite.datasets}
        for digest, suite in found.suites.items()
    }
    return series(found.evaluations, seen)


def _failures(found: Measurements, base: Base) -> list[EvaluationFailure]:
    return [failure for failure in found.failures if failure.version == base.version]


def _result(item: Series, found: Measurements, versions: list[str]) -> Result:
    several = [
        one
        for group in agreements(item.bases[-1].evaluations)
        if len(group.evaluators) > 1
        for one in group.evaluators
    ]
    return Result(
        item,
        item.table(versions, versions[:-1]),
        found.suites.get(item.digest or ""),
        {one.evaluator: one for one in several},
    )
