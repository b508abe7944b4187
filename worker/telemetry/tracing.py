"""Traces: a span a poll, with its stages as children, links to its messages' traces, and escalations as events.

Spans hold names, counts and positions, never a text or an id of a chat. OpenTelemetry is imported only where traces are asked
for; without them everything here does nothing.
"""

import os
import platform
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from worker import __version__
from worker.contracts.outbound import EscalationReason, ModelInfo
from worker.core.failures import ConfigurationError
from worker.core.records import Headers, Record

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from opentelemetry.trace import Span, SpanContext

_TRACEPARENT, _TRACESTATE = "traceparent", "tracestate"
_MAX_LINKS = 64
_FLUSH_S = 2.0


class PollTrace:
    """What is traced of one poll: here, nothing."""

    def stage(self, name: str) -> AbstractContextManager[None]:  # noqa: ARG002
        """Trace a stage; one that raises ends the poll's span too."""
        return nullcontext()

    def headers_for(self, record: Record) -> Headers:  # noqa: ARG002
        """Return what a record made of this one carries on, so that a trace goes on downstream.

        The record's own trace if it came with one, else the poll's.
        """
        return ()

    def escalated(self, record: Record, reason: EscalationReason) -> None:
        """Note an escalation."""

    def end(self, *, rejected: int) -> None:
        """End the poll's span. A poll that is dropped is never ended, and never seen."""


class Tracer:
    """Begins the traces of polls: here, of none."""

    def begin_poll(self, records: Sequence[Record]) -> PollTrace:  # noqa: ARG002
        """Begin a poll's trace, linked to those that its records came with."""
        return NO_TRACE

    def close(self) -> None:
        """Send what is left, for a moment at most."""


NO_TRACE, NO_TRACER = PollTrace(), Tracer()


def traces_wanted(endpoint: str | None, environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether traces are asked for: by our endpoint or by OpenTelemetry's own variables."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true" or environment.get("OTEL_TRACES_EXPORTER") == "none":
        return False
    named = (endpoint, environment.get("OTEL_EXPORTER_OTLP_ENDPOINT"), environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"))
    return any(named)


def open_tracer(endpoint: str | None, *, group_id: str, model: ModelInfo) -> Tracer:
    """Return a tracer that sends to an OTLP/HTTP endpoint, or to where OpenTelemetry's own variables say.

    Raises `ConfigurationError` where OpenTelemetry is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigurationError(
            "traces are asked for, but OpenTelemetry is not installed: pip install 'rugo-worker[otel]', or unset "
            "RUGO_OTEL_ENDPOINT and OTEL_EXPORTER_OTLP_ENDPOINT."
        ) from error
    exporter = OTLPSpanExporter(endpoint=_traces_url(endpoint)) if endpoint else OTLPSpanExporter()
    return OtelTracer(BatchSpanProcessor(exporter), group_id=group_id, model=model)


def _traces_url(endpoint: str) -> str:
    return endpoint if endpoint.rstrip("/").endswith("/v1/traces") else f"{endpoint.rstrip('/')}/v1/traces"


class OtelTracer(Tracer):
    """Traces with a provider of its own, so that several workers can live in one process."""

    def __init__(self, processor: "SpanProcessor", *, group_id: str, model: ModelInfo) -> None:
        self._provider = _provider(model)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("rugo-worker", __version__)
        self._group_id = group_id

    def begin_poll(self, records: Sequence[Record]) -> "_OtelPollTrace":
        from opentelemetry.context import Context
        from opentelemetry.trace import Link, SpanKind

        contexts = {context.span_id: context for record in records if (context := _context_of(record.headers)) is not None}
        links = [Link(context) for context in list(contexts.values())[:_MAX_LINKS]]
        topic = records[0].topic if records else ""
        span = self._tracer.start_span(
            f"process {topic}",
            context=Context(),
            kind=SpanKind.CONSUMER,
            links=links,
            attributes={
                "messaging.system": "kafka",
                "messaging.operation.type": "process",
                "messaging.destination.name": topic,
                "messaging.consumer.group.name": self._group_id,
                "messaging.batch.message_count": len(records),
                "rugo.links_left_out": len(contexts) - len(links),
            },
        )
        return _OtelPollTrace(self._tracer, span)

    def close(self) -> None:
        # An endpoint that does not answer must not hold up the stop.
        flush = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        flush.start()
        flush.join(_FLUSH_S)


class _OtelPollTrace(PollTrace):
    def __init__(self, tracer: Any, span: "Span") -> None:
        from opentelemetry.trace import set_span_in_context

        self._tracer = tracer
        self._span = span
        self._context: Context = set_span_in_context(span)
        self._headers = _headers_of(self._context)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        span = self._tracer.start_span(name, context=self._context)
        try:
            yield
        except BaseException as error:
            for each in (span, self._span):
                _end_failed(each, error)
            raise
        span.end()

    def headers_for(self, record: Record) -> Headers:
        if _context_of(record.headers) is None:
            return self._headers
        return tuple((name, value) for name, value in record.headers if name in (_TRACEPARENT, _TRACESTATE))

    def escalated(self, record: Record, reason: EscalationReason) -> None:
        partition, offset = str(record.partition), record.offset
        self._span.add_event(
            "escalation",
            {"rugo.reason": reason, "messaging.destination.partition.id": partition, "messaging.kafka.offset": offset},
        )

    def end(self, *, rejected: int) -> None:
        self._span.set_attribute("rugo.rejected_records", rejected)
        self._span.end()


def _end_failed(span: "Span", error: BaseException) -> None:
    from opentelemetry.trace import Status, StatusCode

    # The type alone: what an error says may quote a record.
    span.set_attribute("error.type", type(error).__name__)
    span.set_status(Status(StatusCode.ERROR))
    span.end()


def _context_of(headers: Headers) -> "SpanContext | None":
    """Return the trace context that a record came with, if it is a valid one."""
    named = {name: value for name, value in headers if name in (_TRACEPARENT, _TRACESTATE) and value is not None}
    if _TRACEPARENT not in named:
        return None
    from opentelemetry.context import Context
    from opentelemetry.trace import get_current_span
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {name: value.decode("ascii", "replace") for name, value in named.items()}
    context = get_current_span(TraceContextTextMapPropagator().extract(carrier, Context())).get_span_context()
    return context if context.is_valid else None


def _headers_of(context: "Context") -> Headers:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier, context)
    return tuple((name, value.encode()) for name, value in carrier.items())


def _provider(model: ModelInfo) -> "TracerProvider":
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider

    ours = {
        "service.name": "rugo-worker",
        "service.version": __version__,
        "service.instance.id": f"{platform.node()}-{os.getpid()}",
        "rugo.model.name": model.name,
        "rugo.model.version": model.version,
        "rugo.model.digest": model.digest,
    }
    resource = Resource.create(ours).merge(OTELResourceDetector().detect())  # what OTEL_ variables say wins
    return TracerProvider(resource=resource, shutdown_on_exit=False)
