"""The key of a Repository: an elliptic curve one, P-256, written as PEM."""

from __future__ import annotations

import hashlib
from typing import Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from coldfusion_shared.errors import BadKey

_ALGORITHM = ec.ECDSA(hashes.SHA256())
# FIPS 186-5, A.2.1: with 128 bits more than the order has, the remainder is as good as uniform.
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_DERIVED_BYTES = 48
_PURPOSE = b"coldfusion signing key, P-256"


class PublicKey:
    """What signatures are checked with; everybody may have it."""

    def __init__(self, key: ec.EllipticCurvePublicKey) -> None:
        """Use `key`, which is on P-256."""
        self._key = key

    @classmethod
    def from_pem(cls, pem: bytes, where: str) -> Self:
        """Read a public key; raises `BadKey`, which says that `where` does not hold one."""
        try:
            key = serialization.load_pem_public_key(pem)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, ec.EllipticCurvePublicKey) or not _is_p256(key):
            raise BadKey(
                f"{where} holds no public key that bases are signed with.",
                hint="It is PEM text that begins with -----BEGIN PUBLIC KEY-----, of an elliptic "
                "curve key on P-256. Where the server runs, coldfusion-server key prints it.",
            )
        return cls(key)

    @property
    def pem(self) -> bytes:
        """The key as text, always the same one."""
        return self._key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @property
    def id(self) -> str:
        """The key's name: the SHA-256 of its PEM, as OpenSSF model signatures have it."""
        return hashlib.sha256(self.pem).hexdigest()

    def verify(self, signature: bytes, data: bytes) -> bool:
        """Return whether `signature` is one of `data`, by this key's owner."""
        try:
            self._key.verify(signature, data, _ALGORITHM)
        except InvalidSignature:
            return False
        return True


class SigningKey:
    """What signatures are made with; it never leaves the Repository."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        """Use `key`, which is on P-256."""
        self._key = key
        self.public = PublicKey(key.public_key())

    @classmethod
    def new(cls) -> Self:
        """Make a new one, at random."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def from_secret(cls, secret: bytes) -> Self:
        """Return the key that belongs to `secret`, always the same one."""
        derived = HKDF(hashes.SHA256(), _DERIVED_BYTES, salt=None, info=_PURPOSE).derive(secret)
        number = int.from_bytes(derived) % (_ORDER - 1) + 1
        return cls(ec.derive_private_key(number, ec.SECP256R1()))

    @classmethod
    def from_pem(cls, pem: bytes, where: str) -> Self:
        """Read a private key; raises `BadKey`, which says that `where` does not hold one."""
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not _is_p256(key):
            raise BadKey(
                f"{where} holds no key that bases can be signed with.",
                hint="Put the copy back that you kept of it: with another key every client that "
                "knows this one refuses what it downloads. It is PEM text, without a password, of "
                "an elliptic curve key on P-256.",
            )
        return cls(key)

    @property
    def pem(self) -> bytes:
        """The key as text, without a password."""
        return self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def sign(self, data: bytes) -> bytes:
        """Return a signature of `data`; each time another one, and all are good."""
        return self._key.sign(data, _ALGORITHM)


def _is_p256(key: ec.EllipticCurvePublicKey | ec.EllipticCurvePrivateKey) -> bool:
    return isinstance(key.curve, ec.SECP256R1)
