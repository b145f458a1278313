"""
Which objects are needed, and the lock by which new references and garbage collection take turns.

An object is needed by whatever names it: a base, for ever; a newest base's difference from the one
before, as long as it is one of them; a candidate that may still become a base; a contribution on
its way to a base; one that is part of a base, as long as its model's policy keeps it; and what the
hub door holds for a contribution that is not declared yet.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Select, and_, func, or_, select, text, true
from sqlalchemy.orm import InstrumentedAttribute, Session

from coldfusion_server.db.tables import (
    BaseFileRow,
    BaseRow,
    CandidateRow,
    ContributionFileRow,
    ContributionRow,
    DifferenceRow,
    HubUploadRow,
    HubXorbRow,
    ModelRow,
    ReplayRow,
    RoundRow,
)
from coldfusion_server.services import head_moves
from coldfusion_server.services.lookup import policy_of
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.replays import OPEN
from coldfusion_shared.rounds import RoundState

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
    ContributionState.SET_ASIDE,
)

# What comes of reading a manifest that is none.
_DAMAGES = (ValueError, LookupError, TypeError, AttributeError, RecursionError)


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


@dataclass(frozen=True)
class Damaged:
    """
    A base or a candidate whose manifest was changed in the database: what it named is not known.

    Attributes:
        model: the model's id.
        name: what people call the base or the candidate.
    """

    model: int
    name: str

    @property
    def sentence(self) -> str:
        """The same in words."""
        return f"The manifest of {self.name} was changed in the database: what it named is unknown."


class Manifests:
    """
    The objects that manifests name. A base never changes, so each is read once.

    Attributes:
        damaged: whose manifest could not be gone by, when they were looked at last.
    """

    def __init__(self) -> None:
        """Begin with nothing read."""
        self.damaged: list[Damaged] = []
        self._bases: set[int] = set()
        self._digests: set[str] = set()

    def look(self, session: Session) -> set[str]:
        """
        Return the digests of all that bases and candidates under way are made of or had by.

        What a damaged manifest named is not among them, as far as nothing else tells of it.
        """
        self.damaged = []
        # Candidates first: what is published between the two queries is found in the second.
        found = self._of_candidates(session)
        for number in set(session.scalars(select(BaseRow.id))) - self._bases:
            row = session.get_one(BaseRow, number)
            if (named := _published(row)) is not None:
                self._digests |= named.keys()
                self._bases.add(number)
            else:
                self.damaged.append(_damaged(session, row.model_id, f"v{row.number}"))
                found |= _listed(session, row).keys()
        differences = offered_differences(select(DifferenceRow.sha256))
        return found | self._digests | set(session.scalars(differences))

    def _of_candidates(self, session: Session) -> set[str]:
        found: set[str] = set()
        query = select(CandidateRow.id, CandidateRow.model_id, CandidateRow.manifest)
        waiting = query.where(~CandidateRow.given_up, CandidateRow.base_id.is_(None))
        for identity, model, manifest in session.execute(waiting):
            if (named := _named(manifest)) is not None:
                found |= named.keys()
            else:
                self.damaged.append(_damaged(session, model, f"candidate {identity}"))
        return found


def offered_differences(query: Query) -> Query:
    """Let `query` see the differences to the newest bases of each model; others are given up."""
    return (
        query.join(BaseRow, BaseRow.id == DifferenceRow.base_id)
        .join(ModelRow, ModelRow.id == BaseRow.model_id)
        .where(BaseRow.number > ModelRow.current - DIFFERENCES)
    )


def base_objects(
    session: Session, *where: ColumnElement[bool]
) -> tuple[dict[str, int], list[Damaged]]:
    """
    Return the objects of the bases for which `where` holds: sizes in bytes by digest.

    Of those whose manifest is damaged, which are told beside, there is only what people pull.
    """
    found, damaged = dict[str, int](), list[Damaged]()
    for row in session.scalars(select(BaseRow).where(*where).order_by(BaseRow.id)):
        if (named := _published(row)) is None:
            damaged.append(_damaged(session, row.model_id, f"v{row.number}"))
            named = _listed(session, row)
        found |= named
    return found, damaged


def contributed_elsewhere(session: Session, models: Collection[int]) -> set[str]:
    """Return the digests that contributions have, and none to one of `models`."""
    query = stored_files(select(ContributionFileRow.sha256)).distinct()
    inside = query.where(ContributionRow.model_id.in_(models))
    return set(session.scalars(query)) - set(session.scalars(inside))


def staged_objects(session: Session, among: Collection[str] | None = None) -> set[str]:
    """Return the digests, of all or of those in `among`, of what waits for a declaration."""
    # Xorbs first: of those that go meanwhile there is a file in the second.
    return _digests_of(session, HubXorbRow.sha256, HubXorbRow.sha256.is_not(None), among) | (
        _digests_of(session, HubUploadRow.sha256, HubUploadRow.stored.is_(True), among)
    )


def _digests_of(
    session: Session,
    column: InstrumentedAttribute[str] | InstrumentedAttribute[str | None],
    where: ColumnElement[bool],
    among: Collection[str] | None,
) -> set[str]:
    query = select(column).where(where)
    if among is not None:
        query = query.where(column.in_(among))
    return {digest for digest in session.scalars(query) if digest is not None}


def given_up_with(session: Session, contribution: ContributionRow) -> set[str]:
    """Return the digests that given up candidates name which the contribution is part of."""
    query = select(CandidateRow.manifest).where(
        CandidateRow.given_up,
        CandidateRow.model_id == contribution.model_id,
        CandidateRow.manifest.contains(contribution.id),
    )
    return _digests(text for text in session.scalars(query) if _has(text, contribution.id))


def given_up_candidates(session: Session) -> set[str]:
    """Return the digests that candidates name which have become no base and never will."""
    query = select(CandidateRow.manifest).where(CandidateRow.given_up)
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
    kept = or_(~or_(*past), *_replayed(session)) if past else true()
    # What was withdrawn afterwards is part of its bases all the same.
    fused = ContributionRow.state == ContributionState.FUSED
    fused |= ContributionRow.result_number.is_not(None)
    return and_(
        # Given up once is given up, also where a policy has been set back since.
        ContributionFileRow.erased_at.is_(None),
        or_(
            ContributionRow.state.in_(WAITED_FOR),
            and_(fused, kept),
        ),
    )


def _replayed(session: Session) -> Iterator[ColumnElement[bool]]:
    """
    Yield the conditions of what went into the bases that replays are at, whatever policies say.

    What they leave out is kept with the rest of its round.
    """
    query = select(ReplayRow).where(ReplayRow.state.in_(OPEN))
    for row in session.scalars(query):
        model = session.get_one(ModelRow, row.model_id)
        parents, places = head_moves.parents(session, model), head_moves.places(session, model)
        fused, number = set[int](), row.head_number
        while number != row.from_number:
            fused.add(places[number])
            parent = parents[number]
            assert parent is not None, "the head comes from the base that a replay starts from"
            number = parent
        yield and_(
            ContributionRow.model_id == row.model_id, ContributionRow.result_number.in_(fused)
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


def _damaged(session: Session, model: int, what: str) -> Damaged:
    return Damaged(model, f"{session.get_one(ModelRow, model).name} {what}")


def _published(row: BaseRow) -> dict[str, int] | None:
    """Return what a base's manifest names; null: it is not the one that was published."""
    same = hashlib.sha256(row.manifest.encode()).hexdigest() == row.digest
    return _named(row.manifest) if same else None


def _listed(session: Session, row: BaseRow) -> dict[str, int]:
    """Return what people pull of a base, which the database lists beside its manifest."""
    query = select(BaseFileRow.sha256, BaseFileRow.size).where(BaseFileRow.base_id == row.id)
    return {digest: size for digest, size in session.execute(query)}


def _has(manifest: str, contribution: str) -> bool:
    try:
        return any(item["id"] == contribution for item in json.loads(manifest)["contributions"])
    except _DAMAGES:
        return False


def _digests(manifests: Iterable[str]) -> set[str]:
    return {digest for manifest in manifests for digest in _named(manifest) or ()}


def _named(manifest: str) -> dict[str, int] | None:
    """Return sizes by digest; null: it is damaged. The schema would take a hundred times longer."""
    try:
        named = json.loads(manifest)
        files = [*named["files"], *named.get("master", []), *named.get("optimizer_state", [])]
        return {file["sha256"]: file["size"] for file in files}
    except _DAMAGES:
        return None
