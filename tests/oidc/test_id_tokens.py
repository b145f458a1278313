"""Id tokens: of all that look like one, only the provider's own for us is believed."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from coldfusion_server.oidc.id_tokens import verify
from coldfusion_shared.errors import SignInRefused

ISSUER, US, NONCE = "https://provider.example", "us", "n" * 64
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
SECOND = int(NOW.timestamp())
KEY = RSAKey.generate_key(2048, {"kid": "k"})
OTHER = RSAKey.generate_key(2048, {"kid": "k"})
PUBLIC = RSAKey.import_key(KEY.as_dict(private=False))
GOOD: dict[str, Any] = {
    "iss": ISSUER, "aud": US, "sub": "1", "iat": SECOND, "exp": SECOND + 300, "nonce": NONCE,
}  # fmt: skip


def made(key: Any = KEY, alg: str = "RS256", header: Any = (), **changes: Any) -> str:
    claims = {name: value for name, value in {**GOOD, **changes}.items() if value is not None}
    return jwt.encode({"alg": alg, "kid": "k", **dict(header)}, claims, key, algorithms=[alg])


def check(id_token: str, nonce: str | None = NONCE) -> Any:
    return verify(
        id_token,
        lambda kid: PUBLIC if kid == "k" else None,
        issuer=ISSUER,
        client_id=US,
        nonce=nonce,
        now=NOW,
    )


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def test_a_good_one_is_believed() -> None:
    assert check(made())["sub"] == "1"
    assert check(made(nonce=None), nonce=None)["sub"] == "1"
    assert check(made(aud=[US]))["sub"] == "1"
    assert check(made(aud=[US, "x"], azp=US))["sub"] == "1"
    assert check(made(iat=SECOND + 50))["sub"] == "1"
    assert check(made(alg="PS256"))["sub"] == "1"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"iss": "https://evil.example"}, "another provider"),
        ({"iss": ISSUER + "/"}, "another provider"),
        ({"iss": [ISSUER]}, "another provider"),
        ({"iss": None}, "another provider"),
        ({"aud": "them"}, "another program"),
        ({"aud": None}, "another program"),
        ({"aud": []}, "another program"),
        ({"aud": [US, "them"]}, "another program"),
        ({"aud": [US, "them"], "azp": "them"}, "another program"),
        ({"aud": US, "azp": "them"}, "another program"),
        ({"aud": {US: 1}}, "another program"),
        ({"sub": None}, "nobody"),
        ({"sub": ""}, "nobody"),
        ({"sub": 7}, "nobody"),
        ({"sub": "x" * 256}, "nobody"),
        ({"sub": "a\x00b"}, "nobody"),
        ({"events": {}}, "nobody"),
        ({"exp": SECOND - 61}, "expired"),
        ({"iat": SECOND - 700, "exp": SECOND + 9000}, "expired"),
        ({"exp": None}, "when it was made"),
        ({"iat": None}, "when it was made"),
        ({"exp": "never"}, "when it was made"),
        ({"exp": True}, "when it was made"),
        ({"exp": 10**400}, "when it was made"),
        ({"iat": SECOND + 120}, "too far apart"),
        ({"nbf": SECOND + 120}, "too far apart"),
        ({"nonce": None}, "another sign-in"),
        ({"nonce": "m" * 64}, "another sign-in"),
        ({"nonce": "é" * 64}, "another sign-in"),
        ({"nonce": [NONCE]}, "another sign-in"),
    ],
)
def test_a_claim_that_is_wrong_is_told(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(SignInRefused, match=why):
        check(made(**changes))


def signed_with_the_public_key() -> str:
    # The mistake of taking the published key for a shared secret.
    content = f"{part({'alg': 'HS256', 'kid': 'k'})}.{part(GOOD)}"
    raw = hmac.digest(PUBLIC.as_pem(private=False), content.encode(), "sha256")
    return f"{content}.{base64.urlsafe_b64encode(raw).decode().rstrip('=')}"


@pytest.mark.parametrize(
    "make",
    [
        lambda: made(key=OTHER),
        lambda: made(header={"kid": "unknown"}),
        lambda: made(key=ECKey.generate_key("P-256", {"kid": "k"}), alg="ES256"),
        lambda: f"{part({'alg': 'none', 'kid': 'k'})}.{part(GOOD)}.",
        lambda: f"{part({'alg': 'NoNe', 'kid': 'k'})}.{part(GOOD)}.",
        signed_with_the_public_key,
        lambda: made()[:-8] + "AAAAAAAA",
        lambda: made().rsplit(".", 1)[0] + ".",
        # Signed for the one, claiming the other.
        lambda: ".".join([made().split(".")[0], part({**GOOD, "sub": "2"}), made().split(".")[2]]),
        # A key of its own along with it.
        lambda: made(key=OTHER, header={"jwk": OTHER.as_dict(private=False)}),
    ],
)
def test_what_the_provider_has_not_signed_is_not_believed(make: Callable[[], str]) -> None:
    with pytest.raises(SignInRefused, match="not signed"):
        check(make())


@pytest.mark.parametrize("kind", ["at+jwt", "logout+jwt", "application/at+jwt"])
def test_what_the_provider_signs_for_other_ends_is_none(kind: str) -> None:
    with pytest.raises(SignInRefused, match="no id token"):
        check(made(header={"typ": kind}))


@pytest.mark.parametrize(
    "text",
    ["", ".", "..", "a.b.c", "é.é.é", "x" * 20_000, f"{part([])}.{part({})}.x",
     f"{part({'alg': 'RS256', 'kid': 7})}.{part(GOOD)}.AA", f"{part({})}.{part(GOOD)}.AA",
     f"{part({'alg': 'RS256', 'typ': 7})}.{part(GOOD)}.AA", f"{part('[' * 5)}.e30.AA",
     "W" * 4000 + ".e30.AA", f"{part({'alg': ['RS256'], 'kid': 'k'})}.{part(GOOD)}.AA"],
)  # fmt: skip
def test_what_is_none_is_refused_without_a_fault(text: str) -> None:
    with pytest.raises(SignInRefused):
        check(text)
