"""What only a store in a bucket can do wrong, on a real S3 server."""

from __future__ import annotations

import hashlib
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from coldfusion_server.services.context import open_store
from coldfusion_server.settings import load_settings
from coldfusion_server.storage.s3 import bucket as bucket_module
from coldfusion_server.storage.s3.bucket import Bucket
from coldfusion_server.storage.s3.connection import S3Options, connect, options_of
from coldfusion_server.storage.s3.keys import object_key
from coldfusion_server.storage.s3.store import MIN_PART_BYTES, S3Store
from coldfusion_shared.errors import (
    ColdFusionError,
    ConfigurationError,
    StorageFull,
    StorageUnavailable,
)
from tests.s3.rgw import S3Server
from tests.s3.stores import MINUTE, put_part, s3_case

MIB = 2**20


@pytest.fixture
def store(rgw: S3Options) -> Iterator[S3Store]:
    opened = S3Store(replace(rgw, prefix=f"{secrets.token_hex(8)}/"))
    yield opened
    opened.close()


def failure(options: S3Options) -> ColdFusionError:
    """Return what the check of a store that cannot be used says."""
    store = S3Store(options)
    with pytest.raises(ColdFusionError) as caught:
        store.check()
    store.close()
    return caught.value


# Signed URLs.


@pytest.mark.parametrize("body", [b"", b"1234567", b"123456789"])
def test_a_part_of_another_length_than_signed_is_refused(store: S3Store, body: bytes) -> None:
    urls = store.part_urls("up.0", {1: 8}, MINUTE)
    assert urls is not None
    assert httpx.put(urls[1], content=body, timeout=120).status_code == 403
    assert store.parts("up.0") == {}


def test_a_chunked_body_without_a_length_is_refused(store: S3Store) -> None:
    urls = store.part_urls("up.0", {1: 8}, MINUTE)
    assert urls is not None
    answer = httpx.put(urls[1], content=iter([b"1234", b"5678", b"9"]), timeout=120)
    assert answer.status_code in (403, 411)
    assert store.parts("up.0") == {}


@pytest.mark.parametrize("change", ["number", "key", "expiry", "method"])
def test_a_changed_url_is_good_for_nothing(store: S3Store, change: str) -> None:
    urls = store.part_urls("up.0", {1: 8}, MINUTE)
    assert urls is not None
    old, new = {
        "number": ("partNumber=1", "partNumber=2"),
        "key": ("up.0", "up.1"),
        "expiry": ("X-Amz-Expires=60", "X-Amz-Expires=61"),
        "method": ("", ""),
    }[change]
    assert old in urls[1]
    method = "DELETE" if change == "method" else "PUT"
    answer = httpx.request(method, urls[1].replace(old, new), content=b"12345678", timeout=120)
    assert answer.status_code in (403, 404)
    assert store.parts("up.0") == {}


def test_a_damaged_part_is_refused_by_its_checksum(store: S3Store) -> None:
    urls = store.part_urls("up.0", {1: 8}, MINUTE)
    assert urls is not None
    other = "rL0Y20zC+Fzt72VPzMSk2A=="
    answer = httpx.put(urls[1], content=b"12345678", headers={"Content-MD5": other}, timeout=120)
    assert (answer.status_code, "BadDigest" in answer.text) == (400, True)
    assert store.parts("up.0") == {}


def test_expired_urls_are_refused(store: S3Store) -> None:
    second = timedelta(seconds=1)
    digest = store.put([b"x"]).sha256
    urls = store.part_urls("up.0", {1: 8}, second)
    url = store.object_url(digest, second, "x")
    longer = store.object_url(digest, timedelta(hours=1), "x")
    assert urls is not None and url is not None and longer is not None
    time.sleep(2.1)
    assert httpx.get(longer, timeout=120).status_code == 200
    assert httpx.put(urls[1], content=b"12345678", timeout=120).status_code == 403
    assert httpx.get(url, timeout=120).status_code == 403


def test_urls_lead_to_the_public_endpoint(rgw: S3Options) -> None:
    assert rgw.endpoint is not None
    public = rgw.endpoint.replace("127.0.0.1", "localhost")
    case = s3_case(replace(rgw, public_endpoint=public))
    digest = case.store.put([b"public"]).sha256
    url = case.store.object_url(digest, MINUTE, "x")
    assert url is not None and url.startswith(public)
    assert httpx.get(url, timeout=120).content == b"public"
    put_part(case.store, 1, b"x")
    assert case.store.parts("up.0")[1].size == 1
    case.store.close()


