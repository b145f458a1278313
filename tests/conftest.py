"""What all tests share: how hard hypothesis tries, the databases, and the S3 servers."""

from __future__ import annotations

import functools
import gc
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator

import pytest

# Several tests run at a time: threads of theirs would only wait for each other. Said before torch
# is loaded, and to all processes that the tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import typer.testing
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers
from hypothesis.internal.constants_ast import Constants

from coldfusion_server.storage.s3.connection import S3Options
from tests import told_secrets
from tests.s3 import rgw as ceph
from tests.s3 import stores
from tests.server import backends, statements

MEMORY = "/dev/shm"
# The largest tests keep a gigabyte and more; who has less than this keeps it for the programs.
MEMORY_BYTES = 6 * 2**30


def _use_memory() -> None:
    """Keep temporary files in memory where there is plenty: syncs of a disk take longest of all."""
    if "TMPDIR" in os.environ or not os.access(MEMORY, os.W_OK):
        return
    if shutil.disk_usage(MEMORY).free >= MEMORY_BYTES:
        os.environ["TMPDIR"] = tempfile.tempdir = MEMORY


_use_memory()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--databases",
        choices=("chosen", "both"),
        default="chosen",
        help="run tests of the server on both databases, not only those that are marked so",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Say for each test that needs a database which one, or that it runs on both."""
    if "backend" in metafunc.fixturenames:
        everywhere = metafunc.config.getoption("databases") == "both"
        names = backends.databases_of(metafunc.definition, everywhere=everywhere)
        metafunc.parametrize("backend", names, indirect=True)


def pytest_collection_finish() -> None:
    """Look through what was imported for garbage once, and no more at each collection."""
    gc.collect()
    gc.freeze()


# The machines of CI are slow and shared: a deadline, of a test or of what it draws, would fail for
# no reason of ours. The examples are the same in each run, so that what fails has been changed;
# `make soak` looks for new ones.
settings.register_profile(
    "coldfusion",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    max_examples=60,
    print_blob=True,
    derandomize=True,
)
settings.register_profile(
    "soak", settings.get_profile("coldfusion"), max_examples=6_000, derandomize=False
)
settings.load_profile("coldfusion")

# Or else it also draws what stands as a constant in those of our modules that happen to be imported
# by then: other examples with every order of the tests.
_OF_NO_MODULE = Constants()
providers._get_local_constants = lambda: _OF_NO_MODULE


@pytest.fixture(scope="session", autouse=True)
def _settings_of_nobody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep off what a person keeps: tokens, and keys of servers whose ports come again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLDFUSION_CONFIG", str(tmp_path_factory.mktemp("settings")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_secret_was_told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Look at the command lines and the logs of all programs that the tests run."""
    with told_secrets.in_commands() as told:
        yield
    told += told_secrets.in_logs(tmp_path_factory.getbasetemp())
    assert not told


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Look through a test's own logs, for its folder goes when it has passed."""
    folder = getattr(item, "funcargs", {}).get("tmp_path")
    told = [] if folder is None else told_secrets.in_logs(folder)
    yield
    assert not told


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let a test fail whose own process has logged a secret: a server may have been in it."""
    report = yield
    told = told_secrets.in_report(report.sections)
    if told is not None and report.passed:
        report.outcome, report.longrepr = "failed", told
    return report


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


@pytest.fixture(scope="session", autouse=True)
def _made_once() -> Iterator[None]:
    """Compile each statement, and build each command line, once and not once for each test."""
    with pytest.MonkeyPatch.context() as patch:
        statements.remember(patch)
        get_command = functools.cache(typer.main.get_command)
        patch.setattr("typer.main.get_command", get_command)
        patch.setattr("typer.testing._get_command", get_command)
        yield


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server without databases; skips where there is none."""
    from tests.server.postgres import server

    with server() as url:
        yield url


@pytest.fixture(scope="session")
def backend(request: pytest.FixtureRequest) -> backends.Backend:
    """The database that the test is for; skips PostgreSQL where there is none."""
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
