"""How much of a round may be of one contributor, of one data set, of one task."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, floor
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from coldfusion_shared.schemas.models import Policy

Kind = Literal["contributor", "dataset", "task"]

KINDS: dict[Kind, str] = {"contributor": "contributor", "dataset": "data set", "task": "task"}

# A share of 0.29 is 29 of 100, though 0.29 * 100 is a little less.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Waiting:
    """
    An accepted contribution whose round has not closed.

    Attributes:
        id: its name.
        contributor: who sent it.
        dataset: as declared; what declares none counts as of one data set.
        task: likewise.
        position: its place in the order of acceptance.
    """

    id: str
    contributor: str
    dataset: str | None
    task: str | None
    position: int

    def group(self, kind: Kind) -> str | None:
        """Return its contributor, data set or task; null: it declares none."""
        found: str | None = getattr(self, kind)
        return found


@dataclass(frozen=True)
class Limit:
    """
    The most that a round takes of one group: of a contributor, a data set or a task.

    Attributes:
        kind: of which.
        number: contributions; null: any.
        share: of the round, strictly: of 4 contributions, 0.3 allows one; null: any.
    """

    kind: Kind
    number: int | None
    share: float | None

    def most(self, size: int) -> int:
        """Return how many contributions of a group may be in a round of `size`."""
        most = size if self.number is None else min(size, self.number)
        return most if self.share is None else min(most, floor(self.share * size + _ROUNDING))

    def fewest(self) -> int:
        """Return how many contributions a round needs at least, so that a group may have one."""
        if self.share is None:
            return 1
        size = ceil((1 - _ROUNDING) / self.share)
        return size if self.most(size) else size + 1


def limits(policy: Policy) -> list[Limit]:
    """Return the limits that the policy sets."""
    found = (
        Limit("contributor", policy.max_per_contributor, policy.max_share_per_contributor),
        Limit("dataset", policy.max_per_dataset, policy.max_share_per_dataset),
        Limit("task", policy.max_per_task, policy.max_share_per_task),
    )
    return [limit for limit in found if limit.number is not None or limit.share is not None]


def fewest(found: Iterable[Limit]) -> int:
    """Return how many contributions a round needs at least, by its shares."""
    return max((limit.fewest() for limit in found), default=1)
