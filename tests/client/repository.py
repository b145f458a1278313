"""A Repository in memory, for the client's tests: over httpx.MockTransport, or over a socket."""

from __future__ import annotations

import hashlib
import json
import re
import ssl
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

from coldfusion_shared.schemas.bases import Base, Manifest
from coldfusion_shared.schemas.contributions import Contribution, Declaration
from coldfusion_shared.schemas.evaluations import EvaluationReport, Suite
from coldfusion_shared.schemas.files import FileEntry
from coldfusion_shared.signing.heads import Head, TakenBack, sign_head
from coldfusion_shared.signing.keys import SigningKey
from coldfusion_shared.signing.model_signature import sign_base

TOKEN = "cf_test_secret"
MODEL = "demo/tiny"
NOW = datetime(2026, 11, 21, tzinfo=UTC)
NEEDS = "Needs 2 more accepted contributions."
PROSPECT = {"round": 1, "staleness": 0, "factor": 1.0, "sentence": "It goes into round 1."}

KEY = SigningKey.from_secret(b"a signing secret of the tests' own")

Fault = Callable[[httpx.Request], httpx.Response | None]


def problem(status: int, code: str, detail: str = "no", **more: Any) -> httpx.Response:
    body = {"type": "about:blank", "title": code, "status": status, "detail": detail, "code": code}
    return httpx.Response(
        status, json={**body, **more}, headers={"Content-Type": "application/problem+json"}
    )


def ranged(request: httpx.Request, data: bytes) -> httpx.Response:
    """Answer with the range of `data` that was asked for."""
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
    if not match:
        return httpx.Response(200, content=data)
    start, end = int(match[1]), min(int(match[2] or len(data)) + 1, len(data))
    span = f"bytes {start}-{end - 1}/{len(data)}"
    return httpx.Response(206, content=data[start:end], headers={"Content-Range": span})


