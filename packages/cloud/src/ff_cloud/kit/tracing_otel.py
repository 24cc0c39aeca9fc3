"""The one place that knows OpenTelemetry; see :mod:`ff_cloud.kit.tracing`. Nothing global is set."""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind as OtelKind
from opentelemetry.trace import Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ff_cloud.kit import correlation
from ff_cloud.kit.tracing import Attributes, Span, SpanKind
from ff_core.errors import FFError

SERVICE = "ff-cloud"
EXPORT_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_MS = 5000
_KINDS = {"server": OtelKind.SERVER, "client": OtelKind.CLIENT, "internal": OtelKind.INTERNAL}
_W3C = TraceContextTextMapPropagator()


class _OtelSpan:
    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def rename(self, name: str) -> None:
        """See ``Span``."""
        self._span.update_name(name)

    def note(self, attributes: Attributes) -> None:
        """See ``Span``."""
        self._span.set_attributes(attributes)

    def failed(self, reason: str) -> None:
        """See ``Span``."""
        self._span.set_status(Status(StatusCode.ERROR, reason))


class OtelTracing:
    """Sends spans to ``url`` in batches, from a thread. Spans are lost, not waited for, when nobody takes them."""

    on = True

    def __init__(self, url: str, *, version: str) -> None:
        resource = Resource.create({"service.name": SERVICE, "service.version": version})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(url, timeout=EXPORT_TIMEOUT_S)))
        self._tracer = self._provider.get_tracer(SERVICE, version)

    @contextmanager
    def span(
        self, name: str, *, kind: SpanKind = "internal", parent: str | None = None, attributes: Attributes | None = None
    ) -> Iterator[Span]:
        """See ``Tracing``."""
        place = parent or correlation.traceparent()
        # Only what correlation says counts, so that there is one notion of "the span around this".
        context = _W3C.extract({correlation.TRACEPARENT: place}, Context()) if place else Context()
        span = self._tracer.start_span(name, context, _KINDS[kind], attributes)
        carrier: dict[str, str] = {}
        _W3C.inject(carrier, trace.set_span_in_context(span, Context()))
        told = _OtelSpan(span)
        try:
            with correlation.within(carrier.get(correlation.TRACEPARENT)):
                yield told
        except BaseException as error:
            # Sentences may quote what users wrote; the code or the class says enough.
            told.failed(error.code if isinstance(error, FFError) else type(error).__name__)
            raise
        finally:
            span.end()

    def close(self) -> None:
        """Send what waits, and stop. Blocks for a few seconds at most."""
        self._provider.force_flush(CLOSE_TIMEOUT_MS)
        self._provider.shutdown()
