"""
Id tokens: whether the provider signed one, for us, now.

https://openid.net/specs/openid-connect-core-1_0.html#IDTokenValidation
"""

from __future__ import annotations

import hmac
import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from coldfusion_shared.errors import SignInRefused
from coldfusion_shared.schemas.sign_in import LONGEST_ID_TOKEN

Key = RSAKey | ECKey | OKPKey
# Signatures that only the holder of a private key can make: neither "none" nor shared secrets.
ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519"}
)
# Two clocks that are both set may differ by so much.
SKEW_SECONDS = 60.0
# A person has just signed in: what is older was kept by somebody.
OLDEST_SECONDS = 600.0
LONGEST_SUBJECT = 255
_AGAIN = "Sign in again; if it stays so, tell the operator of this Repository."

Claims = Mapping[str, Any]


def verify(
    id_token: str,
    key_of: Callable[[str | None], Key | None],
    *,
    issuer: str,
    client_id: str,
    nonce: str | None,
    now: datetime,
) -> Claims:
    """
    Return the claims of an id token.

    Args:
        id_token: as it was sent.
        key_of: the provider's public key of that id, null: its only one; null: there is none.
        issuer: who has to have made it.
        client_id: for whom.
        nonce: what we had asked to be in it; null: nothing.
        now: the time.

    Raises:
        SignInRefused: it proves nothing; the message says why.
    """
    header = _header(id_token)
    key = key_of(header.get("kid")) if header["alg"] in ALGORITHMS else None
    if key is None:
        raise _refused("is not signed by it")
    try:
        claims = jwt.decode(id_token, key, registry=_registry()).claims
    except (JoseError, ValueError, TypeError):
        raise _refused("is not signed by it") from None
    _check_parties(claims, issuer, client_id)
    _check_times(claims, now.timestamp())
    if nonce is not None and not _same(claims.get("nonce"), nonce):
        raise _refused("belongs to another sign-in")
    return claims


def _header(id_token: str) -> Claims:
    """Return the header, which nobody has proven yet."""
    if len(id_token) > LONGEST_ID_TOKEN:
        raise _refused("is too long")
    try:
        header = jws.extract_compact(id_token.encode("ascii"), None, _registry()).headers()
    except (JoseError, ValueError, TypeError, RecursionError):
        raise _refused("cannot be read") from None
    # Of the same provider, for the same client, and no word on who is there: access, logout.
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.upper() != "JWT":
        raise _refused("is no id token")
    if not isinstance(header.get("kid"), str | None) or not isinstance(header.get("alg"), str):
        raise _refused("cannot be read")
    return header


def _registry() -> jws.JWSRegistry:
    made = jws.JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)
    # Some providers send their certificate along.
    made.max_header_length = 4096
    return made


def _check_parties(claims: Claims, issuer: str, client_id: str) -> None:
    if claims.get("iss") != issuer:
        raise _refused("comes from another provider")
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    party = claims.get("azp", client_id if len(audiences) == 1 else None)
    if client_id not in audiences or party != client_id:
        raise _refused("is meant for another program")
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= LONGEST_SUBJECT:
        raise _refused("names nobody")
    if not subject.isprintable() or "events" in claims:
        raise _refused("names nobody")


def _check_times(claims: Claims, now: float) -> None:
    """Check when it was made and until when it is good, in seconds since 1970."""
    expires, made = _seconds(claims.get("exp")), _seconds(claims.get("iat"))
    begins = _seconds(claims.get("nbf", made))
    if expires is None or made is None or begins is None:
        raise _refused("does not say when it was made")
    if max(made, begins) > now + SKEW_SECONDS:
        raise SignInRefused(
            "The sign-in provider's clock and this Repository's are too far apart.",
            hint="Tell the operator of this Repository.",
        )
    if min(expires, made + OLDEST_SECONDS) <= now - SKEW_SECONDS:
        raise _refused("has expired")


def _seconds(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    return seconds if math.isfinite(seconds) else None


def _same(one: Any, other: str) -> bool:
    return isinstance(one, str) and one.isascii() and hmac.compare_digest(one, other)


def _refused(what: str) -> SignInRefused:
    return SignInRefused(f"What the sign-in provider is said to have sent {what}.", hint=_AGAIN)
