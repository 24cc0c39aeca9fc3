"""Following a workspace's events over connections that break: one cursor, no gap, no duplicate."""

from collections.abc import Callable, Iterator

import httpx2
from pydantic import ValidationError

from ff_core.contract.events import Event
from ff_core.contract.problem import RemoteProblem
from ff_core.errors import FFError
from ff_core.ids import WorkspaceId
from ff_desktop.connection import Connection, worth_retrying
from ff_desktop.errors import BadReply, ServerSilent, ServerUnreachable

FRAME_BYTES_MAX = 8 * 1024 * 1024
IDLE_S_MAX = 60.0
"""After so long without a byte the connection is taken for dead and made again, silently."""
BACKOFF_S_FIRST = 0.2
BACKOFF_S_MAX = 10.0
FAILURES_MAX = 35
"""Attempts in a row that did not connect, about five minutes of them; then we give up."""
GAPS_MAX = 5
"""Times in a row that the server skips the same event."""

Lost = Callable[[str], None]
"""Told why the connection was lost, once per outage."""


class _Gap(FFError):
    """The server skipped an event."""


def follow(  # noqa: C901  (one loop with one cursor; in pieces it would be harder to see that none is lost)
    connection: Connection, workspace: WorkspaceId, after: int, *, lost: Lost, sleep: Callable[[float], None]
) -> Iterator[Event]:
    """Events with ``seq`` greater than ``after`` in order, each once, and live hints among them; ends never by itself.

    The first connection must succeed; later ones are made again from the last event seen. Raises ``RemoteProblem``
    when the server refuses, ``ServerUnreachable`` when it stays away, ``BadReply`` when it talks nonsense.
    """
    path = f"/v1/workspaces/{workspace}/events"
    cursor, failures, gaps, connected = after, 0, 0, False
    while True:
        opened = False
        try:
            headers = _headers(cursor)
            with connection.stream("GET", path, params={"after": cursor}, headers=headers, read_timeout_s=IDLE_S_MAX) as stream:
                opened, connected, failures = True, True, 0
                for event in _events(stream):
                    if event.seq is not None:
                        if event.seq <= cursor:
                            continue
                        _expect(event.seq, cursor + 1)
                        cursor, gaps = event.seq, 0
                    yield event
            reason = "the server ended the stream"
        except _Gap as error:
            gaps += 1
            if gaps > GAPS_MAX:
                raise BadReply(f"The server does not send event {cursor + 1}; it is lost there.") from error
            reason = error.detail
        except FFError as error:
            if opened and isinstance(error, ServerSilent):
                continue
            if not connected or not _passing(error):
                raise
            reason = error.detail
        failures += 1
        if failures > FAILURES_MAX:
            raise ServerUnreachable(f"The events of {connection.server.url} stay away ({reason}).")
        if failures == 1:
            lost(reason)
        sleep(min(BACKOFF_S_MAX, BACKOFF_S_FIRST * 2 ** (failures - 1)))


def _headers(cursor: int) -> dict[str, str]:
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
    return {**headers, "Last-Event-ID": str(cursor)} if cursor else headers


def _events(response: httpx2.Response) -> Iterator[Event]:
    for frame in httpx2.EventSource(response, max_event_size=FRAME_BYTES_MAX):
        if frame.data:
            yield _event(frame.data)


def _expect(seq: int, wanted: int) -> None:
    if seq != wanted:
        raise _Gap


def _event(data: str) -> Event:
    try:
        return Event.model_validate_json(data)
    except ValidationError as error:
        raise BadReply("The server sent an event that this version of ff can't read; update ff.") from error


def _passing(error: FFError) -> bool:
    """Whether the stream may come back: the network, a restarting server; not a refusal."""
    if isinstance(error, RemoteProblem):
        return worth_retrying(error) or error.problem.status in {429, 500}
    return isinstance(error, ServerUnreachable)
