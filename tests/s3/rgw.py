"""A real S3 server of the tests' own: one node of Ceph with its RADOS gateway, on loopback."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.ports import free_ports

PROGRAMS = ("ceph", "ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "monmaptool")
START_SECONDS = 300
# Sparse: a test run uses a few hundred megabytes of it.
DISK_BYTES = 16 * 2**30

CONFIGURATION = """
[global]
fsid = {fsid}
mon host = v2:127.0.0.1:{mon_port}/0
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
auth allow insecure global id reclaim = false
public network = 127.0.0.0/8
ms bind ipv6 = false
ms bind msgr1 = false
run dir = {folder}/run
admin socket = {folder}/run/$name.$pid.asok
log file = {folder}/log/$name.log
keyring = {folder}/keyring
mon allow pool size one = true
mon warn on pool no redundancy = false
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon max pg per osd = 1000
[mon]
mon data = {folder}/mon
# The disk of a test machine may well be nearly full.
mon data avail crit = 0
mon data avail warn = 0
paxos propose interval = 0.05
paxos min wait = 0.01
[osd]
osd data = {folder}/osd
osd objectstore = bluestore
osd crush update on start = false
osd memory target = 1073741824
osd numa auto affinity = false
bluestore block size = {disk}
bluestore fsck on mount = false
[client]
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw data = {folder}/rgw
rgw dns name = localhost
rgw thread pool size = 32
rgw run sync thread = false
"""


@dataclass(frozen=True)
class S3Server:
    """Where it listens, who may use it, and the processes that can be ended."""

    endpoint: str
    access_key: str
    secret_key: str
    folder: Path
    gateway: Gateway

    def other_user(self, quota_bytes: int | None = None) -> tuple[str, str]:
        """Return access key and secret of a new user, to whom no bucket belongs."""
        name, access, secret = (secrets.token_hex(8) for _ in range(3))
        configuration = self.folder / "ceph.conf"
        _user(configuration, name, access, secret)
        if quota_bytes is not None:
            quota: list[str | Path] = ["radosgw-admin", "-c", configuration, "quota"]
            whose = [f"--uid={name}", "--quota-scope=user"]
            _call(*quota, "set", *whose, f"--max-size={quota_bytes}")
            _call(*quota, "enable", *whose)
        return access, secret


class Gateway:
    """The process that speaks S3; what it keeps survives it."""

    def __init__(self, configuration: Path, port: int) -> None:
        self.configuration, self.port = configuration, port
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it listens."""
        with (self.configuration.parent / "log" / "rgw.out").open("ab") as log:
            self.process = subprocess.Popen(
                ["radosgw", "-c", self.configuration, "-f"], stdout=log, stderr=log
            )
        _wait_for(self.port, self.process)

    def kill(self) -> None:
        """End it at once, as a failing machine does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@contextmanager
def server() -> Iterator[S3Server]:
    """Run a server on free ports; skip where Ceph is not installed."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        pytest.skip(
            f"no S3 server here ({missing[0]} is missing): apt-get install --no-install-recommends "
            "ceph-mon ceph-osd radosgw ceph-common"
        )
    if os.geteuid() != 0:
        pytest.skip("Ceph's servers are started by root here")
    folder = Path(tempfile.mkdtemp(prefix="coldfusion-s3-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield _start(stack, folder)


def _start(stack: ExitStack, folder: Path) -> S3Server:
    configuration = folder / "ceph.conf"
    port, mon_port = free_ports(2)
    for name in ("mon", "osd", "rgw", "run", "log"):
        (folder / name).mkdir()
    fsid = str(uuid.uuid4())
    configuration.write_text(
        CONFIGURATION.format(
            fsid=fsid, mon_port=mon_port, port=port, folder=folder, disk=DISK_BYTES
        )
    )
    _make_keys(folder)
    monmap = folder / "monmap"
    address = f"[v2:127.0.0.1:{mon_port}]"
    _call("monmaptool", "--create", "--addv", "a", address, "--fsid", fsid, monmap)
    ceph: list[str | Path] = ["-c", configuration]
    _call(
        "ceph-mon", *ceph, "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", folder / "keyring"
    )
    _run(stack, folder, "ceph-mon", *ceph, "-f", "-i", "a")
    disk = str(uuid.uuid4())
    _call("ceph", *ceph, "--connect-timeout", "300", "osd", "create", disk)
    _call("ceph-osd", *ceph, "-i", "0", "--mkfs", "--osd-uuid", disk)
    _call("ceph", *ceph, "osd", "crush", "add", "osd.0", "1.0", "root=default")
    _run(stack, folder, "ceph-osd", *ceph, "-f", "-i", "0")
    gateway = Gateway(configuration, port)
    stack.callback(gateway.kill)
    gateway.start()
    access, secret = secrets.token_hex(8), secrets.token_hex(16)
    _user(configuration, "tests", access, secret)
    return S3Server(f"http://127.0.0.1:{port}", access, secret, folder, gateway)


def _make_keys(folder: Path) -> None:
    keyring = folder / "keyring"
    rights = {"mon.": ["mon", "allow *"], "osd.0": ["mon", "allow profile osd", "osd", "allow *"]}
    rights["client.admin"] = ["mon", "allow *", "osd", "allow *", "mgr", "allow *"]
    _call("ceph-authtool", "--create-keyring", keyring)
    for name, granted in rights.items():
        pairs = zip(granted[::2], granted[1::2], strict=True)
        caps = [argument for pair in pairs for argument in ("--cap", *pair)]
        _call("ceph-authtool", keyring, "--gen-key", "-n", name, *caps)


def _user(configuration: Path, name: str, access: str, secret: str) -> None:
    who = [f"--uid={name}", f"--display-name={name}"]
    keys = [f"--access-key={access}", f"--secret-key={secret}"]
    _call("radosgw-admin", "-c", configuration, "user", "create", *who, *keys)


def _call(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, timeout=START_SECONDS, check=False)
    assert done.returncode == 0, f"{command[0]}: {done.stderr.decode(errors='replace')[-2000:]}"


def _run(stack: ExitStack, folder: Path, *command: str | Path) -> None:
    with (folder / "log" / f"{command[0]}.out").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    # Thrown away, so killed at once: an orderly end waits for the other one, which ends, too.
    stack.callback(_kill, process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        assert process.poll() is None, "the gateway has ended"
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise AssertionError(f"the gateway does not listen after {START_SECONDS} s")


__all__: Sequence[str] = ("Gateway", "S3Server", "server")
