"""Receivers of webhooks: real servers, well-behaved and not, with and without TLS."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PATIENCE_SECONDS = 120


@dataclass(frozen=True)
class Posted:
    """One request that came in."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


@dataclass
class Receiver:
    """
    A server that keeps what it is posted.

    Attributes:
        port: on 127.0.0.1.
        behave: called with each request, which is kept by then, and what answers it; answers itself
            where it returns true.
        posted: what came in, in order.
    """

    port: int = 0
    behave: Callable[[Posted, BaseHTTPRequestHandler], bool] = lambda posted, handler: False
    posted: list[Posted] = field(default_factory=list)
    arrived: threading.Condition = field(default_factory=threading.Condition)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def wait(self, count: int) -> list[Posted]:
        """Wait until so many requests have come in."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.posted) >= count, PATIENCE_SECONDS), (
                f"{len(self.posted)} of {count} arrived"
            )
            return list(self.posted)

    def keep(self, posted: Posted) -> None:
        with self.arrived:
            self.posted.append(posted)
            self.arrived.notify_all()


def status(code: int, **headers: str) -> Callable[[Posted, BaseHTTPRequestHandler], bool]:
    """Return a behaviour that answers with that status."""

    def behave(posted: Posted, handler: BaseHTTPRequestHandler) -> bool:
        handler.send_response(code)
        for name, value in {"Content-Length": "0", **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        return True

    return behave


@contextmanager
def receiver(tls: ssl.SSLContext | None = None, **values: Any) -> Iterator[Receiver]:
    """Run a receiver inside the block."""
    made = Receiver(**values)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            posted = Posted(self.path, headers, body)
            # Before the answer: whoever has that may look at once.
            made.keep(posted)
            if not made.behave(posted, self):
                status(204)(posted, self)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True
        # Where fewer wait, the system lets a further one try again after a second, and after three.
        request_queue_size = 128

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass

    with Quiet(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        made.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def mute() -> Iterator[int]:
    """Listen, and take connections that nothing is ever said on; yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


class Authority:
    """An authority of the tests' own."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
        self.certificate = self._signed(self.name, self.key.public_key(), None)

    def server(self, folder: Path, *names: str, days: int = 1) -> ssl.SSLContext:
        """Return what a server of these names shows; of negative days it is past."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        file = folder / f"{names[0]}{days}.pem"
        certificate = self._signed(subject, key.public_key(), names, days)
        file.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(file)
        return made

    def trusted(self) -> ssl.SSLContext:
        """Return what a client trusts it by."""
        pem = self.certificate.public_bytes(serialization.Encoding.PEM).decode()
        return ssl.create_default_context(cadata=pem)

    def _signed(
        self, subject: x509.Name, key: Any, names: tuple[str, ...] | None, days: int = 1
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=9))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(names is None, None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
        )
        if names is None:
            usage = x509.KeyUsage(
                digital_signature=True, key_cert_sign=True, crl_sign=True,
                content_commitment=False, key_encipherment=False, data_encipherment=False,
                key_agreement=False, encipher_only=False, decipher_only=False,
            )  # fmt: skip
            made = made.add_extension(usage, critical=True)
        else:
            made = made.add_extension(
                x509.SubjectAlternativeName([_general(name) for name in names]), critical=False
            )
        return made.sign(self.key, hashes.SHA256())


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
