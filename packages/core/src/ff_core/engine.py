"""The library put together: one store, its journal, its workspace, its sessions. Daemon and desktop make one each."""

import asyncio
import contextlib
import importlib
from collections.abc import AsyncIterator
from types import ModuleType
from typing import TYPE_CHECKING

from ff_core.contract.plain import Binding, ModelWay
from ff_core.ids import WorkspaceId
from ff_core.settings import CoreSettings, make_folders
from ff_core.store.engine import Store
from ff_core.store.journal import Journal
from ff_core.workspaces.errors import VmInUse
from ff_core.workspaces.gate import Gate, InUse
from ff_core.workspaces.processes import background
from ff_core.workspaces.service import Workspaces
from ff_core.world import World

if TYPE_CHECKING:
    from ff_core.checkpoint.service import Checkpoints
    from ff_core.contract.checkpoint import Restored, RestoreRequest
    from ff_core.contract.daemon import PrepareRepository, Repository, Rest
    from ff_core.sessions.backend import AgentBackend, Backends, BackendSpec
    from ff_core.sessions.service import Sessions

RESTORE = "restore"
"""In the private folder: where ``Checkpoints`` keeps a restore that is under way."""
STOP_TIMEOUT_S = 3.5
"""For agents to end when we are told to; what has not ended then dies with the container."""


