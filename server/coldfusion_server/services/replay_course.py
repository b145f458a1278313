"""
What a replay fuses again: the bases between its start and the head, and with what each.

All of it follows from the line of bases, which never changes, and from what is left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import BaseRow, ContributionFileRow, ContributionRow, ModelRow
from coldfusion_server.services import fuse_inputs
from coldfusion_server.services.fuse_inputs import Input
from coldfusion_server.services.lookup import manifest_of
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.errors import BaseNotFound, InvalidRequest
from coldfusion_shared.fusion.plan import kinds
from coldfusion_shared.schemas.bases import FusedContribution, Manifest, ParentBase

NAMED = 5


@dataclass(frozen=True)
class Course:
    """
    The way of a replay.

    Attributes:
        start: the base that stays, and is fused onto first.
        again: those that are fused again, in order.
        skipped: those of which too little is left for their method.
    """

    start: Manifest
    again: list[Manifest]
    skipped: list[Manifest]

    def needed(self, without: Collection[str]) -> Iterator[FusedContribution]:
        """Yield what is fused again, in order."""
        for manifest in self.again:
            yield from remaining(manifest, without)


def line_of(session: Session, model: ModelRow, head: int) -> list[Manifest]:
    """Return the manifests of base number `head` and of all that it comes from, v0 first."""
    query = select(BaseRow).where(BaseRow.model_id == model.id)
    rows = {row.number: row for row in session.scalars(query)}
    line, number = list[Manifest](), head
    while True:
        line.append(manifest_of(rows[number]))
        parent = rows[number].parent_number
        if parent is None:
            return line[::-1]
        number = parent


def course_of(line: Sequence[Manifest], start: str, without: Collection[str]) -> Course:
    """Return what fusing `line` again behind its base `start` means."""
    place = next(index for index, manifest in enumerate(line) if manifest.version == start)
    behind = line[place + 1 :]
    again = [manifest for manifest in behind if _has_enough(manifest, without)]
    skipped = [manifest for manifest in behind if not _has_enough(manifest, without)]
    return Course(line[place], again, skipped)


def starting_point(line: Sequence[Manifest], without: Sequence[str], wanted: str | None) -> str:
    """
    Return the version of the base that a replay starts from.

    Args:
        line: the head and all that it comes from.
        without: ids of what is left out.
        wanted: the base that was asked for; null: the newest that has none of them in it.

    Raises:
        InvalidRequest: one of them is in no base of the line, or in the one that was asked for.
        BaseNotFound: the head does not come from that one.
    """
    versions = [manifest.version for manifest in line]
    first = min(_place(line, one) for one in without)
    if wanted is None:
        return versions[first - 1]
    if wanted not in versions:
        raise BaseNotFound(
            f"{versions[-1]}, the head, does not come from {wanted}.",
            hint=f"Its line is {', '.join(versions)}; without --from, the replay starts from "
            f"{versions[first - 1]}.",
        )
    inside = next((one for one in without if _place(line, one) <= versions.index(wanted)), None)
    if inside is not None:
        raise InvalidRequest(
            f"Contribution {inside} went into {versions[_place(line, inside)]}, which is in "
            f"{wanted}: a replay that starts from {wanted} would keep it.",
            hint=f"Start from {versions[first - 1]} or one before it, or leave --from out.",
        )
    return wanted


def _place(line: Sequence[Manifest], contribution: str) -> int:
    """Return the place in `line` of the base that the contribution went into."""
    for place, manifest in enumerate(line):
        if any(item.id == contribution for item in manifest.contributions):
            return place
    raise InvalidRequest(
        f"Contribution {contribution[:40]!r} is in none of the bases that {line[-1].version}, the "
        "head, comes from.",
        hint="The manifests say what is in a base; what is not fused yet is taken back with "
        "coldfusion-server contribution remove.",
    )


def remaining(manifest: Manifest, without: Collection[str]) -> list[FusedContribution]:
    """Return what went into the base and is not left out."""
    return [item for item in manifest.contributions if item.id not in without]


def _has_enough(manifest: Manifest, without: Collection[str]) -> bool:
    assert manifest.recipe is not None, "what is fused again was fused"
    kind, left = kinds(manifest.recipe), remaining(manifest, without)
    # Weights that are all zero have no mean.
    return len(left) >= kind.method.minimum(kind.parameters) and any(item.prior for item in left)


def check_something(course: Course, model: str) -> None:
    """Raise `InvalidRequest` where nothing is left to fuse."""
    if not course.again:
        raise InvalidRequest(
            f"Without that, too little is left to fuse anything onto {course.start.version}.",
            hint=f"Go back to it: coldfusion-server model rollback {model} "
            f"{course.start.version} --reason TEXT",
        )


def check_stored(
    session: Session, model: ModelRow, course: Course, without: Collection[str]
) -> None:
    """Raise `InvalidRequest` where what would be fused again was erased; it is named."""
    gone = erased(session, model)
    lost = [item.id for item in course.needed(without) if item.id in gone]
    if not lost:
        return
    more = f" and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
    start = course.start.version
    raise InvalidRequest(
        f"What was fused after {start} cannot be fused again: the files of "
        f"{', '.join(lost[:NAMED])}{more} were erased.",
        hint="Leave them out as well, with --without, or start later, with --from, where nothing "
        "that is to go would stay.",
    )


def withdrawn(session: Session, model: ModelRow) -> set[str]:
    """Return ids of the model's contributions that went into bases and were taken back since."""
    query = select(ContributionRow.id).where(
        ContributionRow.model_id == model.id,
        ContributionRow.result_number.is_not(None),
        ContributionRow.state == ContributionState.WITHDRAWN,
    )
    return set(session.scalars(query))


