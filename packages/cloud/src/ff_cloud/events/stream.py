"""One cursor over history and present: what was copied to PostgreSQL, then live from the daemon.

The daemon's journal is the truth and starts at any ``seq``, so the seam between the two needs no overlap: whatever
PostgreSQL has is served from there, and the daemon is asked for what follows. A broken connection to the daemon goes
back to the start of that loop with the cursor reached.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import structlog

from ff_cloud.events.repository import EventRepository
from ff_cloud.kit.db import Database
from ff_cloud.vms.access import Daemons, Target
from ff_cloud.vms.daemon_client import VmUnreachable
from ff_cloud.workspaces.repository import Workspace
from ff_cloud.workspaces.service import WorkspaceService
from ff_core.contract.events import Event, WorkspaceChanged
from ff_core.contract.problem import RemoteProblem
from ff_core.contract.workspace import WorkspaceStatus
from ff_core.ids import UserId, WorkspaceId
from ff_core.world import World

log = structlog.get_logger(__name__)

HISTORY_EVENTS_MAX = 500
"""Events read from PostgreSQL at once."""
WAIT_S = 0.5
"""Between two looks at a workspace that has no VM to listen to."""


class EventStreams:
    """Makes the streams of workspaces; each belongs to one client."""

    def __init__(self, *, db: Database, workspaces: WorkspaceService, daemons: Daemons, world: World) -> None:
        self._db = db
        self._workspaces = workspaces
        self._daemons = daemons
        self._world = world

    async def follow(self, user_id: UserId, workspace_id: WorkspaceId, after: int) -> AsyncGenerator[Event, None]:
        """Everything after ``after``, then live, with hints; ends when the workspace is deleted.

        A change of the workspace's status that no daemon can tell (it is being prepared, failed, is being deleted) comes
        as a hint.
        """
        cursor = after
        status: WorkspaceStatus | None = None
        while True:
            async with self._db.transaction(user_id) as tx:
                history = await EventRepository(tx).read(workspace_id, cursor, HISTORY_EVENTS_MAX)
                workspace = await self._workspaces.find(tx, workspace_id)
                target = (await self._workspaces.with_vm(tx, workspace)).target if workspace else None
            for event in history:
                cursor = event.seq or cursor
                yield event
            if len(history) == HISTORY_EVENTS_MAX:
                continue
            if workspace is None:
                yield self._status(workspace_id, WorkspaceStatus.ARCHIVED, None)
                return
            if workspace.status is not status:
                status = workspace.status
                yield self._status(workspace_id, status, workspace)
            if target is None:
                await self._world.sleep(WAIT_S)
                continue
            async with aclosing(self._live(target, cursor)) as live:
                async for event in live:
                    cursor = event.seq or cursor
                    yield event
            await self._world.sleep(WAIT_S)

    async def _live(self, target: Target, cursor: int) -> AsyncGenerator[Event, None]:
        """What the daemon says until the connection ends, however it ends."""
        try:
            await self._daemons.call(target, lambda daemon: daemon.health())
            async with aclosing(self._daemons.client(target.vm).events(after=cursor)) as live:
                async for event in live:
                    yield event
        except (VmUnreachable, RemoteProblem) as error:
            log.info("events.daemon_lost", workspace_id=str(target.workspace_id), reason=str(error))

    def _status(self, workspace_id: WorkspaceId, status: WorkspaceStatus, workspace: Workspace | None) -> Event:
        body = WorkspaceChanged(status=status, error=workspace.error if workspace else None)
        return Event(workspace_id=workspace_id, seq=None, at=self._world.now(), body=body)
