"""Signatures of bases: what they bind, and that everything that was changed is refused."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldfusion_shared.errors import BadSignature, KeyChanged
from coldfusion_shared.signing import envelope
from coldfusion_shared.signing.heads import check_head, sign_head
from coldfusion_shared.signing.model_signature import (
    MANIFEST_FILE,
    PREDICATE_TYPE,
    SIGNATURE_FILE,
    check_base,
    contents,
    sign_base,
    signed_files,
)
from tests.shared.signing.signed import FILES, KEY, OTHER, manifest_of
from tests.shared.signing.test_heads import head

MANIFEST = manifest_of(FILES)
SIGNATURE = sign_base(MANIFEST, KEY)

paths = st.from_regex(r"[a-z][a-z0-9.-]{0,5}(/[a-z][a-z0-9]{0,3}){0,2}", fullmatch=True).filter(
    lambda path: ".." not in path and path != MANIFEST_FILE
)


@given(st.dictionaries(paths, st.binary(max_size=20), max_size=6))
def test_what_was_signed_is_what_is_found(files: dict[str, bytes]) -> None:
    manifest = manifest_of(files)
    signature = sign_base(manifest, KEY)
    check_base(signature, manifest, KEY.public)
    assert signed_files(signature, KEY.public, "it") == contents(manifest)


@given(st.data())
def test_a_bit_that_flips_is_noticed_or_changes_nothing(data: st.DataObject) -> None:
    raw = bytearray(SIGNATURE.encode())
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= 1 << data.draw(st.integers(0, 6))
    try:
        check_base(raw.decode(), MANIFEST, KEY.public)
    except (BadSignature, KeyChanged):
        return
    # White space, names of fields that count for nothing, and the last bits of base64.
    assert _payload(raw.decode()) == _payload(SIGNATURE)


@pytest.mark.parametrize(
    "other",
    [
        manifest_of(FILES, version="v4"),
        manifest_of(FILES, model="demo/other"),
        manifest_of(FILES, round=2),
        manifest_of({**FILES, "config.json": b"{}"}),
        manifest_of({**FILES, "more.txt": b""}),
        manifest_of({"config.json": FILES["config.json"]}),
    ],
    ids=["version", "model", "round", "content", "more", "fewer"],
)
def test_another_base_is_refused(other: Any) -> None:
    with pytest.raises(BadSignature, match="another base"):
        check_base(SIGNATURE, other, KEY.public)


def test_another_key_is_said() -> None:
    with pytest.raises(KeyChanged) as caught:
        check_base(SIGNATURE, MANIFEST, OTHER.public)
    assert KEY.public.id[:16] in caught.value.message
    assert OTHER.public.id[:16] in caught.value.message
    assert "--key" in (caught.value.hint or "")


def _changed(change: Callable[[Any], None], signature: str = SIGNATURE) -> str:
    bundle = json.loads(signature)
    change(bundle)
    return json.dumps(bundle)


def _payload(signature: str) -> bytes:
    return b64decode(json.loads(signature)["dsseEnvelope"]["payload"])


def _with_payload(change: Callable[[Any], None]) -> str:
    def put(bundle: Any) -> None:
        statement = json.loads(_payload(SIGNATURE))
        change(statement)
        bundle["dsseEnvelope"]["payload"] = b64encode(json.dumps(statement).encode()).decode()

    return _changed(put)


def _pose(bundle: Any) -> None:
    # Another's signature under the trusted key's name.
    other = json.loads(sign_base(MANIFEST, OTHER))
    bundle["dsseEnvelope"] = other["dsseEnvelope"]


@pytest.mark.parametrize(
    "signature",
    [
        "",
        "text",
        "{}",
        "[" * 10_000,
        _changed(lambda b: b.update(mediaType="application/json")),
        _changed(lambda b: b["verificationMaterial"].pop("publicKey")),
        _changed(lambda b: b["dsseEnvelope"].update(payloadType="text/plain")),
        _changed(lambda b: b["dsseEnvelope"].update(payload="!")),
        _changed(lambda b: b["dsseEnvelope"].update(signatures=[])),
        _changed(lambda b: b["dsseEnvelope"]["signatures"].append({"sig": "", "keyid": ""})),
        _changed(lambda b: b["dsseEnvelope"]["signatures"][0].update(sig="AAAA")),
        _changed(_pose),
        _with_payload(lambda s: s["predicate"]["resources"][0].update(digest="0" * 64)),
        _with_payload(lambda s: s.update(predicateType="urn:coldfusion:head:v1")),
        sign_head(head(), KEY),
    ],
    ids=range(15),
)
def test_what_is_no_signature_of_it_is_refused(signature: str) -> None:
    with pytest.raises(BadSignature) as caught:
        check_base(signature, MANIFEST, KEY.public)
    assert "demo/tiny v3" in caught.value.message


def _sealed(name: str = "a", digest: str = "0" * 64, **changes: Any) -> str:
    resources = [{"name": name, "algorithm": "sha256", "digest": digest}]
    predicate = {"serialization": {"method": "files", "hash_type": "sha256"},
                 "resources": resources, **changes}  # fmt: skip
    subject = envelope.Subject(name="it", digest={"sha256": "1" * 64})
    return envelope.seal(subject, PREDICATE_TYPE, predicate, KEY)


@pytest.mark.parametrize(
    "signature",
    [
        _sealed(),  # its subject is of other files
        _sealed("../../etc/passwd"),
        _sealed("/etc/passwd"),
        _sealed(digest="no"),
        _sealed(resources=None),
        _sealed(serialization={"method": "shards", "hash_type": "sha256"}),
    ],
    ids=["subject", "parent", "absolute", "digest", "none", "shards"],
)
def test_nonsense_that_was_signed_is_still_nonsense(signature: str) -> None:
    with pytest.raises(BadSignature):
        signed_files(signature, KEY.public, "it")


@pytest.mark.parametrize("name", [MANIFEST_FILE, SIGNATURE_FILE, "coldfusion.json"])
def test_no_file_of_a_base_takes_the_place_of_its_proof(name: str) -> None:
    with pytest.raises(BadSignature):
        contents(manifest_of({**FILES, name: b""}))


def test_a_signature_of_a_base_is_none_of_a_head() -> None:
    with pytest.raises(BadSignature):
        check_head(SIGNATURE, "demo/tiny", "", KEY.public)
