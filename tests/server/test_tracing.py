"""OpenTelemetry traces: what is sent to a collector, what never is, and that they can be off."""

from __future__ import annotations

import gzip
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from coldfusion_server import tracing
from coldfusion_server.log import configure_logging
from coldfusion_server.services import screening
from coldfusion_server.services.closing import close_by_hand
from coldfusion_server.settings import Settings
from coldfusion_server.storage.local import LocalStore
from coldfusion_server.storage.traced import traced
from coldfusion_shared.errors import ConfigurationError
from tests.e2e.programs import Server
from tests.ports import free_ports
from tests.server.backends import only_sqlite
from tests.server.repository import MODEL, Repository, body_file, repository

pytestmark = only_sqlite

CALLER = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
# Of a busy machine.
PATIENCE_SECONDS = 120


class Collector:
    """Takes what OpenTelemetry's exporters send, as a collector does."""

    def __init__(self) -> None:
        self.raw: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.headers.append({**self.headers, "path": self.path})
                collector.raw.append(body)
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def requests(self) -> list[ExportTraceServiceRequest]:
        return [ExportTraceServiceRequest.FromString(one) for one in self.raw]

    def spans(self) -> list[Span]:
        return [
            span
            for request in self.requests()
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans() if span.name == name]

    def services(self) -> set[str]:
        return {
            value.value.string_value
            for request in self.requests()
            for resource in request.resource_spans
            for value in resource.resource.attributes
            if value.key == "service.name"
        }


def attributes(span: Span) -> dict[str, Any]:
    return {one.key: one.value.string_value or one.value.int_value for one in span.attributes}


