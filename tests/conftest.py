"""What all tests share: how hard hypothesis tries, the databases, and the S3 servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

from coldfusion_server.storage.s3.connection import S3Options
from tests.s3 import rgw as ceph
from tests.s3 import stores
from tests.server import backends

# The machines of CI are slow and shared: a deadline would fail for no reason of ours.
settings.register_profile("coldfusion", deadline=None, max_examples=60, print_blob=True)
settings.load_profile("coldfusion")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """
    Let this process, and those that it starts, compute with one thread.

    How a sum is split among threads decides its last bits.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server without databases; skips where there is none."""
    from tests.server.postgres import server

    with server() as url:
        yield url


@pytest.fixture(scope="session", params=backends.NAMES)
def backend(request: pytest.FixtureRequest) -> backends.Backend:
    """Each of the two databases in turn; skips PostgreSQL where there is none."""
    sqlite = request.param == "sqlite"
    return backends.Backend(None if sqlite else request.getfixturevalue("postgres"))


@pytest.fixture(scope="session")
def ceph_server() -> Iterator[ceph.S3Server]:
    """A real S3 server; skips where Ceph is not installed."""
    with ceph.server() as server:
        yield server


@pytest.fixture(scope="session")
def rgw(ceph_server: ceph.S3Server) -> S3Options:
    """A bucket on the real S3 server."""
    server = ceph_server
    return stores.bucket_of(server.endpoint, server.access_key, server.secret_key)


@pytest.fixture(scope="session")
def moto() -> Iterator[S3Options]:
    """A bucket on moto's mock of S3."""
    with stores.moto() as options:
        yield options
