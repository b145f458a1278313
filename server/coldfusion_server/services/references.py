"""
Which objects are needed, and the lock by which new references and garbage collection take turns.

An object is needed by whatever names it: a base, for ever; a newest base's difference from the one
before, as long as it is one of them; the candidate of a round that is under
way; a contribution on its way to a base; and one that is part of a base, as long as its model's
policy keeps it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Select, and_, func, or_, select, text
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import (
    BaseRow,
    ContributionFileRow,
    ContributionRow,
    DifferenceRow,
    ModelRow,
    RoundRow,
)
from coldfusion_server.services.lookup import policy_of
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.rounds import TRANSITIONS, RoundState

Query = TypeVar("Query", bound=Select[*tuple[Any, ...]])

# The key of PostgreSQL's advisory lock: any number that nobody else takes.
REFERENCES = 0xC01DF0512
# More than the patience of any store's client.
HELD_SECONDS = 600
# Bases of a model, the newest, that can be had by their difference from the one before.
DIFFERENCES = 3
# What their files are needed for is still to come.
WAITED_FOR = (
    ContributionState.DECLARED,
    ContributionState.COMPLETED,
    ContributionState.QUARANTINED,
    ContributionState.ACCEPTED,
)
_ENDED = [state for state, following in TRANSITIONS.items() if not following]


def refer(session: Session) -> None:
    """
    Let the caller's transaction name objects that nothing may have named before.

    It comes first in the transaction, before any lock on a row: a transaction that waits for this
    one, behind a collection that waits, too, must hold nothing that the others need.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock_shared(REFERENCES)))


def exclude(session: Session) -> None:
    """
    Keep out all who `refer` until the caller's transaction ends; those before have committed.

    SQLite has one writer at a time anyway.
    """
    if session.get_bind().dialect.name == "postgresql":
        # A deletion that a store answers late must not end outside of the lock.
        session.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = '{HELD_SECONDS}s'"))
        session.execute(select(func.pg_advisory_xact_lock(REFERENCES)))


class Manifests:
    """The objects that manifests name. A base never changes, so each is read once."""

    def __init__(self) -> None:
        """Begin with nothing read."""
        self._bases: set[int] = set()
        self._digests: set[str] = set()

    def look(self, session: Session) -> set[str]:
        """Return the digests of all that bases and candidates under way are made of or had by."""
        # Candidates first: what is published between the two queries is found in the second.
        candidates = select(RoundRow.candidate).where(
            RoundRow.candidate.is_not(None), RoundRow.state.not_in(_ENDED)
        )
        found = _digests(session.scalars(candidates))
        for number in set(session.scalars(select(BaseRow.id))) - self._bases:
            self._digests |= _digests([session.get_one(BaseRow, number).manifest])
            self._bases.add(number)
        differences = offered_differences(select(DifferenceRow.sha256))
        return found | self._digests | set(session.scalars(differences))


def offered_differences(query: Query) -> Query:
    """Let `query` see the differences to the newest bases of each model; others are given up."""
    return (
        query.join(BaseRow, BaseRow.id == DifferenceRow.base_id)
        .join(ModelRow, ModelRow.id == BaseRow.model_id)
        .where(BaseRow.number > ModelRow.current - DIFFERENCES)
    )


def base_objects(session: Session, *where: ColumnElement[bool]) -> dict[str, int]:
    """Return the objects of the bases for which `where` holds: sizes in bytes by digest."""
    manifests = session.scalars(select(BaseRow.manifest).where(*where))
    return {digest: size for manifest in manifests for digest, size in _objects(manifest)}


def given_up_candidates(session: Session) -> set[str]:
    """Return the digests that candidates of rounds name that have ended."""
    query = select(RoundRow.candidate).where(
        RoundRow.candidate.is_not(None), RoundRow.state.in_(_ENDED)
    )
    return _digests(session.scalars(query))


def stored_files(query: Query) -> Query:
    """Let `query` see the contributions' own files, with their contributions and rounds."""
    return (
        query.select_from(ContributionFileRow)
        .join(ContributionRow, ContributionRow.id == ContributionFileRow.contribution_id)
        .join(RoundRow, RoundRow.id == ContributionRow.round_id)
        .where(~ContributionFileRow.here)
    )


def needed_files(session: Session) -> ColumnElement[bool]:
    """Return the condition of `stored_files` whose bytes are needed."""
    past = [
        and_(ContributionRow.model_id == model, RoundRow.number < oldest)
        for model, oldest in _oldest_kept(session).items()
    ]
    fused = ContributionRow.state == ContributionState.FUSED
    return and_(
        # Given up once is given up, also where a policy has been set back since.
        ContributionFileRow.erased_at.is_(None),
        or_(
            ContributionRow.state.in_(WAITED_FOR),
            and_(fused, ~or_(*past)) if past else fused,
        ),
    )


def _oldest_kept(session: Session) -> dict[int, int]:
    """Return the oldest round whose contributions are kept, by model that does not keep all."""
    found = {}
    for model in session.scalars(select(ModelRow)):
        keep = policy_of(model).keep_contributions
        if keep is not None:
            found[model.id] = _oldest(session, model, keep)
    return found


def _oldest(session: Session, model: ModelRow, keep: int) -> int:
    published = (
        select(RoundRow.number)
        .where(RoundRow.model_id == model.id, RoundRow.state == RoundState.PUBLISHED)
        .order_by(RoundRow.number.desc())
    )
    if keep == 0:
        return (session.scalar(published.limit(1)) or 0) + 1
    return session.scalar(published.offset(keep - 1).limit(1)) or 0


def _digests(manifests: Iterable[str | None]) -> set[str]:
    return {digest for manifest in manifests for digest, _ in _objects(manifest or "{}")}


def _objects(manifest: str) -> Iterator[tuple[str, int]]:
    """Yield digests and sizes; not by the schema, which takes a hundred times as long."""
    named = json.loads(manifest)
    for part in ("files", "master", "optimizer_state"):
        for file in named.get(part, []):
            yield file["sha256"], file["size"]