@pytest.fixture(autouse=True)
def _nothing_asked_for(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in (*tracing.ENDPOINTS, *tracing.PROTOCOLS, "OTEL_TRACES_EXPORTER",
                 "OTEL_SDK_DISABLED", "OTEL_SERVICE_NAME", "OTEL_TRACES_SAMPLER"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    yield
    tracing.end_tracing()


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


@pytest.fixture
def traces(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> Collector:
    """A collector that this process sends its traces to."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setattr(tracing, "FLUSH_SECONDS", PATIENCE_SECONDS)
    tracing.configure_tracing("coldfusion-tests")
    return collector


@contextmanager
def opened(folder: Path) -> Iterator[Repository]:
    folder.mkdir()
    with repository(folder, store=traced(LocalStore(folder))) as repo:
        repo.model()
        yield repo


def test_a_request_is_a_span_of_its_callers_trace(traces: Collector, tmp_path: Path) -> None:
    with opened(tmp_path / "data") as repo:
        token = repo.token("ann", "reader")
        answer = repo.client(token).get(
            f"/v1/models/{MODEL}?limit=7&signature=topsecret",
            headers={"traceparent": f"00-{CALLER}-{PARENT}-01", "X-Other": "topsecret"},
        )
        assert answer.status_code == 200
        tracing.end_tracing()
    (span,) = traces.named("GET /v1/models/{owner}/{name}")
    assert span.trace_id.hex() == CALLER and span.parent_span_id.hex() == PARENT
    assert span.kind == Span.SPAN_KIND_SERVER
    assert attributes(span) == {
        "http.request.method": "GET",
        "http.route": "/v1/models/{owner}/{name}",
        "http.response.status_code": 200,
    }
    # Within it, what the database was asked; nothing that has no parent.
    reads = traces.named("database read")
    assert reads and {one.trace_id for one in reads} == {span.trace_id}
    assert traces.services() == {"coldfusion-tests"}
    sent = b"".join(traces.raw)
    for secret in (token.encode(), token.split("_")[1].encode(), b"topsecret", MODEL.encode()):
        assert secret not in sent
    assert all(one["path"] == "/v1/traces" for one in traces.headers)


@pytest.mark.parametrize(
    "given",
    ["", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "ff-x", "00-" + "é" * 10, "00-" + "a" * 5000,
     f"00-{CALLER}-{PARENT}-01-and-more", "\x00\x01"],
)  # fmt: skip
def test_a_trace_parent_that_is_none_begins_a_new_trace(
    traces: Collector, tmp_path: Path, given: str
) -> None:
    with opened(tmp_path / "data") as repo:
        headers = [(b"traceparent", given.encode()), (b"tracestate", b"x=" + b"y" * 600)]
        assert repo.client().get("/v1", headers=headers).status_code == 200
        tracing.end_tracing()
    (span,) = traces.named("GET /v1")
    assert span.parent_span_id == b"" and span.trace_id.hex() not in (CALLER, "0" * 32)


def test_errors_and_refusals_are_spans_without_anybodys_words(
    traces: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path / "data") as repo:
        repo.client("cf_wrong").get("/v1/models")
        repo.client().get("/no/such/secret/path")
        repo.client().get("/healthz")

        def breaks(*_: Any, **__: Any) -> None:
            raise RuntimeError("topsecret")

        monkeypatch.setattr("coldfusion_server.services.models.list_models", breaks)
        assert repo.client().get("/v1/models").status_code == 500
        tracing.end_tracing()
    (refused,) = traces.named("GET (refused)")
    assert attributes(refused)["http.response.status_code"] == 401
    assert refused.status.code == Status.STATUS_CODE_UNSET
    assert attributes(*traces.named("GET (unknown)"))["http.response.status_code"] == 404
    (fault,) = traces.named("GET /v1/models")
    assert fault.status.code == Status.STATUS_CODE_ERROR
    assert not traces.named("GET /healthz")
    assert b"secret" not in b"".join(traces.raw)


def test_the_steps_of_a_worker_are_traces(traces: Collector, tmp_path: Path) -> None:
    with opened(tmp_path / "data") as repo:
        contributions = [repo.contributor(one).contribute(body_file(n))
                         for n, one in enumerate(("ann", "bob"))]  # fmt: skip
        repo.work()
        close_by_hand(repo.ctx, MODEL, "open", repo.principal("mia", "maintainer"))
        repo.work()
        tracing.end_tracing()
    screened = traces.named("screen")
    assert {attributes(one)["coldfusion.contribution"] for one in screened} == {*contributions}
    (fuse,), (publish,) = traces.named("fuse"), traces.named("publish")
    for step in (*screened, fuse, publish):
        assert step.parent_span_id == b""
        inside = [one.name for one in traces.spans() if one.parent_span_id == step.span_id]
        assert "database write" in inside, step.name
        # Every step is a handful of spans, however long it takes.
        assert len(inside) < 30
    adopted = traces.named("store adopt")
    assert {one.parent_span_id for one in adopted} == {one.span_id for one in screened}
    # Who looks for work, and finds none, begins no traces.
    roots = {one.name for one in traces.spans() if not one.parent_span_id}
    assert not any(name.startswith(("database", "store")) for name in roots)


def test_a_step_that_breaks_says_what_kind_of_error_it_was(
    traces: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: Any) -> None:
        raise RuntimeError("topsecret")

    monkeypatch.setattr(screening, "_screened", breaks)
    with opened(tmp_path / "data") as repo:
        repo.contributor("ann").contribute(body_file(1))
        repo.work()
        tracing.end_tracing()
    (screened,) = traces.named("screen")
    assert screened.status.code == Status.STATUS_CODE_ERROR
    assert screened.status.message == "RuntimeError" and not screened.events
    assert b"topsecret" not in b"".join(traces.raw)


def test_what_is_done_every_second_of_long_work_has_no_spans(traces: Collector) -> None:
    with tracing.step("fuse"):
        with tracing.hushed(), tracing.child("database write"):
            pass
        with tracing.child("database read"):
            pass
    with tracing.child("database read"):
        pass
    tracing.end_tracing()
    assert [one.name for one in traces.spans()] == ["database read", "fuse"]


def test_lines_of_the_log_have_the_trace(
    traces: Collector, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(Settings(log_json=True))
    log = structlog.get_logger("tests")
    log.info("outside")
    with tracing.step("screen"):
        log.info("inside")
    tracing.end_tracing()
    outside, inside = capsys.readouterr().err.splitlines()
    (span,) = traces.spans()
    assert span.trace_id.hex() in inside and span.span_id.hex() in inside
    assert "trace_id" not in outside


@pytest.mark.parametrize(
    ("environment", "asked"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_the_standard_variables_decide(environment: dict[str, str], asked: bool) -> None:
    assert tracing.is_asked_for(environment) is asked


def test_a_missing_extra_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    with pytest.raises(ConfigurationError, match="which is not installed|not installed") as caught:
        tracing.configure_tracing("x")
    assert "coldfusion[server,otel]" in (caught.value.hint or "")
    assert not tracing.is_on()


@pytest.mark.parametrize(
    ("name", "value"),
    [("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), ("OTEL_TRACES_EXPORTER", "zipkin")],
)
def test_what_is_not_spoken_is_refused_at_the_start(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=value):
        tracing.configure_tracing("x")


def test_without_traces_nothing_of_them_is_loaded() -> None:
    program = (
        "import sys, coldfusion_server.tracing as t; t.configure_tracing('x'); "
        "t.step('x').__enter__(); t.child('x').__enter__(); "
        "assert t.ids() == {} and not t.is_on(); "
        "print([one for one in sys.modules if one.startswith(('opentelemetry.sdk', "
        "'opentelemetry.exporter', 'google.protobuf'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_a_real_server_sends_its_traces_as_it_ends(collector: Collector, tmp_path: Path) -> None:
    with repository(tmp_path / "data") as repo:
        repo.model()
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    server = Server(tmp_path / "data", settings=settings)
    server.start()
    assert httpx.get(f"{server.url}/v1/models", trust_env=False, timeout=120).status_code == 200
    server.end()
    assert collector.named("GET /v1/models")
    assert collector.services() == {"coldfusion"}
    assert (
        '"trace_id"' in (tmp_path / "server.log").read_text()
        or "trace_id=" in (tmp_path / "server.log").read_text()
    )


def test_a_collector_that_is_away_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    (port,) = free_ports(1)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    # Of its own accord the exporter would try for half a minute.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "600")
    made: list[Any] = []
    make = tracing._exporter

    def kept(name: str) -> Any:
        made.append(make(name))
        return made[-1]

    monkeypatch.setattr(tracing, "_exporter", kept)
    before = threading.enumerate()
    tracing.configure_tracing("x")
    with tracing.step("screen"):
        pass
    began = time.monotonic()
    tracing.end_tracing()
    assert time.monotonic() - began < tracing.FLUSH_SECONDS + 15
    # What goes on would write into the logs of other tests.
    made[0].shutdown()
    for thread in set(threading.enumerate()) - set(before):
        thread.join(PATIENCE_SECONDS)