class Engine:
    """Everything of this host. Made by :meth:`open`; nothing of an agent is imported or started before :meth:`bind`."""

    def __init__(self, settings: CoreSettings, world: World, store: Store, backends: "Backends | None") -> None:
        self.settings = settings
        self._world = world
        self._store = store
        self.journal = Journal(store, world)
        self.gate = Gate(world)
        self.workspaces = Workspaces(
            store=store,
            journal=self.journal,
            world=world,
            checkout=settings.repository,
            run_as=settings.run_as,
            allow_plain_http=settings.allow_plain_http,
            gate=self.gate,
        )
        self._backends = backends or self._claude
        self._sessions: Sessions | None = None
        self._checkpoints: Checkpoints | None = None
        self._uses_claude = backends is None
        self._access: ModelWay | None = None
        self._claude_module: asyncio.Task[ModuleType] | None = None

    @classmethod
    async def open(cls, settings: CoreSettings, world: World, *, backends: "Backends | None" = None) -> "Engine":
        """Make the folders, open the store, and tell the journal which sessions were interrupted.

        ``backends`` is for tests; by default agents are Claude. Raises what ``Store.open`` does.
        """
        make_folders(settings)
        engine = cls(settings, world, Store.open(settings.database), backends)
        if (settings.private / RESTORE).exists():
            engine.checkpoints.resume()
        if engine.workspaces.current() is not None:
            await engine.sessions.recover()
        return engine

    @property
    def sessions(self) -> "Sessions":
        """The sessions of this host; imported when there may be some."""
        if self._sessions is None:
            from ff_core.sessions.service import Sessions  # noqa: PLC0415  (a VM has its first command before its first session)

            self._sessions = Sessions(
                store=self._store, journal=self.journal, world=self._world, backends=self._backends, gate=self.gate
            )
        return self._sessions

    @property
    def checkpoints(self) -> "Checkpoints":
        """The checkpoints of this host; imported when there is to be one."""
        if self._checkpoints is None:
            from ff_core.checkpoint.service import Checkpoints  # noqa: PLC0415  (see ``sessions``)

            self._checkpoints = Checkpoints(settings=self.settings, store=self._store, journal=self.journal, world=self._world)
        return self._checkpoints

    @property
    def bound(self) -> bool:
        """Whether :meth:`bind` was called in this process; the access to the model outlives no process."""
        return self._access is not None

    async def bind(self, request: Binding) -> None:
        """Give this host to a workspace and let its sessions go on. May be repeated: the new access counts from then on.

        Raises ``AlreadyBound`` when the host belongs to another workspace, ``WorkspaceMissing`` when it lost this one,
        ``CheckpointRunning`` while one is put into it.
        """
        if self._checkpoints is not None and self._checkpoints.restoring:
            from ff_core.checkpoint.errors import CheckpointRunning  # noqa: PLC0415  (see ``sessions``)

            raise CheckpointRunning
        known = self.workspaces.current() is not None
        self.workspaces.bind(request.workspace_id, request.name, existing=request.existing)
        await self.workspaces.use_git(request.workspace_id, request.git, self.settings.home)
        first = self._access is None
        self._access = request.model
        if first and known:
            await self.sessions.resume_queues()

    async def restore(self, wanted: "RestoreRequest", body: AsyncIterator[bytes]) -> "Restored":
        """Put a checkpoint into this host; see ``Checkpoints.restore``. Raises also ``RestoreNotEmpty`` when it is bound."""
        from ff_core.checkpoint.errors import RestoreNotEmpty  # noqa: PLC0415  (see ``sessions``)

        if self.bound:
            raise RestoreNotEmpty
        restored = await self.checkpoints.restore(wanted, body)
        await self.sessions.recover()
        return restored

    async def prepare(self, workspace_id: WorkspaceId, request: "PrepareRepository") -> "Repository":
        """Make the checkout; see ``Workspaces.prepare``."""
        return await self.workspaces.prepare(workspace_id, request)

    def last_seq(self) -> tuple[WorkspaceId | None, int]:
        """The workspace this host belongs to, bound or not, and ``seq`` of its newest event."""
        workspace = self.workspaces.current()
        return (None, 0) if workspace is None else (workspace.id, self.journal.last_seq(workspace.id))

    def use(self) -> InUse:
        """What goes on here now. Looks at every process of the host: microseconds for each."""
        turns = 0 if self._sessions is None else self._sessions.working()
        return self.gate.use(turns=turns, processes=background(self.settings.run_as))

    def rest(self, wanted: "Rest") -> None:
        """Take nothing new from now on; between the look and the rest nothing can have begun. May be repeated.

        Raises ``VmInUse`` when something goes on, or did in the last ``idle_s``, unless that is forced.
        """
        if self.gate.resting:
            return
        if not wanted.force:
            use = self.use()
            idle_s = (self._world.now() - use.active_at).total_seconds()
            if use.any or self.gate.requests or idle_s < wanted.idle_s:
                raise VmInUse(use=use.as_json())
        self.gate.close()

    async def end_rest(self) -> None:
        """Take work again, and go on with the prompts that wait. May be repeated."""
        self.gate.open()
        if self.bound and self._sessions is not None:
            await self._sessions.resume_queues()

    async def stop(self) -> None:
        """Stop agents and preparation, then end all followers. Reading goes on. May be repeated."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT_S):
                sessions = () if self._sessions is None else (self._sessions.close(),)
                await asyncio.gather(*sessions, self.workspaces.close())
        self.journal.close()

    async def close(self) -> None:
        """Stop, and give the store back. May be repeated."""
        await self.stop()
        self._store.close()

    def expect_agents(self) -> None:
        """Get ready for an agent that is about to be asked for; not before, see :meth:`_import_claude`. May be repeated."""
        if self._uses_claude:
            self._import_claude()

    def _import_claude(self) -> asyncio.Task[ModuleType]:
        """The room that imports the SDK, which takes half a second and half our memory: in a thread."""
        if self._claude_module is None:
            load = asyncio.to_thread(importlib.import_module, "ff_core.claude.backend")
            self._claude_module = asyncio.create_task(load)
        return self._claude_module

    async def _claude(self, spec: "BackendSpec") -> "AgentBackend":
        from ff_core.sessions.errors import ModelKeyMissing  # noqa: PLC0415  (see ``sessions``)

        if self._access is None:
            raise ModelKeyMissing
        await asyncio.shield(self._import_claude())
        from pydantic import SecretStr  # noqa: PLC0415  (see above)

        from ff_core.claude.backend import open_claude  # noqa: PLC0415
        from ff_core.claude.options import ClaudeSettings  # noqa: PLC0415
        from ff_core.contract.daemon import ModelAccess  # noqa: PLC0415

        settings = ClaudeSettings(
            executable=self.settings.claude,
            cwd=self.settings.repository,
            home=self.settings.home,
            run_as=self.settings.run_as,
        )
        key = self._access.api_key
        access = ModelAccess(base_url=self._access.base_url, api_key=None if key is None else SecretStr(key.get_secret_value()))
        return await open_claude(spec, settings=settings, access=access)
