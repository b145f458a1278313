"""What the environment says of proxies and certificates holds for the API and for redirects."""

from __future__ import annotations

import datetime
import http.client
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from coldfusion_client.api import Api
from coldfusion_client.connection import Connection
from coldfusion_client.patience import Patience
from coldfusion_shared import errors
from tests.client.helpers import model_files
from tests.client.repository import MODEL, TOKEN, Repository, served

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


class Proxy(BaseHTTPRequestHandler):
    """Passes plain HTTP on, and notes the URLs."""

    seen: list[str]

    def _pass_on(self) -> None:
        self.seen.append(self.path)
        url = httpx.URL(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        onward = http.client.HTTPConnection(url.host, url.port or 80, timeout=60)
        onward.request(self.command, url.raw_path.decode(), body, dict(self.headers))
        answer = onward.getresponse()
        content = answer.read()
        onward.close()
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = _pass_on

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def proxy() -> Iterator[tuple[str, list[str]]]:
    handler = type("Noting", (Proxy,), {"seen": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler.seen  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()


@pytest.fixture
def bucket() -> Iterator[str]:
    with served(lambda request: httpx.Response(200, content=b"stored")) as url:
        yield url


@pytest.fixture
def redirecting(repository: Repository, bucket: str, url: str) -> str:
    def redirect(request: httpx.Request) -> httpx.Response | None:
        if "/files/" not in request.url.path:
            return None
        return httpx.Response(307, headers={"Location": f"{bucket}/object"})

    repository.faults.append(redirect)
    return url


def transfer(url: str, bucket: str) -> None:
    connection = Connection(url, TOKEN, patience=Patience(tries=1))
    with Api(connection) as api:
        assert api.whoami().name == "ann"
        with api.open_file(MODEL, "v0", "config.json") as response:
            assert response.read() == b"stored"
        api.put_part(f"{bucket}/part", [b"x"], 1, b"md5")


def test_a_proxy_is_used_for_the_api_for_redirects_and_for_parts(
    proxy: tuple[str, list[str]], redirecting: str, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy[0])
    transfer(redirecting, bucket)
    assert proxy[1] == [
        f"{redirecting}/v1/whoami",
        f"{redirecting}/v1/models/{MODEL}/bases/v0/files/config.json",
        f"{bucket}/object",
        f"{bucket}/part",
    ]


def test_no_proxy_switches_it_off(
    proxy: tuple[str, list[str]], redirecting: str, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy[0])
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    transfer(redirecting, bucket)
    assert proxy[1] == []


def test_a_proxy_that_is_gone_is_an_error_of_ours(
    redirecting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with (
        pytest.raises(errors.ServerUnreachable),
        Api(Connection(redirecting, patience=Patience(tries=1))) as api,
    ):
        api.info()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-made certificate of 127.0.0.1 and its key, in one file."""
    pytest.importorskip("cryptography", reason="makes the certificate; comes with moto")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "coldfusion test")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def secure(certificate: Path, repository: Repository) -> Iterator[str]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    with served(repository.handle, context) as url:
        yield url.replace("http://", "https://")


def test_own_certificates_are_named_by_the_environment(
    secure: str, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        pytest.raises(errors.ServerUnreachable, match="no secure connection") as caught,
        Api(Connection(secure, TOKEN)) as api,
    ):
        api.whoami()
    assert "SSL_CERT_FILE" in (caught.value.hint or "")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with Api(Connection(secure, TOKEN)) as api:
        assert api.whoami().name == "ann"
        with api.open_file(MODEL, "v0", "config.json", 2, 9) as response:
            assert response.read() == model_files()["config.json"][2:9]