def test_the_bucket_may_be_in_the_host_name(rgw: S3Options) -> None:
    assert rgw.endpoint is not None
    options = replace(
        rgw, addressing="virtual", endpoint=rgw.endpoint.replace("127.0.0.1", "localhost")
    )
    store = S3Store(options)
    url = store.object_url("0" * 64, MINUTE, "x")
    assert url is not None and url.startswith(f"http://{rgw.bucket}.localhost")
    store.close()


# Refusals, each in one sentence that an operator can act on.


def test_a_wrong_secret_is_named(rgw: S3Options) -> None:
    error = failure(replace(rgw, secret_key="wrong"))
    assert "SignatureDoesNotMatch" in error.message
    assert "s3_secret_key" in str(error.hint)


def test_an_unknown_access_key_is_named(rgw: S3Options) -> None:
    error = failure(replace(rgw, access_key="nobody"))
    assert "InvalidAccessKeyId" in error.message
    assert "s3_access_key" in str(error.hint)


def test_a_missing_bucket_is_named(rgw: S3Options) -> None:
    error = failure(replace(rgw, bucket="not-there"))
    assert "'not-there'" in error.message and "NoSuchBucket" in error.message
    assert "s3_bucket" in str(error.hint)


def test_a_bucket_without_permission_is_named(rgw: S3Options, ceph_server: S3Server) -> None:
    access, secret = ceph_server.other_user()
    error = failure(replace(rgw, access_key=access, secret_key=secret))
    assert error.message.endswith("AccessDenied.")
    assert "write" in str(error.hint)


def test_a_clock_that_is_off_is_named(rgw: S3Options, monkeypatch: pytest.MonkeyPatch) -> None:
    import botocore.auth
    import botocore.compat

    real = botocore.compat.get_current_datetime

    def late(*arguments: Any, **named: Any) -> Any:
        return real(*arguments, **named) - timedelta(minutes=20)

    monkeypatch.setattr(botocore.auth, "get_current_datetime", late)
    error = failure(rgw)
    assert "RequestTimeTooSkewed" in error.message
    assert "clock" in str(error.hint)


def test_no_service_at_all_is_named(rgw: S3Options) -> None:
    error = failure(replace(rgw, endpoint="http://127.0.0.1:9"))
    assert isinstance(error, StorageUnavailable)
    assert "does not answer" in error.message


def test_missing_credentials_are_named(rgw: S3Options, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    error = failure(replace(rgw, access_key=None, secret_key=None))
    assert isinstance(error, ConfigurationError)
    assert "s3_access_key" in str(error.hint)


def test_a_full_bucket_takes_no_more_and_loses_nothing(
    rgw: S3Options, ceph_server: S3Server
) -> None:
    access, secret = ceph_server.other_user(quota_bytes=8 * MIB)
    options = replace(rgw, access_key=access, secret_key=secret, bucket="small-bucket")
    connect(options, options.endpoint).create_bucket(Bucket=options.bucket)
    case = s3_case(options)
    kept = case.store.put([b"kept"]).sha256
    with pytest.raises(StorageFull):
        case.store.put(bytes(MIB) for _ in range(64))
    assert case.everything() == [object_key(kept)]
    case.store.close()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"endpoint": "no url"}, "s3_endpoint"),
        ({"ca_file": Path("/nowhere/ca.pem")}, "s3_ca_file"),
    ],
)
def test_options_that_cannot_be_used_are_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        S3Store(replace(S3Options("a-bucket", access_key="a", secret_key="b"), **change))
    assert named in str(caught.value.hint)


# Settings.


def test_settings_that_name_a_bucket_lead_to_it(tmp_path: Path, rgw: S3Options) -> None:
    settings = load_settings(
        data_dir=tmp_path,
        s3_bucket=rgw.bucket,
        s3_prefix="of/mine/",
        s3_endpoint=rgw.endpoint,
        s3_access_key=rgw.access_key,
        s3_secret_key=rgw.secret_key,
        s3_addressing="path",
        s3_encryption="aws:kms",
        s3_kms_key="a-key",
    )
    options = options_of(settings)
    assert options == replace(rgw, prefix="of/mine/", encryption="aws:kms", kms_key="a-key")
    assert options.encrypted() == {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "a-key"}
    store = open_store(settings)
    assert isinstance(store, S3Store)
    store.close()


