"""The events of a workspace as server-sent events."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from typing import Annotated, cast

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import StreamingResponse

from ff_cloud.errors import TooManyRequests
from ff_cloud.events.repository import EventRepository
from ff_cloud.events.stream import EventStreams
from ff_cloud.kit.caller import Caller, caller
from ff_cloud.kit.http import Db
from ff_cloud.kit.metrics import EventMetrics
from ff_cloud.kit.streaming import Stream
from ff_cloud.workspaces.endpoints import Workspaces
from ff_core.contract.account import Scope
from ff_core.contract.events import Event, sse_frame
from ff_core.contract.page import PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX, Page
from ff_core.contract.usage import TurnView
from ff_core.ids import UserId, WorkspaceId

router = APIRouter(prefix="/v1/workspaces", tags=["events"])

HEARTBEAT_S = 15.0
STREAMS_PER_USER_MAX = 50
"""In one process; the next one gets 429."""
MEDIA_TYPE = "text/event-stream"


class Streams:
    """Counts the open streams of this process."""

    def __init__(self, source: EventStreams, metrics: EventMetrics) -> None:
        self.source = source
        self._metrics = metrics
        self._open: Counter[UserId] = Counter()

    def require_room(self, user_id: UserId) -> None:
        """Raise ``TooManyRequests`` when the user has as many as he may."""
        if self._open[user_id] >= STREAMS_PER_USER_MAX:
            raise TooManyRequests(f"You follow {STREAMS_PER_USER_MAX} event streams already; close one first.", retry_after_s=5)

    @contextmanager
    def counted(self, user_id: UserId) -> Iterator[None]:
        """Count one more, for as long as the block runs."""
        self._open[user_id] += 1
        self._metrics.stream_opened()
        try:
            yield
        finally:
            self._open[user_id] -= 1
            self._metrics.stream_closed()


async def _streams(request: Request) -> Streams:
    return cast(Streams, request.app.state.streams)


@router.get("/{workspace_id}/events", response_class=StreamingResponse, responses={200: {"content": {MEDIA_TYPE: {}}}})
async def follow(
    workspace_id: WorkspaceId,
    who: Annotated[Caller, Depends(caller(Scope.WORKSPACES_READ))],
    db: Db,
    workspaces: Workspaces,
    streams: Annotated[Streams, Depends(_streams)],
    after: Annotated[int, Query(ge=0, le=2**53)] = 0,
    last_event_id: Annotated[int | None, Header(ge=0, le=2**53)] = None,
) -> Stream:
    """Everything after ``after`` (or ``Last-Event-ID``, which wins), then live; ends when the workspace is deleted.

    Events with an ``id`` are stored, and their ids count up without a gap; those without are hints for a live display.
    """
    async with db.transaction(who.user_id) as tx:
        await workspaces.get(tx, workspace_id)
    cursor = after if last_event_id is None else last_event_id
    streams.require_room(who.user_id)
    return Stream(_frames(streams, who.user_id, workspace_id, cursor), MEDIA_TYPE)


@router.get("/{workspace_id}/turns")
async def turns(
    workspace_id: WorkspaceId,
    who: Annotated[Caller, Depends(caller(Scope.WORKSPACES_READ))],
    db: Db,
    workspaces: Workspaces,
    before: Annotated[int | None, Query(ge=1, le=2**53, description="Only turns that ended before this event.")] = None,
    limit: Annotated[int, Query(ge=1, le=PAGE_ITEMS_MAX)] = PAGE_ITEMS_DEFAULT,
) -> Page[TurnView]:
    """What each turn took, tokens and cost, newest first; ``next_cursor`` is for ``before``. ``/v1/me/usage`` has the sums."""
    async with db.transaction(who.user_id) as tx:
        await workspaces.get(tx, workspace_id)
        found = await EventRepository(tx).turns(workspace_id, before=before, turns_max=limit + 1)
    more = len(found) > limit
    return Page(items=tuple(found[:limit]), next_cursor=str(found[limit - 1].seq) if more else None)


async def _frames(streams: Streams, user_id: UserId, workspace_id: WorkspaceId, cursor: int) -> AsyncGenerator[bytes, None]:
    with streams.counted(user_id):
        async with (
            aclosing(streams.source.follow(user_id, workspace_id, cursor)) as events,
            aclosing(_with_heartbeat(events)) as frames,
        ):
            async for frame in frames:
                yield frame


async def _with_heartbeat(events: AsyncGenerator[Event, None]) -> AsyncGenerator[bytes, None]:
    """Comment lines in silence, so that proxies keep the connection and a dead client is noticed."""
    yield b": hello\n\n"
    pending: asyncio.Task[Event] | None = None
    try:
        while True:
            pending = pending or asyncio.ensure_future(anext(events))
            done, _ = await asyncio.wait({pending}, timeout=HEARTBEAT_S)
            if not done:
                yield b": still here\n\n"
                continue
            try:
                event = pending.result()
            except StopAsyncIteration:
                return
            pending = None
            yield sse_frame(event)
    finally:
        if pending is not None:
            pending.cancel()
            await asyncio.wait({pending})
