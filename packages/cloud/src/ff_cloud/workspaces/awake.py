"""A workspace whose VM answers: at once where it runs; where it sleeps, is on its way or waits for room, after a while.

Whoever asks for a workspace that sleeps wakes it. A VM that is just being put to sleep is kept awake when it is not too late.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from ff_cloud.kit.db import Database
from ff_cloud.operations.errors import OperationActive, OperationNotCancellable
from ff_cloud.operations.repository import OperationRepository
from ff_cloud.operations.service import request_cancel
from ff_cloud.vms.access import Daemons, Target
from ff_cloud.vms.changes import VmChanges
from ff_cloud.vms.daemon_client import DaemonClient
from ff_cloud.workspaces.errors import NotAwakeYet, WorkspaceMoving
from ff_cloud.workspaces.kinds import ACTIVATE, EXPORT, SUSPEND, THAW, UPGRADE, WAKE
from ff_cloud.workspaces.orders import Orders
from ff_cloud.workspaces.service import Found, WorkspaceService
from ff_core.contract.problem import RemoteProblem
from ff_core.contract.workspace import VmStatus, WorkspaceStatus
from ff_core.ids import UserId, WorkspaceId
from ff_core.world import World

T = TypeVar("T")

TRIES_MAX = 3
"""How often a daemon may be met on its way to sleep."""
_WORDS = {
    WAKE: "The workspace was asleep and wakes up.",
    SUSPEND: "The workspace is falling asleep, and is woken.",
    UPGRADE: "The workspace's VM is being upgraded.",
    ACTIVATE: "The workspace has just arrived and begins to work here.",
}


class Awake:
    """One per API process. A request waits for a VM ``wait_s_max`` at most, and is then told to come again."""

    def __init__(
        self,
        *,
        db: Database,
        workspaces: WorkspaceService,
        daemons: Daemons,
        orders: Orders,
        changes: VmChanges,
        world: World,
        wait_s_max: float,
    ) -> None:
        self._db = db
        self._workspaces = workspaces
        self._daemons = daemons
        self._orders = orders
        self._changes = changes
        self._world = world
        self._wait_s_max = wait_s_max

    async def look(self, user_id: UserId, workspace_id: WorkspaceId, *, ready: bool) -> Found:
        """The workspace as it is, in use from now on. ``ready``: its repository must be there (``WorkspaceNotReady``).

        One that is let go on after a move that was given up is waited for. Raises ``NotFound``, ``WorkspaceNotReady`` when it
        will never answer again, ``WorkspaceElsewhere``, ``WorkspaceMoving``.
        """
        began = self._world.now()
        while True:
            try:
                async with self._db.transaction(user_id) as tx:
                    look = self._workspaces.look_ready if ready else self._workspaces.look
                    found = await look(tx, workspace_id)
                    await self._workspaces.touch(tx, found.workspace)
                return found
            except WorkspaceMoving:
                waited_s = (self._world.now() - began).total_seconds()
                if waited_s > self._wait_s_max or not await self._is_let_go(user_id, workspace_id):
                    raise
            await self._changes.of(workspace_id)

    async def waiting(self, user_id: UserId, workspace_id: WorkspaceId) -> AsyncGenerator[str | Target, None]:
        """Sentences that say what is waited for, one for each change; at last the target.

        Raises ``NotAwakeYet`` after a long while, and what :meth:`look` does.
        """
        said: str | None = None
        began = self._world.now()
        while True:
            found = await self.look(user_id, workspace_id, ready=False)
            if found.target is not None:
                yield found.target
                return
            if (self._world.now() - began).total_seconds() > self._wait_s_max:
                raise NotAwakeYet(f"The workspace's VM did not come up within {self._wait_s_max:g} s. {said or ''} Try again.")
            sentence = await self._push(user_id, found)
            if sentence != said:
                said = sentence
                yield sentence
            await self._changes.of(workspace_id)

    async def target(self, user_id: UserId, workspace_id: WorkspaceId, *, ready: bool = True) -> Target:
        """Wait for the workspace's VM. Raises like :meth:`look` and :meth:`waiting`."""
        found = await self.look(user_id, workspace_id, ready=ready)
        if found.target is not None:
            return found.target
        async for step in self.waiting(user_id, workspace_id):
            if isinstance(step, Target):
                return step
        raise NotAwakeYet

    async def call(self, user_id: UserId, workspace_id: WorkspaceId, act: Callable[[DaemonClient], Awaitable[T]]) -> T:
        """Ask the daemon of a READY workspace. Raises like :meth:`target`, and what the daemon refuses."""
        return await self.ask(user_id, await self.target(user_id, workspace_id), act)

    async def ask(self, user_id: UserId, target: Target, act: Callable[[DaemonClient], Awaitable[T]]) -> T:
        """Ask a daemon; when it fell asleep between the look at it and the question, once it is awake again. Raises likewise."""
        for _ in range(TRIES_MAX - 1):
            try:
                return await self._daemons.call(target, act)
            except RemoteProblem as error:
                if error.problem.code != "vm_resting":
                    raise
            await self._changes.of(target.workspace_id)
            target = await self.target(user_id, target.workspace_id, ready=False)
        return await self._daemons.call(target, act)

    async def _is_let_go(self, user_id: UserId, workspace_id: WorkspaceId) -> bool:
        """Whether what moves it has been given up, and is being undone."""
        async with self._db.transaction(user_id) as tx:
            active = await OperationRepository(tx).active(str(workspace_id))
        return active is not None and (active.kind == THAW or (active.kind == EXPORT and active.cancel_requested))

    async def _push(self, user_id: UserId, found: Found) -> str:
        """Do what brings the VM nearer, and say what is waited for."""
        workspace = found.workspace
        async with self._db.transaction(user_id) as tx:
            active = await OperationRepository(tx).active(str(workspace.id))
            if active is not None:
                if active.kind == SUSPEND and not active.cancel_requested:
                    with suppress(OperationNotCancellable):
                        await request_cancel(tx, str(workspace.id))
                if active.error_code is not None and active.state.get("queue_place"):
                    return active.error_message or "It waits for room."
                return _WORDS.get(active.kind) or _on_its_way(found)
            if found.vm is not None and found.vm.status is VmStatus.SUSPENDED and workspace.status is WorkspaceStatus.READY:
                await self._workspaces.require_room_to_run(tx)
                with suppress(OperationActive):
                    await self._orders.wake(tx, workspace.id, user_id)
                return _WORDS[WAKE]
        return _on_its_way(found)


def _on_its_way(found: Found) -> str:
    if found.workspace.status is WorkspaceStatus.PROVISIONING:
        return "The workspace's VM is being made."
    return "The workspace's VM is being started."
