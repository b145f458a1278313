"""What is known of a model's other contributions when one is screened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.screening.measures import profile

if TYPE_CHECKING:
    from coldfusion_shared.screening.sketch import Sketch

# What a contribution that was let in looks like is what an honest one may look like.
_TRUSTED = frozenset(
    {ContributionState.ACCEPTED, ContributionState.SET_ASIDE, ContributionState.FUSED}
)


@dataclass(frozen=True)
class Other:
    """
    Another contribution to the same model.

    Attributes:
        id: its id.
        contributor: whose it is.
        round: number of the round that it went into, or waits for.
        base: version of the base that it was made from.
        state: accepted, set aside, fused (also if it was withdrawn after that) or quarantined.
            Others say nothing: what was rejected, or taken back in time, may be sent again.
        relative_norm: as in `Measures`.
        tensor_norms: as in `Measures`.
        digest: as in `Measures`; null: not known.
        sketch: as in `Measures`; null: not known.
    """

    id: str
    contributor: str
    round: int
    base: str
    state: ContributionState
    relative_norm: float
    tensor_norms: Mapping[str, float]
    digest: str | None = None
    sketch: Sketch | None = None

    @property
    def is_trusted(self) -> bool:
        """Whether it was let in, so that it may serve as a measure for others."""
        return self.state in _TRUSTED

    @cached_property
    def profile(self) -> Mapping[str, float]:
        """The function `profile` of `measures`, of its tensors; many are compared with one."""
        return profile(self.tensor_norms)


@dataclass(frozen=True)
class Past:
    """
    What a contribution is compared with; nothing where its contributor screens it himself.

    Attributes:
        contributor: whose contribution is screened.
        round: number of the round that it would go into.
        base: version of the base that it was made from.
        base_norm: of that base, as in `Measures`, where another's screening has measured it; null:
            it is measured.
        others: the model's other contributions, none of them twice, the one that is screened not
            among them; the newest ones suffice.
        complete: whether all that its round has are there.
    """

    contributor: str | None = None
    round: int | None = None
    base: str | None = None
    base_norm: float | None = None
    others: Sequence[Other] = ()
    complete: bool = False

    @property
    def trusted(self) -> list[Other]:
        """
        The others that were let in, of each contributor the first one of each round.

        Who sends more than others must not say more of what is usual. Its own round is asked only
        when all of it is there: until then the first ones would say it, and anybody can be first.
        """
        voices: dict[tuple[str, int], Other] = {}
        for other in self.others:
            if other.is_trusted and (self.complete or other.round != self.round):
                voices.setdefault((other.contributor, other.round), other)
        return list(voices.values())

    def of_round(self) -> list[Other]:
        """Return those that were let into the same round, when all of that are there."""
        return [other for other in self.trusted if other.round == self.round]


NOTHING = Past()
