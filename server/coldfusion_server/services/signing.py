"""Signatures: every base has one, of its files and its manifest, by the Repository's key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from sqlalchemy import select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import BaseRow, HeadMoveRow, ModelRow
from coldfusion_server.events import audit
from coldfusion_server.services.context import Context
from coldfusion_server.services.lookup import LATEST, find_base, find_model, manifest_of
from coldfusion_server.services.tokens import Principal
from coldfusion_shared.errors import BadKey, BadSignature, NotFound
from coldfusion_shared.schemas.bases import Manifest
from coldfusion_shared.signing.envelope import SHOWN
from coldfusion_shared.signing.heads import Head, TakenBack, sign_head
from coldfusion_shared.signing.model_signature import check_base, claimed_by, sign_base

UNSIGNED_HINT = (
    "Bases from before there were signatures are signed once, by the operator: coldfusion-server "
    "key --sign-again"
)


def sign(ctx: Context, manifest: Manifest) -> str:
    """Return the signature of the base that `manifest` describes: what ``model.sig`` holds."""
    return sign_base(manifest, ctx.signing_key)


@dataclass(frozen=True)
class SignedAgain:
    """
    What was signed with the key in force.

    Attributes:
        bases: how many.
        unsigned: those that had no signature before, such as "demo/minilm v3".
    """

    bases: int
    unsigned: list[str]


def sign_again(ctx: Context) -> SignedAgain:
    """
    Sign all bases with the key in force, in one transaction, once each is found to be sound.

    What is found out is what can be: that a manifest is the one that its digest names, that its
    parent is the base of that digest, and that a signature is of it; of one by a key that is not
    at hand, which is not proven, that it says so.

    Raises:
        BadSignature: a base is not what its digest, its signature or the base after it says.
    """
    unsigned: list[str] = []
    with ctx.database.write() as session:
        bases = _bases(session)
        digests = _digests(bases)
        for row, model in bases:
            manifest = _sound(row, model, digests)
            if row.signature is None:
                unsigned.append(f"{model} v{row.number}")
            else:
                _check_signature(ctx, row.signature, manifest)
            row.signature = sign(ctx, manifest)
        key = ctx.signing_key.public.id
        audit.note(session, ctx.now(), audit.OPERATOR, "key.signed_again", subject=key,
                   bases=len(bases), unsigned=unsigned)  # fmt: skip
    return SignedAgain(len(bases), unsigned)


def check_key(ctx: Context) -> None:
    """
    Make sure that all bases are signed with the key in force.

    Raises:
        BadSignature: a base has no signature, or one that is wrong, or is not what it was.
        BadKey: another key has signed a base.
    """
    others: dict[str, str] = {}
    unsigned: list[str] = []
    with ctx.database.read() as session:
        bases = _bases(session)
        digests = _digests(bases)
        for row, model in bases:
            what, manifest = f"{model} v{row.number}", _sound(row, model, digests)
            if row.signature is None:
                unsigned.append(what)
                continue
            signer = _check_signature(ctx, row.signature, manifest)
            if signer != ctx.signing_key.public.id:
                others[what] = signer
    if others:
        what, signer = next(iter(others.items()))
        raise BadKey(
            f"The key in force is {ctx.signing_key.public.id[:SHOWN]!r}, and {len(others)} bases "
            f"are signed with another one, such as {what} with {signer[:SHOWN]!r}.",
            hint="Clients that know the old key refuse what is signed with this one. Put the old "
            "one back, or, if it is lost or was changed on purpose, stop all processes, run "
            "coldfusion-server key --sign-again, start them, and tell people the new one.",
        )
    if unsigned:
        raise BadSignature(
            f"{len(unsigned)} bases are not signed, such as {unsigned[0]}: clients refuse them.",
            hint=UNSIGNED_HINT,
        )


def signature_of(ctx: Context, name: str, version: str, principal: Principal | None) -> str:
    """
    Return the signature of one base; `version` is v<n> or latest.

    Raises:
        ModelNotFound, BaseNotFound: there is no such base, or `principal` may not see it.
        NotFound: it is not signed.
    """
    with ctx.database.read() as session:
        row = find_base(session, find_model(session, name, principal), version)
        if row.signature is None:
            # Never made here: whoever can change the database would have it for the asking.
            raise NotFound(f"{name} v{row.number} is not signed.", hint=UNSIGNED_HINT)
        return row.signature


def signed_head(ctx: Context, name: str, nonce: str, principal: Principal | None) -> str:
    """
    Return which base is the model's newest at this moment, signed together with `nonce`.

    Raises:
        ModelNotFound: there is none of that name, or `principal` may not see it.
    """
    with ctx.database.read() as session:
        model = find_model(session, name, principal)
        base = find_base(session, model, LATEST)
        head = Head(
            model=name,
            version=f"v{base.number}",
            digest=base.digest,
            at=ctx.now(),
            nonce=nonce,
            taken_back=_taken_back(session, model),
        )
    return sign_head(head, ctx.signing_key)


def _bases(session: Session) -> list[tuple[BaseRow, str]]:
    """Return all bases with their models' names."""
    query = (
        select(BaseRow, ModelRow.name)
        .join(ModelRow, ModelRow.id == BaseRow.model_id)
        .order_by(ModelRow.name, BaseRow.number)
    )
    return [(row, name) for row, name in session.execute(query)]