def test_encryption_is_asked_for_wherever_an_object_is_made(moto: S3Options) -> None:
    case = s3_case(replace(moto, encryption="aws:kms", kms_key="a-key"))
    store = case.store
    assert isinstance(store, S3Store)
    raw = bytes(17 * MIB)
    put_part(store, 1, b"uploaded")
    adopted = store.adopt("up.0", hashlib.sha256(b"uploaded").hexdigest())
    for digest in (store.put([b"small"]).sha256, store.put([raw]).sha256, adopted.sha256):
        key = store.bucket.options.prefix + object_key(digest)
        head = store.bucket.client.head_object(Bucket=moto.bucket, Key=key)
        assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", "a-key")
    store.close()


# Many and large.


def test_lists_go_on_behind_their_first_page(
    rgw: S3Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coldfusion_server.storage.s3.bucket.PAGE", 3)
    case = s3_case(rgw)
    stored = {case.store.put([str(n).encode()]).sha256 for n in range(10)}
    uploads = sorted(f"up.{n}" for n in range(10))
    for upload in uploads:
        put_part(case.store, 1, b"x", upload)
    assert {item.sha256 for item in case.store.objects()} == stored
    assert case.store.pending_uploads() == uploads
    case.store.close()


def test_a_large_upload_becomes_an_object_without_its_bytes_leaving_the_service(
    store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = secrets.token_bytes(MIN_PART_BYTES) * 3 + b"and the rest"
    for number in range(4):
        put_part(store, number + 1, raw[number * MIN_PART_BYTES :][:MIN_PART_BYTES])
    sent: list[int] = []
    monkeypatch.setattr(store.bucket, "put", lambda key, data: sent.append(len(data)))
    stored = store.adopt("up.0", hashlib.sha256(raw).hexdigest())
    assert (stored.size, sent) == (len(raw), [])
    store.discard_upload("up.0")
    assert store.size(stored.sha256) == len(raw)


def test_what_a_death_left_is_cleaned_when_it_is_old(
    rgw: S3Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = s3_case(rgw)
    kept = case.store.put([b"kept"]).sha256
    writer = case.store.open_object()
    writer.write(bytes(33 * MIB))
    writer.finish()
    case.store.clean()
    assert len(case.everything()) == 4  # an object and three parts
    monkeypatch.setattr("coldfusion_server.storage.s3.store.ABANDONED", timedelta(seconds=-60))
    case.store.clean()
    assert case.everything() == [object_key(kept)]
    case.store.close()


# A service that says nothing.


def test_a_silent_service_keeps_only_some_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_module, "ROOM_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        bucket = Bucket(S3Options("models", endpoint=endpoint, access_key="a", secret_key="b"))
        with ThreadPoolExecutor(bucket_module.WAITING) as pool:
            waiting = [pool.submit(bucket.size, "key") for _ in range(bucket_module.WAITING)]
            until(lambda: bucket.room._value == 0)
            with pytest.raises(StorageUnavailable, match="16 requests wait for it"):
                bucket.size("key")
            # Whoever waited is let go, and there is room again.
            silent.close()
            for request in waiting:
                with pytest.raises(StorageUnavailable, match="does not answer"):
                    request.result(300)
        with pytest.raises(StorageUnavailable, match="does not answer"):
            bucket.size("key")
        bucket.close()


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    end = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize(
    "ask", [lambda bucket: bucket.begin("key"), lambda bucket: bucket.size("key")]
)
def test_an_answer_that_lost_what_it_says_is_the_services_fault(
    ask: Callable[[Bucket], Any],
) -> None:
    # As something in between gives it that answers in the service's place.
    bucket = Bucket(S3Options("models", access_key="a", secret_key="b"))
    empty = {"ResponseMetadata": {"HTTPStatusCode": 200}}
    bucket.quick = SimpleNamespace(
        create_multipart_upload=lambda **_: empty, head_object=lambda **_: empty, close=lambda: None
    )
    with pytest.raises(StorageUnavailable, match="answers without"):
        ask(bucket)
    bucket.close()
