"""Finding the daemon that owns a session, and what is asked of it. No transaction is open while a daemon works."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from ff_cloud.kit.db import Database, SystemTx, Tx
from ff_cloud.sessions.repository import SessionRepository, SystemSessionRepository
from ff_cloud.vms.access import Daemons
from ff_cloud.vms.daemon_client import DaemonClient, VmUnreachable
from ff_cloud.workspaces.awake import Awake
from ff_cloud.workspaces.errors import WorkspaceElsewhere, WorkspaceMoving
from ff_cloud.workspaces.service import WorkspaceService
from ff_core.contract.session import MessageView, NewMessage, NewSession, SessionView
from ff_core.errors import NotFound
from ff_core.ids import SessionId, UserId, WorkspaceId
from ff_core.world import World

T = TypeVar("T")


async def learn(tx: SystemTx, user_id: UserId, workspace_id: WorkspaceId, found: Sequence[SessionView]) -> None:
    """Note the sessions that a workspace has which has just come; may be repeated."""
    for view in found:
        await SystemSessionRepository(tx).record(user_id, view.model_copy(update={"workspace_id": workspace_id}))


class SessionService:
    """See the module. ``require_model_key`` raises when the user's agents would get nothing but refusals."""

    def __init__(
        self,
        *,
        db: Database,
        workspaces: WorkspaceService,
        awake: Awake,
        daemons: Daemons,
        require_model_key: Callable[[Tx], Awaitable[None]],
        world: World,
    ) -> None:
        self._db = db
        self._workspaces = workspaces
        self._awake = awake
        self._daemons = daemons
        self._require_model_key = require_model_key
        self._world = world

    async def create(self, user_id: UserId, workspace_id: WorkspaceId, wanted: NewSession) -> SessionView:
        """Open a conversation; with an id it may be repeated."""
        named = wanted if wanted.id else wanted.model_copy(update={"id": SessionId(self._world.new_id())})
        view = await self._awake.call(user_id, workspace_id, lambda daemon: daemon.create_session(named))
        async with self._db.transaction(user_id) as tx:
            await SessionRepository(tx).record(view)
        return view

    async def of_workspace(self, user_id: UserId, workspace_id: WorkspaceId) -> list[SessionView]:
        """All of a workspace: live from its daemon, or as last heard when that can't answer."""
        async with self._db.transaction(user_id) as tx:
            await self._workspaces.get(tx, workspace_id)
            workspace = await self._workspaces.find(tx, workspace_id)
            target = (await self._workspaces.with_vm(tx, workspace)).target if workspace else None
            known = await SessionRepository(tx).of_workspace(workspace_id)
        if target is None:
            return known
        try:
            return await self._daemons.call(target, lambda daemon: daemon.sessions())
        except VmUnreachable:
            return known

    async def get(self, user_id: UserId, session_id: SessionId) -> SessionView:
        """One as it stands now; as last heard while its workspace is on the move, or elsewhere. Raises like :meth:`ask`."""
        try:
            return await self.ask(user_id, session_id, lambda daemon: daemon.session(session_id))
        except (WorkspaceElsewhere, WorkspaceMoving):
            async with self._db.transaction(user_id) as tx:
                sessions = SessionRepository(tx)
                workspace_id = await sessions.workspace_of(session_id)
                known = [] if workspace_id is None else await sessions.of_workspace(workspace_id)
            for view in known:
                if view.id == session_id:
                    return view
            raise

    async def send(self, user_id: UserId, session_id: SessionId, message: NewMessage) -> MessageView:
        """Give a prompt. Raises ``ModelKeyMissing`` before anybody is asked, and like :meth:`ask`."""
        async with self._db.transaction(user_id) as tx:
            if await SessionRepository(tx).workspace_of(session_id) is not None:
                await self._require_model_key(tx)
        return await self.ask(user_id, session_id, lambda daemon: daemon.send(session_id, message))

    async def ask(self, user_id: UserId, session_id: SessionId, act: Callable[[DaemonClient], Awaitable[T]]) -> T:
        """Ask the daemon of a session. Raises ``NotFound``, ``WorkspaceNotReady``, and what the daemon refuses."""
        async with self._db.transaction(user_id) as tx:
            workspace_id = await SessionRepository(tx).workspace_of(session_id)
            if workspace_id is None:
                message = "There is no such session, or it is not yours."
                raise NotFound(message)
        return await self._awake.call(user_id, workspace_id, act)
