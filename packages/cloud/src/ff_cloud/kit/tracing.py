"""Traces, where ``FF_OTLP_ENDPOINT`` (or the standard ``OTEL_EXPORTER_OTLP_ENDPOINT``) is set; else nothing, at no cost.

The library is imported only then: :mod:`ff_cloud.kit.tracing_otel`, the extra ``otel``.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import Literal, Protocol

from ff_core.errors import FFError

SpanKind = Literal["server", "client", "internal"]
Attributes = Mapping[str, str | int | float | bool]

STANDARD_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
STANDARD_TRACES_ENDPOINT = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"


class TracingUnavailable(FFError):
    """Traces are asked for, but OpenTelemetry is not installed; install `ff-cloud[otel]` or unset FF_OTLP_ENDPOINT."""

    code = "tracing_unavailable"


class Span(Protocol):
    """One act within a trace."""

    def rename(self, name: str) -> None:
        """Give it the name that was not known when it began."""
        ...

    def note(self, attributes: Attributes) -> None:
        """Add facts; no secrets."""
        ...

    def failed(self, reason: str) -> None:
        """Mark it as failed. What leaves the block as an exception does that by itself."""
        ...


class Tracing(Protocol):
    """Makes spans."""

    @property
    def on(self) -> bool:
        """Whether anybody listens."""
        ...

    def span(
        self, name: str, *, kind: SpanKind = "internal", parent: str | None = None, attributes: Attributes | None = None
    ) -> AbstractContextManager[Span]:
        """A span for the length of a block, which must begin and end in one task.

        ``parent`` is a ``traceparent`` from elsewhere; without one, it is the span around the block. What runs in the block
        finds it in :func:`ff_cloud.kit.correlation.traceparent`.
        """
        ...


class _NoSpan:
    def rename(self, name: str) -> None:
        """See :class:`Span`."""

    def note(self, attributes: Attributes) -> None:
        """See :class:`Span`."""

    def failed(self, reason: str) -> None:
        """See :class:`Span`."""


class NoTracing:
    """Traces nothing."""

    on = False
    _nothing: AbstractContextManager[Span] = nullcontext(_NoSpan())

    def span(
        self, name: str, *, kind: SpanKind = "internal", parent: str | None = None, attributes: Attributes | None = None
    ) -> AbstractContextManager[Span]:
        """See :class:`Tracing`."""
        del name, kind, parent, attributes
        return self._nothing


UNTRACED: Tracing = NoTracing()


def traces_url(endpoint: str | None, environment: Mapping[str, str]) -> str | None:
    """Where spans go: ``endpoint`` (a base address, as the standard has it) or what the standard variables say. Pure."""
    base = endpoint or environment.get(STANDARD_ENDPOINT)
    exact = environment.get(STANDARD_TRACES_ENDPOINT)
    if endpoint is None and exact:
        return exact
    return f"{base.rstrip('/')}/v1/traces" if base else None


@asynccontextmanager
async def open_tracing(endpoint: str | None, *, version: str) -> AsyncIterator[Tracing]:
    """Tracing for the length of the block; what waits at its end is sent then. Raises :class:`TracingUnavailable`.

    Sampling, headers and time limits are those of the standard ``OTEL_…`` variables.
    """
    url = traces_url(endpoint, os.environ)
    if url is None:
        yield UNTRACED
        return
    try:
        from ff_cloud.kit.tracing_otel import OtelTracing  # noqa: PLC0415  (only where it is wanted: 20 MB and 60 ms)
    except ImportError as error:
        raise TracingUnavailable from error
    tracing = OtelTracing(url, version=version)
    try:
        yield tracing
    finally:
        await asyncio.to_thread(tracing.close)
