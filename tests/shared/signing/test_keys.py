from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given
from hypothesis import strategies as st

from coldfusion_shared.errors import BadKey
from coldfusion_shared.signing.keys import PublicKey, SigningKey
from tests.shared.signing.signed import KEY, OTHER


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_a_signature_is_good_for_what_was_signed_and_nothing_else(a: bytes, b: bytes) -> None:
    signature = KEY.sign(a)
    assert KEY.public.verify(signature, a)
    assert KEY.public.verify(signature, b) is (a == b)
    assert not OTHER.public.verify(signature, a)


@given(st.binary(max_size=100))
def test_what_is_no_signature_is_none(signature: bytes) -> None:
    assert not KEY.public.verify(signature, b"text")


def test_keys_are_the_same_after_they_were_written() -> None:
    again = SigningKey.from_pem(KEY.pem, "here")
    assert again.pem == KEY.pem
    public = PublicKey.from_pem(again.public.pem, "here")
    assert (public.pem, public.id) == (KEY.public.pem, KEY.public.id)
    assert public.id == hashlib.sha256(public.pem).hexdigest()
    assert public.verify(again.sign(b"a"), b"a")


def test_a_secret_always_gives_the_same_key_and_another_one_another() -> None:
    assert SigningKey.from_secret(b"x" * 32).pem == KEY.pem != OTHER.pem
    # For ever: every client knows the key.
    assert KEY.public.id == "1ca77284f00aff1f0c2a87a73f9f3523b22d0ab9aab23d0a8503cb380d6e1daf"
    assert SigningKey.new().pem != SigningKey.new().pem


Private = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def _pem(key: Private, password: bytes = b"") -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption(),
    )


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"text",
        KEY.pem[:-40],
        KEY.public.pem,
        _pem(ec.generate_private_key(ec.SECP384R1())),
        _pem(ed25519.Ed25519PrivateKey.generate()),
        _pem(ec.generate_private_key(ec.SECP256R1()), b"password"),
    ],
    ids=["empty", "text", "cut", "public", "curve", "kind", "password"],
)
def test_what_cannot_sign_is_refused(pem: bytes) -> None:
    with pytest.raises(BadKey, match="key.pem") as caught:
        SigningKey.from_pem(pem, "key.pem")
    assert "copy" in (caught.value.hint or "")


@pytest.mark.parametrize("pem", [b"", b"text", KEY.public.pem[:-40], KEY.pem])
def test_what_cannot_check_is_refused(pem: bytes) -> None:
    with pytest.raises(BadKey, match="key.pub"):
        PublicKey.from_pem(pem, "key.pub")


def test_a_key_that_openssl_makes_serves(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    curve = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
    subprocess.run(["openssl", "genpkey", *curve, "-out", file], check=True, capture_output=True)
    assert SigningKey.from_pem(file.read_bytes(), str(file)).sign(b"a")
