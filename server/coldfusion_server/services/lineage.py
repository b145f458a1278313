"""How a model came to be: its bases, and what those of a range were fused from."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from sqlalchemy import select

from coldfusion_server.db.tables import BaseRow
from coldfusion_server.services.context import Context
from coldfusion_server.services.lookup import find_model
from coldfusion_server.services.tokens import Principal
from coldfusion_shared.schemas.bases import ParentBase
from coldfusion_shared.schemas.common import Response

# So many bases are read at once, with all that went into them.
RANGE = 12


class _Fused(Response):
    """What is asked of one input of a fuse."""

    id: str
    contributor: str
    base: ParentBase | None = None
    staleness: int = 0
    weight: float | None = None


class _Made(Response):
    """What is asked of a manifest: to check all of a thousand contributions takes far longer."""

    parent: ParentBase | None = None
    round: int | None = None
    contributions: list[_Fused] = []


@dataclass(frozen=True)
class Ancestor:
    """
    A base among the others.

    Attributes:
        number: of its version.
        parent: the number of the base that it was fused onto; null for v0.
        replays: the number of the base that it stands in for, where a replay made it.
        created_at: when it was published.
        current: whether it is the head.
        abandoned: whether the head neither is it nor comes from it.
        round: in which it was fused; null for v0, and where it is outside of the range.
    """

    number: int
    parent: int | None
    replays: int | None
    created_at: datetime
    current: bool = False
    abandoned: bool = False
    round: int | None = None

    @property
    def version(self) -> str:
        """The version."""
        return f"v{self.number}"

    @property
    def state(self) -> str:
        """What it is to the head, in one word."""
        return "current" if self.current else "abandoned" if self.abandoned else "older"


@dataclass(frozen=True)
class Input:
    """
    A contribution that went into a base of the range.

    Attributes:
        id: the contribution's.
        contributor: who made it.
        made_from: the number of the base that it was finetuned from.
        result: the number of the base that it went into.
        weight: factor of its update; null where the method works value by value.
        staleness: bases that it was behind.
    """

    id: str
    contributor: str
    made_from: int
    result: int
    weight: float | None
    staleness: int


@dataclass(frozen=True)
class Lineage:
    """
    All bases of a model, and what those of a range were fused from.

    Attributes:
        model: its name.
        bases: all, by number; at least v0.
        first: the number of the range's first base.
        last: the number of its last one.
        inputs: of the bases of the range, by base, in the order of the fuse.
    """

    model: str
    bases: list[Ancestor]
    first: int
    last: int
    inputs: list[Input]

    @property
    def shown(self) -> list[Ancestor]:
        """The bases of the range."""
        return [base for base in self.bases if self.first <= base.number <= self.last]

    @cached_property
    def counts(self) -> Counter[int]:
        """How many contributions went into each base of the range."""
        return Counter(item.result for item in self.inputs)

    @property
    def older(self) -> int | None:
        """The last base of the range before; null: there is none."""
        return max((base.number for base in self.bases if base.number < self.first), default=None)

    @property
    def newer(self) -> int | None:
        """The last base of the range after; null: there is none."""
        after = [base.number for base in self.bases if base.number > self.last]
        return after[:RANGE][-1] if after else None


def lineage(
    ctx: Context, name: str, principal: Principal | None, upto: int | None = None
) -> Lineage:
    """
    Return a model's bases, and what the `RANGE` bases up to number `upto` were fused from.

    Args:
        ctx: the service's surroundings.
        name: the model's.
        principal: who asks.
        upto: a base's number, or more than that; null: the newest.

    Raises:
        ModelNotFound: there is no such model, or the caller may not know of it.
    """
    with ctx.database.read() as session:
        model = find_model(session, name, principal)
        # Manifests may be long: they are read of the range alone.
        query = select(
            BaseRow.number, BaseRow.parent_number, BaseRow.replays_number, BaseRow.created_at
        )
        rows = session.execute(
            query.where(BaseRow.model_id == model.id).order_by(BaseRow.number)
        ).all()
        parents = {number: parent for number, parent, _, _ in rows}
        numbers = [number for number in parents if upto is None or number <= upto] or [0]
        first, last = numbers[-RANGE:][0], numbers[-1]
        within = BaseRow.number.between(first, last)
        shown = session.scalars(select(BaseRow).where(BaseRow.model_id == model.id, within))
        made = {row.number: _Made.model_validate_json(row.manifest) for row in shown}
    line = _line(parents, model.current)
    bases = [
        Ancestor(
            number=number,
            parent=parent,
            replays=replays,
            created_at=created_at,
            current=number == model.current,
            abandoned=number not in line,
            round=made[number].round if number in made else None,
        )
        for number, parent, replays, created_at in rows
    ]
    inputs = [one for number in sorted(made) for one in _inputs(number, made[number])]
    return Lineage(model.name, bases, first, last, inputs)


def _line(parents: dict[int, int | None], head: int) -> set[int]:
    """Return the numbers of the head and of all that it comes from."""
    found: set[int] = set()
    number: int | None = head
    while number is not None:
        found.add(number)
        number = parents[number]
    return found


def _inputs(number: int, made: _Made) -> list[Input]:
    if made.parent is None:
        return []
    return [
        Input(
            id=item.id,
            contributor=item.contributor,
            made_from=int((item.base or made.parent).version[1:]),
            result=number,
            weight=item.weight,
            staleness=item.staleness,
        )
        for item in made.contributions
    ]
