"""All that a fuse depends on, read in one transaction: for a round, or as a manifest tells it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import BaseRow, ContributionRow, ModelRow, RoundRow
from coldfusion_server.services import head_moves, rounds
from coldfusion_server.services.lookup import find_base, manifest_of
from coldfusion_shared.errors import BaseNotFound
from coldfusion_shared.schemas.bases import FusedContribution, Manifest, ParentBase
from coldfusion_shared.schemas.files import FileEntry
from coldfusion_shared.schemas.recipes import Recipe
from coldfusion_shared.weights.codecs import discover


@dataclass(frozen=True)
class Input:
    """
    What one fuse depends on.

    Attributes:
        model: owner/name.
        version: of the base that it makes.
        round: number of the round whose contributions they are.
        base: what is fused onto.
        base_digest: of that base's manifest.
        origin: v0.
        recipe: how.
        contributions: what is fused, in order.
        bases: what late contributions were made from, by the digest of its manifest.
        replays: the base that the result stands in for, in a replay.
        without: what the replay leaves out.
    """

    model: str
    version: str
    round: int | None
    base: Manifest
    base_digest: str
    origin: Manifest
    recipe: Recipe
    contributions: list[FusedContribution]
    bases: dict[str, Manifest]
    replays: str | None = None
    without: tuple[str, ...] = ()

    def own_base(self, item: FusedContribution) -> Manifest:
        """Return what the contribution was made from."""
        return self.base if item.base is None else self.bases[item.base.digest]


def of_round(
    session: Session, row: RoundRow, items: Sequence[ContributionRow] | None = None
) -> Input:
    """
    Return what the round fuses: what its closing took and nobody has taken back since.

    With `items`, those in their place.
    """
    model = session.get_one(ModelRow, row.model_id)
    base = base_numbered(session, model, row.base_number)
    policy = rounds.policy_in_force(model, row)
    taken = rounds.taken(session, row) if items is None else items
    others = {item.base_number for item in taken} - {row.base_number}
    own = {number: base_numbered(session, model, number) for number in others}
    return Input(
        model=model.name,
        version=f"v{head_moves.newest(session, model) + 1}",
        round=row.number,
        base=manifest_of(base),
        base_digest=base.digest,
        origin=manifest_of(find_base(session, model, "v0")),
        recipe=policy.recipe(),
        contributions=[
            _contribution(item, own.get(item.base_number), policy.contributor_weights)
            for item in taken
        ],
        bases={found.digest: manifest_of(found) for found in own.values()},
    )


def alone(session: Session, item: ContributionRow) -> Input:
    """Return what adds one contribution, and nothing else, to the base that it was made from."""
    base = base_numbered(session, item.model, item.base_number)
    manifest = manifest_of(base)
    only = _contribution(item, None, {}).model_copy(update={"staleness": 0})
    return Input(
        model=item.model.name,
        version=manifest.version,
        round=None,
        base=manifest,
        base_digest=base.digest,
        origin=manifest,
        recipe=Recipe(),
        contributions=[only],
        bases={},
    )


def of_manifest(session: Session, model: ModelRow, manifest: Manifest) -> Input:
    """
    Return what a published base was fused from, by its manifest.

    Raises:
        BaseNotFound: the Repository has not a base any more that the manifest names.
    """
    assert manifest.parent is not None and manifest.recipe is not None, "v0 is not fused"
    parent = _base_of_digest(session, model, manifest.parent)
    named = [item.base for item in manifest.contributions if item.base is not None]
    own = [_base_of_digest(session, model, base) for base in named]
    return Input(
        model=manifest.model,
        version=manifest.version,
        round=manifest.round,
        base=manifest_of(parent),
        base_digest=parent.digest,
        origin=manifest_of(find_base(session, model, "v0")),
        recipe=manifest.recipe,
        contributions=manifest.contributions,
        bases={row.digest: manifest_of(row) for row in own},
        replays=manifest.replays,
        without=tuple(manifest.without),
    )


def base_numbered(session: Session, model: ModelRow, number: int) -> BaseRow:
    """Return the row of a base that is known to be there."""
    query = select(BaseRow).where(BaseRow.model_id == model.id, BaseRow.number == number)
    return session.scalars(query).one()


def _base_of_digest(session: Session, model: ModelRow, named: ParentBase) -> BaseRow:
    query = select(BaseRow).where(BaseRow.model_id == model.id, BaseRow.digest == named.digest)
    row = session.scalar(query)
    if row is None:
        raise BaseNotFound(
            f"{model.name} has no base {named.version} with the digest {named.digest[:12]}...",
            hint="The database does not belong to this manifest; restore the one that does.",
        )
    return row


def _contribution(
    item: ContributionRow, own: BaseRow | None, weights: dict[str, float]
) -> FusedContribution:
    return FusedContribution(
        id=item.id,
        contributor=item.contributor.name,
        encoding=item.encoding,
        relative_error=item.work.get("relative_error"),
        files=[
            FileEntry(path=file.path, size=file.size, sha256=file.sha256)
            for file in item.files
            if file.path in discover()[item.encoding].files
        ],
        base=None if own is None else ParentBase(version=f"v{own.number}", digest=own.digest),
        staleness=item.staleness or 0,
        prior=weights.get(item.contributor.name, 1.0),
        weight=None,
    )