class Repository:
    """Serves one model; what a test wants to go wrong is put into `faults`."""

    def __init__(self, files: dict[str, bytes], part_size: int = 40) -> None:
        self.part_size = part_size
        self.bases: list[tuple[Base, dict[str, bytes]]] = []
        self.contributions: dict[str, dict[str, Any]] = {}
        self.keys: dict[str, str] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.urls = 0  # generation of part URLs
        self.faults: list[Fault] = []
        self.requests: list[httpx.Request] = []
        self.role = "contributor"
        self.expires_at: datetime | None = None
        self.headers: dict[str, str] = {}  # of the answer to "who are you"
        self.usage: dict[str, Any] | None = None  # what an older server does not know
        self.verdict: dict[str, Any] = {"state": "accepted"}
        self.policy: dict[str, Any] = {}
        self.round_changes: dict[str, Any] = {}  # of the newest round
        self.screened_after = 1
        self.events: list[dict[str, Any]] = []
        self.suites: dict[str, Suite] = {}
        self.reports: list[tuple[str, EvaluationReport]] = []  # version, scores
        # Null: a server from before there were signatures.
        self.key: SigningKey | None = KEY
        self.taken_back: list[TakenBack] = []
        self.went_back: list[dict[str, Any]] = []  # moves of the head, newest first
        self.lock = threading.RLock()
        self.publish(files)

    def roll_back(self, reason: str) -> None:
        """Let the base before the newest be the head again, and tell so."""
        left, _ = self.bases.pop()
        now = self.newest.version
        told = TakenBack(from_version=left.version, to_version=now, reason=reason, at=NOW)
        self.taken_back.append(told)
        move = {"kind": "rollback", "before": left.version, "after": now, "reason": reason}
        self.went_back.insert(0, {**move, "at": NOW.isoformat(), "by": "max"})

    def publish(self, files: dict[str, bytes], **changes: Any) -> Base:
        number = len(self.bases)
        entries = [
            FileEntry(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest())
            for path, data in files.items()
        ]
        manifest = Manifest(
            model=MODEL, version=f"v{number}", created_at=NOW, files=entries, parent=None,
            round=None, software="test",
        )  # fmt: skip
        base = Base(
            model=MODEL, version=manifest.version, digest=manifest.digest(), current=True,
            created_at=NOW, manifest=manifest,
        )  # fmt: skip
        self.bases.append((base.model_copy(update=changes), files))
        return base

    @property
    def newest(self) -> Base:
        return self.bases[-1][0]

    def handle(self, request: httpx.Request) -> httpx.Response:
        with self.lock:
            request.read()
            self.requests.append(request)
            for fault in list(self.faults):
                answer = fault(request)
                if answer is not None:
                    return answer
            return self._route(request)

    def seen(self, method: str, pattern: str) -> list[httpx.Request]:
        return [r for r in self.requests if r.method == method and re.search(pattern, r.url.path)]

    def received(self, identity: str) -> bytes:
        return b"".join(data for _, data in sorted(self.parts[identity].items()))

    def _route(self, request: httpx.Request) -> httpx.Response:
        routes: list[tuple[str, str, Callable[..., httpx.Response]]] = [
            ("GET", r"/v1", self._info),
            ("GET", r"/v1/whoami", self._whoami),
            ("GET", r"/v1/usage/me", self._usage),
            ("GET", r"/v1/models", self._models),
            ("GET", rf"/v1/models/{MODEL}", self._model),
            ("GET", rf"/v1/models/{MODEL}/rounds", self._rounds),
            ("GET", rf"/v1/models/{MODEL}/rounds/(\w+)", self._round),
            ("GET", rf"/v1/models/{MODEL}/bases/(\w+)", self._base),
            ("GET", rf"/v1/models/{MODEL}/bases/(\w+)/files/(.+)", self._file),
            ("GET", r"/v1/signing-key", self._signing_key),
            ("GET", rf"/v1/models/{MODEL}/bases/(\w+)/signature", self._signature),
            ("GET", rf"/v1/models/{MODEL}/head", self._head),
            ("GET", rf"/v1/models/{MODEL}/heads", self._heads),
            ("GET", rf"/v1/models/{MODEL}/contributions", self._list),
            ("POST", rf"/v1/models/{MODEL}/contributions", self._declare),
            ("GET", r"/v1/contributions/(\w+)", self._contribution),
            ("GET", r"/v1/contributions/(\w+)/upload", self._plan),
            ("POST", r"/v1/contributions/(\w+)/complete", self._complete),
            ("POST", r"/v1/contributions/(\w+)/withdraw", self._withdraw),
            ("GET", r"/v1/suites/([^/]+)", self._suite),
            ("PUT", r"/v1/suites/([^/]+)", self._register),
            ("POST", rf"/v1/models/{MODEL}/bases/(\w+)/evaluations", self._report),
            ("PUT", r"/v1/uploads/(\w+)/(\d+)/(\d+)", self._put),
        ]
        for method, pattern, handler in routes:
            match = re.fullmatch(pattern, request.url.path)
            if match and method == request.method:
                return handler(request, *match.groups())
        return problem(404, "model_not_found", f"There is no {request.url.path}.")

    def _authorised(self, request: httpx.Request) -> bool:
        return bool(request.headers.get("Authorization") == f"Bearer {TOKEN}")

    def _whoami(self, request: httpx.Request) -> httpx.Response:
        if not self._authorised(request):
            return problem(401, "unauthenticated", "The token is not valid.")
        expiry = self.expires_at and self.expires_at.isoformat()
        return httpx.Response(200, json={"name": "ann", "role": self.role, "expires_at": expiry})

    def _info(self, request: httpx.Request) -> httpx.Response:
        said = {"name": "coldfusion", "version": "0.1.0", "time": NOW.isoformat()}
        return httpx.Response(200, json=said, headers=self.headers)

    def _usage(self, request: httpx.Request) -> httpx.Response:
        if self.usage is None:
            return problem(404, "not_found", "This server is older than quotas.")
        return httpx.Response(200, json={"contributor": "ann", **self.usage})

    def _models(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"items": [self._model_json()], "next_cursor": None})

    def _model(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=self._model_json())

    def _model_json(self) -> dict[str, Any]:
        return {
            "name": MODEL, "public": True, "created_at": NOW.isoformat(),
            "current": self.newest.version, "policy": self.policy,
            "open_round": len(self.bases) if self._round_json()["state"] == "open" else None,
            "accepted": 0, "contributors": 0, "moved": next(iter(self.went_back), None),
        }  # fmt: skip

    def _rounds(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"items": [self._round_json()], "next_cursor": None})

    def _round(self, request: httpx.Request, number: str) -> httpx.Response:
        return httpx.Response(200, json=self._round_json())

    def _round_json(self) -> dict[str, Any]:
        return {
            "model": MODEL, "number": len(self.bases), "state": "open",
            "base": self.newest.version, "result": None, "opened_at": NOW.isoformat(),
            "closed_at": None, "finished_at": None, "closes_at": None, "accepted": 1,
            "waiting": 0, "missing": 2, "needs": NEEDS, "fused_bytes": 0, "total_bytes": 0,
            "reason": None, **self.round_changes,
        }  # fmt: skip

    def _find(self, version: str) -> tuple[Base, dict[str, bytes]] | None:
        if version == "latest":
            return self.bases[-1]
        return next((pair for pair in self.bases if pair[0].version == version), None)

    def _base(self, request: httpx.Request, version: str) -> httpx.Response:
        found = self._find(version)
        if found is None:
            return problem(404, "base_not_found", f"There is no base {version}.")
        return httpx.Response(200, json=found[0].model_dump(mode="json"))

    def _file(self, request: httpx.Request, version: str, path: str) -> httpx.Response:
        found = self._find(version)
        data = found[1].get(path) if found else None
        if data is None:
            return problem(404, "file_not_found")
        return ranged(request, data)

    def _signing_key(self, request: httpx.Request) -> httpx.Response:
        if self.key is None:
            return problem(404, "not_found", "This server is older than signatures.")
        return httpx.Response(200, content=self.key.public.pem)

    def _signature(self, request: httpx.Request, version: str) -> httpx.Response:
        found = self._find(version)
        if self.key is None or found is None:
            return problem(404, "not_found" if found else "base_not_found")
        return httpx.Response(200, text=sign_base(found[0].manifest, self.key))

    def _head(self, request: httpx.Request) -> httpx.Response:
        if self.key is None:
            return problem(404, "not_found", "This server is older than signatures.")
        head = Head(
            model=MODEL, version=self.newest.version, digest=self.newest.manifest.digest(), at=NOW,
            nonce=request.url.params["nonce"], taken_back=self.taken_back,
        )  # fmt: skip
        return httpx.Response(200, text=sign_head(head, self.key))

    def _heads(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"items": self.went_back, "next_cursor": None})

    def _withdraw(self, request: httpx.Request, identity: str) -> httpx.Response:
        if identity not in self.contributions:
            return problem(404, "contribution_not_found", "There is no such contribution.")
        found = self.contributions[identity]
        changed = found["state"] != "withdrawn"
        found["state"] = "withdrawn"
        return httpx.Response(
            200,
            json={
                "contribution": self._json(identity), "changed": changed, "contained_in": [],
                "sentence": f"{identity} is withdrawn.",
            },
        )  # fmt: skip

    def _list(self, request: httpx.Request) -> httpx.Response:
        items = [self._json(identity) for identity in self.contributions]
        return httpx.Response(200, json={"items": items, "next_cursor": None})

    def _declare(self, request: httpx.Request) -> httpx.Response:
        if not self._authorised(request):
            return problem(401, "unauthenticated")
        key = request.headers["Idempotency-Key"]
        declared = Declaration.model_validate_json(request.content)
        if key not in self.keys:
            if declared.base != self.newest.version:
                return problem(409, "base_outdated", f"{self.newest.version} is the newest base.")
            self.keys[key] = self._add(declared)
        identity = self.keys[key]
        return httpx.Response(
            201,
            json={
                "contribution": self._json(identity),
                "prospect": PROSPECT,
                "upload": self._plan_json(identity),
            },
        )

    def _add(self, declared: Declaration) -> str:
        identity = f"c{len(self.contributions)}"
        self.contributions[identity] = {
            **declared.model_dump(mode="json"),
            "id": identity, "model": MODEL, "round": len(self.bases), "contributor": "ann",
            "state": "declared", "declared_at": NOW.isoformat(), "completed_at": None,
            "decided_at": None, "expires_at": (NOW + timedelta(days=1)).isoformat(),
            "uploaded_bytes": 0, "total_bytes": declared.files[0].size, "reason": None,
            "hint": None, "findings": [], "weight": None, "result": None, "looks": 0,
        }  # fmt: skip
        self.parts[identity] = {}
        return identity

    def _json(self, identity: str) -> dict[str, Any]:
        data = Contribution.model_validate(self.contributions[identity]).model_dump(mode="json")
        return dict(data)

    def _contribution(self, request: httpx.Request, identity: str) -> httpx.Response:
        if identity not in self.contributions:
            return problem(404, "contribution_not_found", "There is no such contribution.")
        found = self.contributions[identity]
        found["looks"] += 1
        if found["state"] == "completed" and found["looks"] >= self.screened_after:
            found.update(self.verdict)
        return httpx.Response(200, json=self._json(identity))

    def _plan(self, request: httpx.Request, identity: str) -> httpx.Response:
        return httpx.Response(200, json=self._plan_json(identity))

    def _plan_json(self, identity: str) -> dict[str, Any]:
        self.urls += 1
        file = self.contributions[identity]["files"][0]
        arrived = self.parts[identity]
        parts = []
        for number, start in enumerate(range(0, file["size"], self.part_size), 1):
            size = min(self.part_size, file["size"] - start)
            here = number in arrived or self.contributions[identity]["state"] != "declared"
            etag = hashlib.md5(arrived[number]).hexdigest() if number in arrived else None
            url = None if here else f"/v1/uploads/{identity}/{number}/{self.urls}?signature=secret"
            parts.append(
                {"number": number, "size": size, "uploaded": here, "etag": etag, "url": url}
            )
        upload = {**file, "part_size": self.part_size, "parts": parts}
        return {"contribution": identity, "expires_at": NOW.isoformat(), "files": [upload]}

    def _put(self, request: httpx.Request, identity: str, number: str, urls: str) -> httpx.Response:
        given = request.headers.get("Content-MD5")
        if given != b64encode(hashlib.md5(request.content).digest()).decode():
            return problem(400, "digest_mismatch", "The part is not what its Content-MD5 says.")
        self.parts[identity][int(number)] = request.content
        return httpx.Response(200)

    def _complete(self, request: httpx.Request, identity: str) -> httpx.Response:
        found = self.contributions[identity]
        if found["state"] == "declared":
            whole = self.received(identity)
            if len(whole) != found["files"][0]["size"]:
                return problem(409, "upload_incomplete", "Parts are missing.")
            if hashlib.sha256(whole).hexdigest() != found["files"][0]["sha256"]:
                return problem(422, "digest_mismatch", "Other bytes arrived.")
            found["state"] = "completed"
        return httpx.Response(200, json=self._json(identity))

    def _suite(self, request: httpx.Request, name: str) -> httpx.Response:
        if name not in self.suites:
            return problem(404, "suite_not_found", f"There is no suite {name!r}.")
        suite = self.suites[name]
        return httpx.Response(
            200,
            json={
                "name": name, "digest": suite.digest(), "suite": suite.model_dump(mode="json"),
                "registered_by": "eva", "created_at": NOW.isoformat(),
            },
        )  # fmt: skip

    def _register(self, request: httpx.Request, name: str) -> httpx.Response:
        suite = Suite.model_validate_json(request.content)
        if self.suites.setdefault(name, suite) != suite:
            return problem(409, "suite_changed", "That name stands for another suite.")
        return self._suite(request, name)

    def _report(self, request: httpx.Request, version: str) -> httpx.Response:
        if self._find(version) is None:
            return problem(404, "base_not_found", f"There is no base {version}.")
        report = EvaluationReport.model_validate_json(request.content)
        self.reports.append((version, report))
        average = sum(report.scores.values()) / len(report.scores)
        return httpx.Response(
            201,
            json={
                **report.model_dump(mode="json"), "version": version, "average": average,
                "evaluator": "eva", "created_at": NOW.isoformat(),
            },
        )  # fmt: skip


@contextmanager
def served(
    handle: Callable[[httpx.Request], httpx.Response], tls: ssl.SSLContext | None = None
) -> Iterator[str]:
    """Serve `handle` on a real socket, encrypted if `tls` is given; yields the URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            url = f"http://{self.headers['Host']}{self.path}"
            headers = {name: value for name, value in self.headers.items()}
            answer = handle(httpx.Request(self.command, url, headers=headers, content=body))
            self.send_response(answer.status_code)
            given = {name.lower(): value for name, value in answer.headers.items()}
            given.setdefault("content-length", str(len(answer.content)))
            for name, value in given.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.content)
            if int(given["content-length"]) != len(answer.content):
                self.close_connection = True

        do_GET = do_POST = do_PUT = _answer

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def once(method: str, pattern: str, *answers: httpx.Response | Exception) -> Fault:
    """Return a fault that gives `answers`, one after the other, to matching requests."""
    left = list(answers)

    def fault(request: httpx.Request) -> httpx.Response | None:
        if left and request.method == method and re.search(pattern, request.url.path):
            answer = left.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        return None

    return fault


def lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]
