"""Signed URLs that expire on the way are renewed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from coldfusion_server.storage.s3.connection import S3Options
from coldfusion_shared.weights.digests import file_sha256
from tests.faults.proxy import Asked, Fault
from tests.faults.stage import MIB, MODEL, Stage, clean_end, stage

MINUTES = "0.05"
SECONDS = 3


@pytest.fixture(params=["local", "ceph"])
def short(request: pytest.FixtureRequest, middling: Path, tmp_path: Path) -> Iterator[Stage]:
    store: S3Options | None = None
    if request.param == "ceph":
        store = request.getfixturevalue("rgw")
    with stage(tmp_path, middling, store, settings={"COLDFUSION_URL_MINUTES": MINUTES}) as made:
        yield made


def test_an_upload_and_a_download_outlast_their_urls(short: Stage) -> None:
    client = short.client()
    # The first four parts take longer than the URL of the fifth is good for.
    short.wire.sent.rate = 6 * MIB
    done = client.run("push", MODEL, str(short.finetuned()), "--base", "v0", "--json")
    clean_end(done)
    short.accepted(json.loads(done.stdout)["id"])
    refused = [asked for asked in short.wire.asked if asked.answered == 403]
    assert refused
    assert set(short.acknowledged().values()) == {1}

    # And what is asked for too late is asked for again.
    late, short.wire.asked[:] = {True}, []

    def rule(asked: Asked) -> Fault | None:
        if asked.method != "GET" or "X-Amz-Signature" not in asked.target or not late:
            return None
        return Fault(delay=late.pop() * (SECONDS + 1.5))

    short.wire.rule = rule
    client = short.client()
    clean_end(client.run("pull", MODEL, "--out", "base"))
    large = "model.safetensors"
    assert file_sha256(client.home / "base" / large) == file_sha256(short.base / large)
    if short.in_bucket:
        assert [asked.answered for asked in short.wire.asked].count(403) >= 1
