"""The client is killed at random points of an upload, and started again by the same command."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from coldfusion_server.storage.s3.connection import S3Options
from tests.e2e.programs import Client
from tests.faults import models
from tests.faults.stage import MIB, MODEL, PART_BYTES, WORKERS, Stage, clean_end, stage, wait_for

KILLS = 20
MOST_BYTES = 24 * MIB


@pytest.fixture
def large(tiny: Path, rgw: S3Options, tmp_path: Path) -> Iterator[Stage]:
    base = models.pretrained(tiny, tmp_path / "base", 200 * 10**6)
    with stage(tmp_path, base, rgw) as made:
        yield made


def killed(on: Stage, client: Client, words: list[str], count: int) -> None:
    """Start a command, and kill it as soon as `count` more bytes have gone to the store."""
    on.wire.sent.allow(count)
    process = client.start(*words)
    wait_for(lambda: on.wire.sent.closed.is_set() or process.poll() is not None, "the bytes")
    assert process.poll() is None, process.communicate()
    process.kill()
    process.communicate()
    on.wire.drop()


def test_an_upload_of_200_mb_survives_20_kills_and_another_machine(large: Stage) -> None:
    chance, model = random.Random(20), large.finetuned()
    words = ["push", MODEL, str(model), "--base", "v0"]
    client = large.client()
    for number in range(KILLS):
        if number == KILLS // 2:
            client = large.client()
        killed(large, client, words, chance.randrange(1, MOST_BYTES))
    before = large.acknowledged().total()
    large.wire.sent.allow(None)
    clean_end(client.run(*words))
    [shown] = large.contributions()
    large.accepted(shown["id"])
    size = shown["files"][0]["size"]
    assert before > 4
    assert set(large.acknowledged().values()) == {1}
    assert 0 < large.wire.sent.passed - size <= KILLS * WORKERS * PART_BYTES
