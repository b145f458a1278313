"""
Signed statements: an in-toto statement, in a DSSE envelope, in a Sigstore bundle.

That is the form of OpenSSF model signatures with a key of one's own. What was signed is told apart
by its predicate type, so that a signature of one kind of statement is never taken for another's.

https://github.com/in-toto/attestation/tree/main/spec/v1
https://github.com/secure-systems-lab/dsse
https://docs.sigstore.dev/about/bundle/
"""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from coldfusion_shared.errors import BadSignature, KeyChanged
from coldfusion_shared.signing.keys import PublicKey, SigningKey

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
# Of a key's id, in sentences for people.
SHOWN = 16
_KEY_ID = re.compile("[0-9a-f]{64}")


class _Part(BaseModel):
    # Fields that another maker of signatures adds change nothing here.
    model_config = ConfigDict(alias_generator=to_camel, extra="ignore", frozen=True)


class _PublicKeyIdentifier(_Part):
    hint: str


class _Material(_Part):
    public_key: _PublicKeyIdentifier


class _Signature(_Part):
    sig: str


class _Envelope(_Part):
    payload: str
    payload_type: Literal["application/vnd.in-toto+json"]
    signatures: list[_Signature] = Field(min_length=1, max_length=1)


class _Bundle(_Part):
    media_type: Literal["application/vnd.dev.sigstore.bundle.v0.3+json"]
    verification_material: _Material
    dsse_envelope: _Envelope


class Subject(_Part):
    """What a statement is about."""

    name: str
    digest: dict[str, str]


class Statement(_Part):
    """What was signed."""

    type_: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: list[Subject] = Field(min_length=1, max_length=1)
    predicate_type: str
    predicate: dict[str, Any]


def seal(subject: Subject, predicate_type: str, predicate: dict[str, Any], key: SigningKey) -> str:
    """Return the signed statement that `predicate` holds of `subject`, as JSON."""
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [subject.model_dump()],
        "predicateType": predicate_type,
        "predicate": predicate,
    }
    payload = json.dumps(statement, indent=2).encode()
    bundle = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": key.public.id}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": b64encode(key.sign(_signed(payload))).decode(), "keyid": ""}],
        },
    }
    return json.dumps(bundle)


def unseal(sealed: str, predicate_type: str, key: PublicKey, what: str) -> Statement:
    """
    Return the statement that `sealed` holds, once its signature is found good.

    Args:
        sealed: the bundle, from anywhere.
        predicate_type: the kind of statement that is expected.
        key: who has to have signed it.
        what: what was signed, for messages, such as "demo/minilm v3".

    Raises:
        KeyChanged: another key has signed it.
        BadSignature: the signature is wrong, or one of something else.
    """
    signer, payload, signature = _opened(sealed, what)
    if signer != key.id:
        raise KeyChanged(
            f"The signature of {what} is by the key {signer[:SHOWN]!r}, and not by the trusted "
            f"one, {key.id[:SHOWN]!r}.",
            hint="Ask the operator, by another way than this server, whether the key was changed. "
            "If so, give the new one with --key FILE. If not, somebody in between, or on the "
            "server, has put something else there.",
        )
    if not key.verify(signature, _signed(payload)):
        raise refusal(f"The signature of {what} is wrong.")
    return _statement(payload, predicate_type, what)


def claimed(sealed: str, predicate_type: str, what: str) -> tuple[str, Statement]:
    """
    Return the id of the key that `sealed` names, and the statement: nobody has proven either.

    For a key that is not at hand any more. Raises `BadSignature` where it is none at all.
    """
    signer, payload, _ = _opened(sealed, what)
    if not _KEY_ID.fullmatch(signer):
        raise refusal(f"The signature of {what} names no key.")
    return signer, _statement(payload, predicate_type, what)


def refusal(message: str) -> BadSignature:
    """Return the error that says `message`, and what to do about it."""
    return BadSignature(
        message,
        hint="Nothing of it was used. Try again; if that does not help, tell the operator: "
        "somebody in between, or on the server, may have put something else there.",
    )


def _opened(sealed: str, what: str) -> tuple[str, bytes, bytes]:
    """Return which key it names, what was signed and the signature."""
    try:
        bundle = _Bundle.model_validate_json(sealed)
        envelope = bundle.dsse_envelope
        payload = b64decode(envelope.payload, validate=True)
        signature = b64decode(envelope.signatures[0].sig, validate=True)
    except ValueError:
        raise refusal(f"The signature of {what} cannot be read.") from None
    return bundle.verification_material.public_key.hint, payload, signature


def _statement(payload: bytes, predicate_type: str, what: str) -> Statement:
    try:
        statement = Statement.model_validate_json(payload)
    except ValueError:
        raise refusal(f"The signature of {what} is of something else.") from None
    if statement.predicate_type != predicate_type:
        raise refusal(f"The signature of {what} is of another kind of thing.")
    return statement


def _signed(payload: bytes) -> bytes:
    """Return what is really signed: the payload and its type, neither of which can pose as both."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)
