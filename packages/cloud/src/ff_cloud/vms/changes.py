"""Waiting for a VM to change: one connection per process that listens, any number of waiters."""

import asyncio
from collections import defaultdict

from ff_cloud.kit.db import Database
from ff_cloud.kit.notify import Listener, Missed
from ff_cloud.vms.tables import CHANNEL
from ff_core.contract.workspace import VmStatus
from ff_core.ids import WorkspaceId
from ff_core.world import World

AFTER_CLAIM_S = 0.3
POLL_S = 0.25
"""A waiter looks so often by itself: nobody tells it of a new place in the queue, or while there is no connection to hear by."""


class VmChanges:
    """Run :meth:`run` once per process; without it waiters poll."""

    def __init__(self, db: Database, world: World) -> None:
        self._db = db
        self._world = world
        self._waiting: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._any: set[asyncio.Event] = set()
        self._claimed = False

    async def run(self) -> None:
        """Listen until cancelled."""
        async with Listener(self._db.direct_url, [CHANNEL], world=self._world) as listener:
            async for news in listener:
                if isinstance(news, Missed):
                    self._wake(None)
                else:
                    status, _, key = news.payload.partition(" ")
                    self._claimed = self._claimed or status == VmStatus.CLAIMED
                    self._wake(key)

    async def of(self, workspace_id: WorkspaceId, *, timeout_s: float = POLL_S) -> None:
        """Return when this workspace's VM may have changed, or after ``timeout_s``."""
        key = str(workspace_id)
        news = asyncio.Event()
        self._waiting[key].add(news)
        try:
            await self._wait(news, timeout_s)
        finally:
            self._waiting[key].discard(news)
            if not self._waiting[key]:
                del self._waiting[key]

    async def any(self, *, timeout_s: float) -> None:
        """Return when any VM may have changed, or after ``timeout_s``.

        A claim is told a moment later: whoever claimed a VM is about to use it, and goes first.
        """
        news = asyncio.Event()
        self._any.add(news)
        try:
            await self._wait(news, timeout_s)
        finally:
            self._any.discard(news)
        if self._claimed:
            self._claimed = False
            await self._world.sleep(AFTER_CLAIM_S)

    async def _wait(self, news: asyncio.Event, timeout_s: float) -> None:
        waiting = {asyncio.ensure_future(news.wait()), asyncio.ensure_future(self._world.sleep(timeout_s))}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()

    def _wake(self, key: str | None) -> None:
        for event in self._any:
            event.set()
        named = list(self._waiting.values()) if key is None else [self._waiting[key]] if key in self._waiting else []
        for events in named:
            for event in events:
                event.set()
