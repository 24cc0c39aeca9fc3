"""What joins the traces of one act across processes: the id of the request it began with, and its place in a trace.

Both live in context variables, so that whatever runs on behalf of a request finds them without being handed them: log lines,
calls of daemons, operations that the request orders.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import structlog

from ff_core.contract.daemon import REQUEST_ID_HEADER

TRACEPARENT = "traceparent"
"""Header and key of a place in a trace (W3C Trace Context)."""

_request_id: ContextVar[str | None] = ContextVar("ff_request_id", default=None)
_traceparent: ContextVar[str | None] = ContextVar("ff_traceparent", default=None)


def request_id() -> str | None:
    """The id of the request on whose behalf this runs; None in what the server does by itself."""
    return _request_id.get()


def traceparent() -> str | None:
    """The span within which this runs, as a ``traceparent``; None where nothing is traced."""
    return _traceparent.get()


@contextmanager
def on_behalf_of(request_id: str | None) -> Iterator[None]:
    """Let the block act for a request; log lines carry its id. None leaves what is."""
    if request_id is None:
        yield
        return
    token = _request_id.set(request_id)
    try:
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            yield
    finally:
        _request_id.reset(token)


@contextmanager
def within(traceparent: str | None) -> Iterator[None]:
    """Let the block be part of a trace; log lines carry its id. None leaves what is."""
    if traceparent is None:
        yield
        return
    token = _traceparent.set(traceparent)
    try:
        with structlog.contextvars.bound_contextvars(trace_id=traceparent.split("-")[1]):
            yield
    finally:
        _traceparent.reset(token)


def outgoing_headers() -> Mapping[str, str]:
    """What a call to another part of ours carries."""
    headers = {}
    if (id_ := request_id()) is not None:
        headers[REQUEST_ID_HEADER] = id_
    if (place := traceparent()) is not None:
        headers[TRACEPARENT] = place
    return headers