def erased(session: Session, model: ModelRow) -> dict[str, datetime]:
    """Return since when files of the model's contributions are erased, by the contribution's id."""
    query = (
        select(ContributionRow.id, func.min(ContributionFileRow.erased_at))
        .join(ContributionFileRow, ContributionFileRow.contribution_id == ContributionRow.id)
        .where(ContributionRow.model_id == model.id, ContributionFileRow.erased_at.is_not(None))
        .group_by(ContributionRow.id)
    )
    return {contribution: at for contribution, at in session.execute(query) if at is not None}


def fused_again(
    session: Session,
    model: ModelRow,
    old: Manifest,
    onto: Manifest,
    without: Sequence[str],
    version: str,
) -> Input:
    """
    Return what stands in for the base `old`: its own recipe, what is left of it, onto `onto`.

    Each contribution's update stays relative to what it was made from, with the weight and the
    lateness that it had.

    Args:
        session: the transaction.
        model: whose bases they are.
        old: the base that is fused again.
        onto: what stands in for its parent, or is its parent.
        without: ids of what is left out.
        version: what the result is called.
    """
    given = fuse_inputs.of_manifest(session, model, old)
    parent = ParentBase(version=given.base.version, digest=given.base_digest)
    left = [_apart(item, parent, onto.digest()) for item in remaining(old, without)]
    own = {item.base.digest for item in left if item.base is not None}
    known = given.bases | {given.base_digest: given.base}
    return replace(
        given,
        version=version,
        base=onto,
        base_digest=onto.digest(),
        contributions=left,
        bases={digest: manifest for digest, manifest in known.items() if digest in own},
        replays=old.version,
        # What an earlier replay has left out of it is missing here, too.
        without=tuple(dict.fromkeys([*old.without, *without])),
    )


def _apart(item: FusedContribution, parent: ParentBase, onto: str) -> FusedContribution:
    """Name what the contribution was made from, where that is not what it is fused onto."""
    own = item.base or parent
    return item.model_copy(update={"base": None if own.digest == onto else own})
