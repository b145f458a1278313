"""No request makes the server connect to where it says: nothing in it connects anywhere else."""

from __future__ import annotations

import ast
import socket
from pathlib import Path
from typing import Any

import pytest

from coldfusion_server.cli.pretrained import fetched
from coldfusion_shared.errors import BadModel

ROOT = Path(__file__).parents[2]
CLIENTS = ("httpx", "requests", "aiohttp", "urllib3", "urllib.request", "http.client",
           "huggingface_hub", "datasets", "ftplib", "smtplib")  # fmt: skip
# Who may, and why: none of these is reached by a request.
KNOWN = {
    ("services/probes.py", "http.client"): "asks whether this machine's own server lives",
    ("cli/pretrained.py", "huggingface_hub"): "brings what the operator names",
    ("events/webhooks/posting.py", "httpx"): "posts where maintainers say, once it is checked",
    ("events/webhooks/urls.py", "httpx"): "reads URLs",
    ("services/webhooks.py", "httpx"): "reads URLs",
    ("oidc/fetching.py", "httpx"): "asks the provider whom the operator names, and follows nothing",
    ("storage/s3/bucket.py", "urllib3"): "names an error",
    ("storage/s3/connection.py", "urllib3"): "names an error",
}


def imports(file: Path) -> set[str]:
    """Return the modules that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_no_part_of_the_server_is_a_client_of_others() -> None:
    folder = ROOT / "server" / "coldfusion_server"
    met = {
        (file.relative_to(folder).as_posix(), client)
        for file in folder.rglob("*.py")
        for name in imports(file)
        for client in CLIENTS
        if name == client or name.startswith(f"{client}.")
    }
    assert met == set(KNOWN)


@pytest.mark.parametrize(
    "source",
    ["http://169.254.169.254/latest/meta-data", "https://localhost/model", "http://[::1]/x",
     "http://[::ffff:127.0.0.1]/x", "http://0x7f.1/x", "file:///etc/passwd", "ftp://10.0.0.1/x",
     "git+ssh://10.0.0.1/x", "//10.0.0.1/x", "http:10.0.0.1", "a/b/c", "../../etc"],
)  # fmt: skip
def test_a_model_comes_from_no_address(
    source: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("it connects")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(BadModel), fetched(source):
        pass
