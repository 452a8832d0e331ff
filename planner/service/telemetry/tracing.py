"""Spans of requests and of the stages of a tick, where OpenTelemetry is installed and configured.

Without the extra `otel`, or without an address in `OTEL_EXPORTER_OTLP_ENDPOINT`, there are none.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from planner.domain.errors import InputError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

LOG = logging.getLogger("poolwise.traces")
Value = str | int | float | bool
Told = dict[str, Value]
"""Attributes of a span; whoever is inside may add some."""
SpanOf = Callable[[str], AbstractContextManager[Told]]
"""Opens a span of this name."""
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


@contextmanager
def no_span(_name: str) -> Iterator[Told]:
    """A span that nobody sees."""
    yield {}


@dataclass(frozen=True, slots=True)
class Tracing:
    """Sends spans to an exporter."""

    provider: "TracerProvider"

    @contextmanager
    def span(self, name: str) -> Iterator[Told]:
        """A span inside the present one; an exception marks it as failed and goes on."""
        from opentelemetry.trace import Status, StatusCode

        told: Told = {}
        tracer = self.provider.get_tracer("poolwise")
        with tracer.start_as_current_span(name) as span:
            try:
                yield told
            finally:
                for key, value in told.items():
                    span.set_attribute(key, value)
                if told.get("error"):
                    span.set_status(Status(StatusCode.ERROR, str(told["error"])))

    @contextmanager
    def request(self, name: str, headers: Mapping[str, str]) -> Iterator[Told]:
        """A span of a request; goes on from the caller's, where `traceparent` names one."""
        from opentelemetry import context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        token = context.attach(TraceContextTextMapPropagator().extract(dict(headers)))
        try:
            with self.span(name) as told:
                yield told
        finally:
            context.detach(token)

    def stop(self) -> None:
        """Send what is left."""
        self.provider.shutdown()


def tracing_to(exporter: "SpanExporter", *, at_once: bool = False) -> Tracing:
    """Spans to an exporter; in batches by a thread of its own, or each at once."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": "poolwise"}))
    processor = SimpleSpanProcessor(exporter) if at_once else BatchSpanProcessor(exporter)
    provider.add_span_processor(processor)
    return Tracing(provider)


def make_tracing(environ: Mapping[str, str]) -> Tracing | None:
    """Spans to where OpenTelemetry's own variables say; None where they say nothing.

    Raises
    ------
    InputError
        When they do, and the extra is not installed.
    """
    if not any(environ.get(name, "").strip() for name in _ENDPOINTS):
        return None
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise InputError(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry is not installed: "
            "`pip install 'poolwise[otel]'`, or unset it"
        ) from error
    return tracing_to(OTLPSpanExporter())