def _digests(bases: list[tuple[BaseRow, str]]) -> dict[tuple[int, int], str]:
    """Return the digest of each base, by its model and its number."""
    return {(row.model_id, row.number): row.digest for row, _ in bases}


def _sound(row: BaseRow, model: str, digests: Mapping[tuple[int, int], str]) -> Manifest:
    """Return the base's manifest; raises `BadSignature` where it is not what its digest says."""
    what = f"{model} v{row.number}"
    if sha256(row.manifest.encode()).hexdigest() != row.digest:
        raise _unsound(f"The manifest of {what} is not the one that its digest names")
    try:
        manifest = manifest_of(row)
    except ValueError:
        raise _unsound(f"The manifest of {what} cannot be read") from None
    if (manifest.model, manifest.version) != (model, f"v{row.number}"):
        raise _unsound(f"The manifest of {what} is of {manifest.model} {manifest.version}")
    parent = manifest.parent
    number = None if parent is None else int(parent.version[1:])
    if number != row.parent_number:
        raise _unsound(f"The manifest of {what} names another parent than the database")
    if parent is not None and digests.get((row.model_id, number or 0)) != parent.digest:
        raise _unsound(f"{model} {parent.version} is not the base that {what} was made from")
    return manifest


def _check_signature(ctx: Context, signature: str, manifest: Manifest) -> str:
    """Return who has signed the base; of another key than the one in force nothing is proven."""
    try:
        signer = claimed_by(signature, manifest)
        if signer == ctx.signing_key.public.id:
            check_base(signature, manifest, ctx.signing_key.public)
    except BadSignature as error:
        raise _unsound(error.message.rstrip(".")) from None
    return signer


def _unsound(what: str) -> BadSignature:
    return BadSignature(
        f"{what}.",
        hint="Somebody, or a disk, has changed the database. Bring a backup back from before that: "
        "coldfusion-server db restore",
    )


def _taken_back(session: Session, model: ModelRow) -> list[TakenBack]:
    moves = session.scalars(
        select(HeadMoveRow)
        .where(HeadMoveRow.model_id == model.id, HeadMoveRow.to_number < HeadMoveRow.from_number)
        .order_by(HeadMoveRow.id)
    )
    return [
        TakenBack(
            from_version=f"v{move.from_number}",
            to_version=f"v{move.to_number}",
            reason=move.reason,
            at=move.at,
        )
        for move in moves
    ]
