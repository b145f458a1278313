"""What each page or part of one shows, read through the services with the visitor's rights."""

from __future__ import annotations

from dataclasses import dataclass

from coldfusion_server.dashboard import words
from coldfusion_server.dashboard.scores import Series, series
from coldfusion_server.services import bases, contributions, evaluations, models, rounds, usage
from coldfusion_server.services.context import Context
from coldfusion_server.services.paging import Window
from coldfusion_server.services.tokens import Principal
from coldfusion_shared.rounds import RoundState
from coldfusion_shared.schemas.bases import Base, Evaluation
from coldfusion_shared.schemas.common import Page
from coldfusion_shared.schemas.contributions import Contribution
from coldfusion_shared.schemas.models import Model
from coldfusion_shared.schemas.rounds import Round
from coldfusion_shared.schemas.usage import ModelUsage

NEWEST = Window(limit=1)
# v0 and this many of the newest bases are compared; on the overview fewer.
COMPARED, SKETCHED = 11, 5


@dataclass(frozen=True)
class Card:
    """A model on the overview."""

    model: Model
    base: Base
    round: Round
    closing: words.Closing | None
    series: Series | None


@dataclass(frozen=True)
class RoundView:
    """A round with its contributions."""

    model: Model
    round: Round
    closing: words.Closing | None
    contributions: Page[Contribution]

    @property
    def moving(self) -> bool:
        """Whether numbers change that no event tells of: bytes arriving, a fuse."""
        return self.round.state in words.MOVING_ROUNDS or (
            self.round.state == RoundState.OPEN
            and any(c.state in words.MOVING_CONTRIBUTIONS for c in self.contributions.items)
        )


@dataclass(frozen=True)
class BaseView:
    """A base and how good it is, beside the bases before it."""

    model: Model
    base: Base
    series: list[Series]


@dataclass(frozen=True)
class History:
    """All rounds and bases, newest first."""

    model: Model
    rounds: Page[Round]
    bases: Page[Base]


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

    def model(self, name: str) -> Model:
        """Return a model."""
        return models.get_model(self.ctx, name, self.who)

    def current(self, model: Model) -> BaseView:
        """Return the current base and its scores."""
        base = bases.get_base(self.ctx, model.name, model.current, self.who)
        return BaseView(model, base, self._series(model, COMPARED))

    def base(self, name: str, version: str) -> BaseView:
        """Return one base and its scores, beside those of v0."""
        base = bases.get_base(self.ctx, name, version, self.who)
        return BaseView(self.model(name), base, self._measured(name, {0, int(base.version[1:])}))

    def round(self, model: Model, number: str | None, window: Window) -> RoundView:
        """Return a round, by default the newest, with its contributions."""
        if number is None:
            found = self._newest_round(model)
        else:
            found = rounds.get_round(self.ctx, model.name, number, self.who)
        page = contributions.list_contributions(
            self.ctx, model.name, self.who, window, round_number=str(found.number)
        )
        return RoundView(model, found, self._closing(model, found), page)

    def history(self, model: Model, past: Window, versions: Window) -> History:
        """Return rounds and bases."""
        return History(
            model,
            rounds.list_rounds(self.ctx, model.name, self.who, past),
            bases.list_bases(self.ctx, model.name, self.who, versions),
        )

    def usage(self, model: Model) -> ModelUsage:
        """Return what the model's bases and contributions take."""
        return usage.model_usage(self.ctx, model.name, self.who)

    def contribution(self, number: str) -> Contribution:
        """Return one contribution."""
        return contributions.get_contribution(self.ctx, number, self.who)

    def _card(self, model: Model) -> Card:
        base = bases.get_base(self.ctx, model.name, model.current, self.who)
        newest = self._newest_round(model)
        measured = self._series(model, SKETCHED)
        first = measured[0] if measured else None
        return Card(model, base, newest, self._closing(model, newest), first)

    def _newest_round(self, model: Model) -> Round:
        # A model is made with its first round.
        return rounds.list_rounds(self.ctx, model.name, self.who, NEWEST).items[0]

    def _closing(self, model: Model, round_: Round) -> words.Closing | None:
        if round_.state != RoundState.OPEN:
            return None
        return words.closing(round_, model.policy, self.ctx.now())

    def _series(self, model: Model, newest: int) -> list[Series]:
        last = int(model.current[1:])
        return self._measured(model.name, {0, *range(max(0, last - newest + 1), last + 1)})

    def _measured(self, name: str, numbers: set[int]) -> list[Series]:
        measured: list[Evaluation] = []
        for number in sorted(numbers):
            measured += evaluations.list_evaluations(self.ctx, name, f"v{number}", self.who)
        return series(measured)
