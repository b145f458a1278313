from __future__ import annotations

import httpx
import pytest

from coldfusion_client.answers import error_of, passes_by
from coldfusion_client.transfer.s3_answers import store_answer
from coldfusion_shared import errors


def answer(status: int, text: str | bytes, method: str = "PUT") -> httpx.Response:
    request = httpx.Request(method, "https://bucket.test/key?X-Amz-Signature=secret")
    return httpx.Response(status, content=text, request=request)


def xml(code: str, message: str = "Something.") -> str:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>{message}</Message>"
        "<RequestId>4442587FB7D0A2F9</RequestId><HostId>x</HostId></Error>"
    )


@pytest.mark.parametrize(
    ("status", "code", "kind", "again"),
    [
        (400, "BadDigest", errors.DigestMismatch, True),
        (400, "InvalidDigest", errors.DigestMismatch, True),
        (400, "RequestTimeout", errors.StorageUnavailable, True),
        (503, "SlowDown", errors.StorageUnavailable, True),
        (500, "InternalError", errors.StorageUnavailable, True),
        (403, "AccessDenied", errors.UploadRefused, False),
        (400, "ExpiredToken", errors.UploadRefused, False),
        (403, "SignatureDoesNotMatch", errors.UploadRefused, False),
        (404, "NoSuchUpload", errors.UploadRefused, False),
        (403, "RequestTimeTooSkewed", errors.StorageUnavailable, False),
        (404, "NoSuchBucket", errors.StorageUnavailable, False),
        (400, "EntityTooLarge", errors.TooLarge, False),
        (507, "XMinioStorageFull", errors.StorageFull, False),
        (403, "QuotaExceeded", errors.StorageFull, False),
        (418, "OfTheFuture", errors.StorageUnavailable, False),
    ],
)
def test_each_code_of_a_store_has_its_error(
    status: int, code: str, kind: type[errors.ColdFusionError], again: bool
) -> None:
    response = answer(status, xml(code, "Request has expired."))
    error = error_of(response)
    assert type(error) is kind
    assert code in error.message or kind is errors.TooLarge
    assert "bucket.test" in error.message
    assert "secret" not in error.message
    assert passes_by(response, error) is again


def test_a_refused_download_is_no_refused_upload() -> None:
    error = error_of(answer(403, xml("AccessDenied"), "GET"))
    assert type(error) is errors.StorageUnavailable
    assert "clocks" in (error.hint or "")


@pytest.mark.parametrize("code", ["AccessDenied", "RequestTimeTooSkewed"])
@pytest.mark.parametrize(
    ("signed", "said"),
    [
        ("20261121T114000Z", "20 minutes ago"),
        ("20261121T122000Z", "20 minutes from now"),
        ("20261121T115800Z", "operator"),
        ("soon", "operator"),
    ],
)
def test_how_far_clocks_are_apart_is_said(code: str, signed: str, said: str) -> None:
    request = httpx.Request("PUT", f"https://bucket.test/key?X-Amz-Date={signed}")
    date = {"Date": "Sat, 21 Nov 2026 12:00:00 GMT"}
    hint = error_of(httpx.Response(403, text=xml(code), headers=date, request=request)).hint or ""
    assert said in hint
    assert ("20 minutes" in said) == ("minutes" in hint)


def test_words_of_a_store_are_shown_as_plain_text() -> None:
    said = store_answer(answer(403, xml("AccessDenied", "a &lt;b&gt;\x1b[31m &amp; &#27;c")))
    assert said and said.message == "a <b>[31m & c"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<html>403 Forbidden</html>",
        b"<Error></Error>",
        b"<Error><Code>" + b"x" * 10_000,
        b" " * 5000 + xml("AccessDenied").encode(),
        b"\xff\xfe<Error>",
        b'<!DOCTYPE x [<!ENTITY a "b">]><Error><Message>&a;</Message></Error>',
    ],
)
def test_what_is_not_a_stores_answer_is_left_alone(text: bytes) -> None:
    assert store_answer(answer(403, text)) is None
    assert isinstance(error_of(answer(403, text)), errors.UploadRefused)


def test_entities_are_not_expanded() -> None:
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaaaaaa">]>' + xml("AccessDenied", "&a;&a;")
    said = store_answer(answer(403, bomb))
    assert said and said.message == "&a;&a;"
