"""The stages of the fault tests: a server with the local store, and one with a bucket on Ceph."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from coldfusion_server.storage.s3.connection import S3Options
from tests.faults import models
from tests.faults.stage import MIB, Stage, stage
from tests.tiny_models import tiny_bert


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def middling(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 24 MiB: five parts."""
    return models.pretrained(tiny, tmp_path_factory.mktemp("models") / "middling", 24 * MIB)


@pytest.fixture(scope="session")
def local_stage(middling: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("local"), middling, None) as made:
        yield made


@pytest.fixture(scope="session")
def ceph_stage(
    middling: Path, rgw: S3Options, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("ceph"), middling, rgw) as made:
        yield made


@pytest.fixture
def on_ceph(ceph_stage: Stage) -> Iterator[Stage]:
    """A server with a bucket, shared by tests that leave it well."""
    ceph_stage.heal()
    yield ceph_stage
    ceph_stage.heal()


@pytest.fixture
def on_disk(local_stage: Stage) -> Iterator[Stage]:
    """A server that keeps objects itself, shared by tests that leave it well."""
    local_stage.heal()
    yield local_stage
    local_stage.heal()


@pytest.fixture(params=["local", "ceph"])
def on(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """Each of the two in turn."""
    made: Stage = request.getfixturevalue(f"{request.param}_stage")
    made.heal()
    yield made
    made.heal()
