"""
Signed heads: which base is a model's newest, as its Repository says at this moment.

A base's signature is good for ever, so that whoever sits in between could show an old base as the
newest one. A head is therefore signed when it is asked for, together with a word that the client
has just made up, and tells of every time that the head was taken back.
"""

from __future__ import annotations

import secrets
from datetime import datetime

from coldfusion_shared.schemas.common import ModelName, Response, Sha256, Version
from coldfusion_shared.signing.envelope import Subject, refusal, seal, unseal
from coldfusion_shared.signing.keys import PublicKey, SigningKey

PREDICATE_TYPE = "urn:coldfusion:head:v1"
NONCE = r"^[0-9a-f]{0,64}$"


class TakenBack(Response):
    """The head went to an older base."""

    from_version: Version
    to_version: Version
    reason: str | None
    at: datetime


class Head(Response):
    """A model's newest base."""

    model: ModelName
    version: Version
    digest: Sha256
    at: datetime
    nonce: str
    taken_back: list[TakenBack]


def new_nonce() -> str:
    """Return a word that nobody can have known before."""
    return secrets.token_hex(16)


def sign_head(head: Head, key: SigningKey) -> str:
    """Return the signed head, as JSON."""
    subject = Subject(name=f"{head.model} {head.version}", digest={"sha256": head.digest})
    return seal(subject, PREDICATE_TYPE, head.model_dump(mode="json"), key)


def check_head(signed: str, model: str, nonce: str, key: PublicKey) -> Head:
    """
    Return the head that the owner of `key` has signed for who asked with `nonce`.

    Raises:
        KeyChanged: another key has signed it.
        BadSignature: the signature is wrong, one of another model, or an old one.
    """
    what = f"the newest base of {model}"
    statement = unseal(signed, PREDICATE_TYPE, key, what)
    try:
        head = Head.model_validate(statement.predicate)
    except ValueError:
        raise refusal(f"The signature of {what} is of something else.") from None
    if (head.model, head.nonce) != (model, nonce):
        raise refusal(f"The signature of {what} is of another model, or an old one.")
    return head
