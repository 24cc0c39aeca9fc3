"""Journals as far as they were copied, for other rooms."""

from collections.abc import AsyncGenerator

from ff_cloud.events.repository import SystemEventRepository
from ff_cloud.kit.db import Database, SystemTx
from ff_core.contract.events import Event
from ff_core.ids import WorkspaceId

PAGE_EVENTS = 50


class History:
    """The copy of everybody's journals."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def after(self, workspace_id: WorkspaceId, seq: int) -> AsyncGenerator[Event, None]:
        """The events after ``seq``, oldest first, without a gap: page by page, each in a transaction of its own."""
        while True:
            async with self._db.system_transaction() as tx:
                page = await SystemEventRepository(tx).read(workspace_id, seq, PAGE_EVENTS)
            for event in page:
                yield event
            if not page:
                return
            seq = page[-1].seq or seq


async def forget(tx: SystemTx, workspace_id: WorkspaceId) -> None:
    """Forget what was copied of a workspace's journal, which is then copied anew; may be repeated."""
    await SystemEventRepository(tx).forget(workspace_id)
