"""How a bucket is reached, and what its refusals mean."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.client import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    PartialCredentialsError,
)
from urllib3.exceptions import HTTPError

from coldfusion_server.settings import Settings
from coldfusion_shared.errors import ConfigurationError, StorageFull, StorageUnavailable

ATTEMPTS = 5
# Threads that send and fetch parts at once, with room for the requests of the API.
CONNECTIONS = 64

GONE = frozenset({"404", "NoSuchKey", "NoSuchUpload", "NotFound"})
FULL = frozenset({"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "507"})

HINTS = {
    "RequestTimeTooSkewed": "This machine's clock and the service's are too far apart; set them, "
    "best by NTP.",
    "AccessDenied": "Give the access key the right to read, write, list and delete in the bucket.",
    "403": "Give the access key the right to read, write, list and delete in the bucket.",
    "InvalidAccessKeyId": "The service does not know the access key; see the setting "
    "s3_access_key.",
    "SignatureDoesNotMatch": "The secret does not belong to the access key; see the setting "
    "s3_secret_key.",
    "NoSuchBucket": "Make the bucket, or correct the setting s3_bucket.",
    "PermanentRedirect": "The bucket lies in another region; see the setting s3_region.",
    "AuthorizationHeaderMalformed": "The bucket lies in another region; see the setting s3_region.",
}


@dataclass(frozen=True)
class Patience:
    """
    How long a service is waited for.

    Attributes:
        connect: seconds until it takes a connection.
        read: seconds until the next byte of its answer.
        attempts: how often a request is sent, in all.
    """

    connect: float
    read: float
    attempts: int


# For model bytes, which a worker has all the time for.
LONG = Patience(connect=10, read=60, attempts=ATTEMPTS)
# For what somebody waits for: a request of the API, or all who want a lock that is held meanwhile.
SHORT = Patience(connect=2, read=8, attempts=2)


@dataclass(frozen=True)
class S3Options:
    """
    How the bucket is reached; the settings ``s3_...`` tell what each means.

    Attributes:
        bucket: its name.
        prefix: before all keys, for a bucket that has other things in it, too.
        endpoint: URL of the service; null: Amazon's.
        public_endpoint: URL under which clients reach it, where that is another one.
        region: of the bucket.
        access_key: null: as boto3 finds one.
        secret_key: of the access key.
        addressing: path, virtual or auto.
        ca_file: certificates to trust; null: the system's.
        checksums: when_required or when_supported.
        encryption: AES256 or aws:kms; null: the bucket's own.
        kms_key: key of aws:kms.
    """

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    public_endpoint: str | None = None
    region: str = "us-east-1"
    access_key: str | None = None
    secret_key: str | None = None
    addressing: str = "auto"
    ca_file: Path | None = None
    checksums: str = "when_required"
    encryption: str | None = None
    kms_key: str | None = None

    def encrypted(self) -> dict[str, str]:
        """Return the arguments of every request that makes an object."""
        if self.encryption is None:
            return {}
        key = {} if self.kms_key is None else {"SSEKMSKeyId": self.kms_key}
        return {"ServerSideEncryption": self.encryption, **key}


def options_of(settings: Settings) -> S3Options:
    """Return the options that `settings`, which name a bucket, give."""
    assert settings.s3_bucket is not None, "a store in a bucket is for settings that name one"
    access, secret = settings.s3_access_key, settings.s3_secret_key
    return S3Options(
        bucket=settings.s3_bucket,
        prefix=settings.s3_prefix,
        endpoint=settings.s3_endpoint,
        public_endpoint=settings.s3_public_endpoint,
        region=settings.s3_region,
        access_key=None if access is None else access.get_secret_value(),
        secret_key=None if secret is None else secret.get_secret_value(),
        addressing=settings.s3_addressing,
        ca_file=settings.s3_ca_file,
        checksums=settings.s3_checksums,
        encryption=settings.s3_encryption,
        kms_key=settings.s3_kms_key,
    )


def connect(options: S3Options, endpoint: str | None, patience: Patience = LONG) -> Any:
    """
    Return a boto3 client, which opens no connection yet. Safe to use from several threads.

    Raises:
        ConfigurationError: the options cannot be used.
    """
    config = Config(
        signature_version="s3v4",
        region_name=options.region,
        s3={"addressing_style": options.addressing},
        request_checksum_calculation=options.checksums,
        response_checksum_validation=options.checksums,
        retries={"total_max_attempts": patience.attempts, "mode": "standard"},
        connect_timeout=patience.connect,
        read_timeout=patience.read,
        max_pool_connections=CONNECTIONS,
    )
    if options.ca_file is not None and not options.ca_file.is_file():
        raise ConfigurationError(
            f"There is no file {str(options.ca_file)!r}.", hint="See the setting s3_ca_file."
        )
    try:
        return boto3.session.Session().client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id=options.access_key,
            aws_secret_access_key=options.secret_key,
            verify=None if options.ca_file is None else str(options.ca_file),
            config=config,
        )
    except (BotoCoreError, ValueError) as error:
        raise ConfigurationError(
            f"The S3 service cannot be used: {error}.",
            hint="See the settings s3_endpoint, s3_region, s3_access_key and s3_secret_key.",
        ) from error


def is_gone(error: ClientError) -> bool:
    """Return whether the error says that there is no such key or upload."""
    return code_of(error) in GONE


def code_of(error: ClientError) -> str:
    """Return the service's name of the error."""
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def s3_errors(options: S3Options) -> Iterator[None]:
    """Turn boto3's errors into ours: one sentence that an operator can act on."""
    try:
        yield
    except ClientError as error:
        raise _refusal(options, error) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise ConfigurationError(
            f"There is no access key for the bucket {options.bucket!r}.",
            hint="See the settings s3_access_key and s3_secret_key.",
        ) from error
    except (BotoCoreError, HTTPError, ValueError, RecursionError) as error:
        # What boto3 lets through: damaged TLS, headers that are no HTTP, redirects in circles.
        raise StorageUnavailable(
            f"The bucket {options.bucket!r} does not answer: {str(error).rstrip('.')}.",
            hint="Nothing that was accepted is lost. See the setting s3_endpoint, and run: "
            "coldfusion-server doctor",
        ) from error


def _refusal(options: S3Options, error: ClientError) -> StorageUnavailable | StorageFull:
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    # A proxy in between answers without any code.
    code = code_of(error) or f"status {status}"
    # Ceph names its errors and says nothing else.
    said = str(error.response.get("Error", {}).get("Message") or "").rstrip(".")
    what = f"{code}: {said}" if said and said != code else code
    if code in FULL:
        return StorageFull(
            f"The bucket {options.bucket!r} has no room: {what}.",
            hint="The operator has to free space; nothing that was accepted is lost.",
        )
    return StorageUnavailable(
        f"The bucket {options.bucket!r} refuses {error.operation_name}: {what}.",
        hint=HINTS.get(code),
    )
