"""
OpenTelemetry traces, where its own variables of the environment ask for them; else nothing.

A span tells what was done and how long it took: a request by its route's template, a worker's step
by what it was about. No span holds a path, a query, a header, a token or anybody's words.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from threading import Thread
from typing import TYPE_CHECKING

from coldfusion_shared import __version__
from coldfusion_shared.errors import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, Tracer

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
# What is asked again and again by those who look after the server.
UNTRACED = frozenset({"/healthz", "/readyz", "/metrics"})
# The process ends, whether or not the last spans are taken.
FLUSH_SECONDS = 3.0
_CALLERS = ("traceparent", "tracestate")

# Whether what is done now has no spans of its own: it is too much, and too little each.
_hushed: ContextVar[bool] = ContextVar("hushed", default=False)
_provider: TracerProvider | None = None
_tracer: Tracer | None = None


class Served:
    """What a request's span is told when its answer is there."""

    def __init__(self, span: Span | None = None) -> None:
        """Tell `span`; null: nobody."""
        self._span = span

    def end(self, method: str, route: str, status: int) -> None:
        """Name the span by the route's template, and keep the answer's status."""
        if self._span is None or not self._span.is_recording():
            return
        from opentelemetry.trace import StatusCode

        self._span.update_name(f"{method} {route}")
        self._span.set_attributes(
            {
                "http.request.method": method,
                "http.route": route,
                "http.response.status_code": status,
            }
        )
        if status >= 500:
            self._span.set_status(StatusCode.ERROR)


def is_asked_for(environment: Mapping[str, str]) -> bool:
    """Return whether OpenTelemetry's own variables ask for traces."""
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip()
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true" or exporter == "none":
        return False
    return bool(exporter or any(environment.get(name) for name in ENDPOINTS))


def configure_tracing(service: str) -> None:
    """
    Begin to trace, if the environment asks for it.

    Args:
        service: name of this process, unless OTEL_SERVICE_NAME says another one.

    Raises:
        ConfigurationError: what is asked for cannot be done; the message says why.
    """
    global _provider, _tracer
    if not is_asked_for(os.environ):
        return
    try:
        # An extra: most Repositories trace nothing.
        from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        exporter = _exporter(os.environ.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp")
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"The environment asks for OpenTelemetry traces, which need the package {error.name}; "
            "it is not installed.",
            hint="Install it with: pip install 'coldfusion[server,otel]', or take the variables "
            "OTEL_... out.",
        ) from None
    named = {SERVICE_NAME: os.environ.get("OTEL_SERVICE_NAME") or service}
    resource = Resource.create({**named, SERVICE_VERSION: __version__})
    _provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    _provider.add_span_processor(BatchSpanProcessor(exporter))
    _tracer = _provider.get_tracer("coldfusion", __version__)


def is_on() -> bool:
    """Return whether anything is traced."""
    return _tracer is not None


def end_tracing() -> None:
    """Send what is left, and trace no more."""
    global _provider, _tracer
    provider, _provider, _tracer = _provider, None, None
    if provider is not None:
        # A collector that is away is tried again and again, longer than a process takes to end.
        sender = Thread(target=provider.shutdown, daemon=True)
        sender.start()
        sender.join(FLUSH_SECONDS)


@contextmanager
def request(path: str, headers: Mapping[str, str]) -> Iterator[Served]:
    """
    Trace a request as long as the block lasts, as part of its caller's trace if there is one.

    Args:
        path: what is asked for; it decides whether to trace, and goes into no span.
        headers: of the request.
    """
    if _tracer is None or path in UNTRACED:
        yield Served()
        return
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    given = {name: headers[name] for name in _CALLERS if name in headers}
    context = TraceContextTextMapPropagator().extract(given)
    with _tracer.start_as_current_span(
        "request",
        context=context,
        kind=SpanKind.SERVER,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        yield Served(span)


def step(name: str, **attributes: str | int) -> AbstractContextManager[None]:
    """Trace a worker's step as long as the block lasts: a trace, or a part of another one."""
    return nullcontext() if _tracer is None else _spanned(_tracer, name, attributes)


def child(name: str, **attributes: str | int) -> AbstractContextManager[None]:
    """Trace a part of what is traced already; who waits for work all the time begins no traces."""
    if _tracer is None or _hushed.get():
        return nullcontext()
    from opentelemetry.trace import get_current_span

    if not get_current_span().is_recording():
        return nullcontext()
    return _spanned(_tracer, name, attributes)


@contextmanager
def hushed() -> Iterator[None]:
    """Trace no parts as long as the block lasts: it is done every second of an hour's work."""
    token = _hushed.set(True)
    try:
        yield
    finally:
        _hushed.reset(token)


def ids() -> dict[str, str]:
    """Return the ids of the trace and of the span that the caller is in; empty: it is in none."""
    if _tracer is None:
        return {}
    from opentelemetry.trace import format_span_id, format_trace_id, get_current_span

    found = get_current_span().get_span_context()
    if not found.is_valid:
        return {}
    return {
        "trace_id": format_trace_id(found.trace_id),
        "span_id": format_span_id(found.span_id),
    }


@contextmanager
def _spanned(tracer: Tracer, name: str, attributes: Mapping[str, str | int]) -> Iterator[None]:
    from opentelemetry.trace import StatusCode

    named = {f"coldfusion.{key}": value for key, value in attributes.items()}
    with tracer.start_as_current_span(
        name, attributes=named, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield
        except BaseException as error:
            # Its kind alone: messages hold names of files and words of contributors.
            span.set_status(StatusCode.ERROR, type(error).__name__)
            raise


def _exporter(name: str) -> SpanExporter:
    if name == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter(out=sys.stderr)
    if name != "otlp":
        raise ConfigurationError(
            f"OTEL_TRACES_EXPORTER is {name!r}, which is not known here.",
            hint="Use otlp, console or none.",
        )
    protocol = next((os.environ[one] for one in PROTOCOLS if os.environ.get(one)), "http/protobuf")
    if protocol != "http/protobuf":
        raise ConfigurationError(
            f"Traces are sent by http/protobuf alone, not by {protocol!r}.",
            hint="Set OTEL_EXPORTER_OTLP_PROTOCOL to http/protobuf, and the endpoint to the "
            "collector's port for it, mostly 4318.",
        )
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()
