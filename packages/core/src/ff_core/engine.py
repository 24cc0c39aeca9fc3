"""The library put together: one store, its journal, its workspace, its sessions. Daemon and desktop make one each."""

import asyncio
import contextlib
import importlib
from collections.abc import AsyncIterator
from types import ModuleType

from ff_core.checkpoint.errors import CheckpointRunning, RestoreNotEmpty
from ff_core.checkpoint.service import Checkpoints
from ff_core.contract.checkpoint import Restored, RestoreRequest
from ff_core.contract.daemon import Bind, ModelAccess, PrepareRepository, Repository, Rest, Use
from ff_core.contract.workspace import WorkspaceStatus
from ff_core.ids import WorkspaceId
from ff_core.sessions.backend import AgentBackend, Backends, BackendSpec
from ff_core.sessions.errors import ModelKeyMissing
from ff_core.sessions.service import Sessions
from ff_core.settings import CoreSettings, make_folders
from ff_core.store.engine import Store
from ff_core.store.journal import Journal
from ff_core.workspaces.errors import VmInUse
from ff_core.workspaces.gate import Gate
from ff_core.workspaces.processes import background
from ff_core.workspaces.service import Workspaces
from ff_core.world import World

STOP_TIMEOUT_S = 3.5
"""For agents to end when we are told to; what has not ended then dies with the container."""


class Engine:
    """Everything of this host. Made by :meth:`open`; nothing of an agent is imported or started before :meth:`bind`."""

    def __init__(self, settings: CoreSettings, world: World, store: Store, backends: Backends | None) -> None:
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
        self.sessions = Sessions(
            store=store, journal=self.journal, world=world, backends=backends or self._claude, gate=self.gate
        )
        self.checkpoints = Checkpoints(settings=settings, store=store, journal=self.journal, world=world)
        self._uses_claude = backends is None
        self._access: ModelAccess | None = None
        self._claude_module: asyncio.Task[ModuleType] | None = None

    @classmethod
    async def open(cls, settings: CoreSettings, world: World, *, backends: Backends | None = None) -> "Engine":
        """Make the folders, open the store, and tell the journal which sessions were interrupted.

        ``backends`` is for tests; by default agents are Claude. Raises what ``Store.open`` does.
        """
        make_folders(settings)
        engine = cls(settings, world, Store.open(settings.database), backends)
        engine.checkpoints.resume()
        await engine.sessions.recover()
        return engine

    @property
    def bound(self) -> bool:
        """Whether :meth:`bind` was called in this process; the access to the model outlives no process."""
        return self._access is not None

    async def bind(self, request: Bind) -> None:
        """Give this host to a workspace and let its sessions go on. May be repeated: the new access counts from then on.

        Raises ``AlreadyBound`` when the host belongs to another workspace, ``WorkspaceMissing`` when it lost this one,
        ``CheckpointRunning`` while one is put into it.
        """
        if self.checkpoints.restoring:
            raise CheckpointRunning
        self.workspaces.bind(request.workspace_id, request.name, existing=request.existing)
        await self.workspaces.use_git(request.workspace_id, request.git, self.settings.home)
        first = self._access is None
        self._access = request.model
        if first:
            current = self.workspaces.current()
            if current is not None and current.status is WorkspaceStatus.READY:
                self._expect_agents()
            await self.sessions.resume_queues()

    async def restore(self, wanted: RestoreRequest, body: AsyncIterator[bytes]) -> Restored:
        """Put a checkpoint into this host; see ``Checkpoints.restore``. Raises also ``RestoreNotEmpty`` when it is bound."""
        if self.bound:
            raise RestoreNotEmpty
        restored = await self.checkpoints.restore(wanted, body)
        await self.sessions.recover()
        return restored

    async def prepare(self, workspace_id: WorkspaceId, request: PrepareRepository) -> Repository:
        """Make the checkout; see ``Workspaces.prepare``. Then get ready for the agent; not before, both want the processor."""
        made = await self.workspaces.prepare(workspace_id, request)
        self._expect_agents()
        return made

    def last_seq(self) -> tuple[WorkspaceId | None, int]:
        """The workspace this host belongs to, bound or not, and ``seq`` of its newest event."""
        workspace = self.workspaces.current()
        return (None, 0) if workspace is None else (workspace.id, self.journal.last_seq(workspace.id))

    def use(self) -> Use:
        """What goes on here now. Looks at every process of the host: microseconds for each."""
        turns, processes = self.sessions.working(), background(self.settings.run_as)
        gate = self.gate
        if turns or gate.commands or processes or gate.followers:
            gate.touch()
        return Use(turns=turns, commands=gate.commands, processes=processes, followers=gate.followers, active_at=gate.active_at)

    def rest(self, wanted: Rest) -> None:
        """Take nothing new from now on; between the look and the rest nothing can have begun. May be repeated.

        Raises ``VmInUse`` when something goes on, or did in the last ``idle_s``, unless that is forced.
        """
        if self.gate.resting:
            return
        if not wanted.force:
            use = self.use()
            idle_s = (self._world.now() - use.active_at).total_seconds()
            if use.any or self.gate.requests or idle_s < wanted.idle_s:
                raise VmInUse(use=use.model_dump(mode="json"))
        self.gate.close()

    async def end_rest(self) -> None:
        """Take work again, and go on with the prompts that wait. May be repeated."""
        self.gate.open()
        if self.bound:
            await self.sessions.resume_queues()

    async def stop(self) -> None:
        """Stop agents and preparation, then end all followers. Reading goes on. May be repeated."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await asyncio.gather(self.sessions.close(), self.workspaces.close())
        self.journal.close()

    async def close(self) -> None:
        """Stop, and give the store back. May be repeated."""
        await self.stop()
        self._store.close()

    def _expect_agents(self) -> None:
        if self._uses_claude:
            self._import_claude()

    def _import_claude(self) -> asyncio.Task[ModuleType]:
        """The room that imports the SDK, which takes a second and half our memory: in a thread, once a workspace is ready."""
        if self._claude_module is None:
            load = asyncio.to_thread(importlib.import_module, "ff_core.claude.backend")
            self._claude_module = asyncio.create_task(load)
        return self._claude_module

    async def _claude(self, spec: BackendSpec) -> AgentBackend:
        if self._access is None:
            raise ModelKeyMissing
        await asyncio.shield(self._import_claude())
        from ff_core.claude.backend import open_claude  # noqa: PLC0415  (see above)
        from ff_core.claude.options import ClaudeSettings  # noqa: PLC0415

        settings = ClaudeSettings(
            executable=self.settings.claude,
            cwd=self.settings.repository,
            home=self.settings.home,
            run_as=self.settings.run_as,
        )
        return await open_claude(spec, settings=settings, access=self._access)
