"""A key without rights in the bucket, and one that loses them while the server runs."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from coldfusion_client.cli.errors import exit_code
from coldfusion_server.storage.s3.connection import S3Options, connect
from tests.e2e.programs import BIN, Server
from tests.faults.stage import MIB, MODEL, Stage, clean_end, stage, wait_for
from tests.s3.rgw import S3Server


def refused_start(folder: Path, options: S3Options, **settings: str) -> str:
    """Start a server that cannot, and return its words."""
    server = Server(folder / "data", options, settings=settings)
    done = subprocess.run(
        [str(BIN / "coldfusion-server"), "up", "--data-dir", str(server.data_dir), "--port", "0"],
        env=server.environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert "Traceback" not in said and "coldfusion is up" not in said and "None" not in said
    return said


def test_a_server_without_rights_does_not_start(
    ceph_server: S3Server, rgw: S3Options, tmp_path: Path
) -> None:
    access, secret = ceph_server.other_user()
    said = refused_start(tmp_path, replace(rgw, access_key=access, secret_key=secret))
    assert "AccessDenied" in said and "right to read, write, list and delete" in said


def test_a_server_with_a_wrong_secret_does_not_start(rgw: S3Options, tmp_path: Path) -> None:
    said = refused_start(tmp_path, replace(rgw, secret_key="wrong"))
    assert "s3_secret_key" in said


def test_a_server_whose_bucket_is_not_there_does_not_start(rgw: S3Options, tmp_path: Path) -> None:
    said = refused_start(tmp_path, replace(rgw, bucket="nobody-made-this"))
    assert "NoSuchBucket" in said


@pytest.fixture
def account(ceph_server: S3Server, rgw: S3Options) -> S3Options:
    """A user with a bucket of its own."""
    access, secret = ceph_server.other_user()
    options = replace(
        rgw, bucket=f"own-{secrets.token_hex(4)}", access_key=access, secret_key=secret
    )
    connect(options, options.endpoint).create_bucket(Bucket=options.bucket)
    return options


@pytest.fixture
def own(account: S3Options, middling: Path, tmp_path: Path) -> Iterator[Stage]:
    with stage(tmp_path, middling, account) as made:
        yield made


def admin(server: S3Server, *words: str) -> str:
    command = ["radosgw-admin", "-c", str(server.folder / "ceph.conf"), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout


def test_rights_that_are_taken_away_and_given_back(
    own: Stage, account: S3Options, ceph_server: S3Server
) -> None:
    client = own.client()
    push = ("push", MODEL, str(own.finetuned()), "--base", "v0", "--json")
    user = json.loads(admin(ceph_server, "user", "info", f"--access-key={account.access_key}"))
    # In the middle of an upload: of its five parts the last one has not begun.
    own.wire.sent.allow(4 * MIB)
    process = client.start(*push)
    wait_for(own.wire.sent.closed.is_set, "half of the upload")
    admin(ceph_server, "user", "suspend", f"--uid={user['user_id']}")
    own.wire.sent.allow(None)
    out, errors = process.communicate(timeout=300)
    assert process.returncode == exit_code("storage_unavailable"), errors
    assert "UserSuspended" in errors and "Traceback" not in errors
    # The server itself, too: a sentence for who asks, and one in the log.
    refused = own.declare()
    assert refused.status_code == 503 and "UserSuspended" in refused.json()["detail"]
    wait_for(lambda: "UserSuspended" in own.log, "a line in the log")
    assert "Traceback" not in own.log
    admin(ceph_server, "user", "enable", f"--uid={user['user_id']}")
    done = client.run(*push)
    clean_end(done)
    own.accepted(json.loads(done.stdout)["id"])
