"""The library put together: one store, its journal, its workspace, its sessions. Daemon and desktop make one each."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from ff_core.contract.places import Direction, Location
from ff_core.contract.plain import Binding, ModelWay
from ff_core.ids import HandoffId, WorkspaceId
from ff_core.settings import CoreSettings, make_folders
from ff_core.store.engine import Store
from ff_core.store.journal import Journal
from ff_core.workspaces.errors import VmInUse
from ff_core.workspaces.gate import Gate, InUse
from ff_core.workspaces.ownership import Ownership
from ff_core.workspaces.processes import background
from ff_core.workspaces.service import Workspaces
from ff_core.world import World

if TYPE_CHECKING:
    from ff_core.checkpoint.service import Checkpoints
    from ff_core.claude.later import Later
    from ff_core.contract.checkpoint import Restored, RestoreRequest
    from ff_core.contract.daemon import PrepareRepository, Repository, Rest
    from ff_core.handoff.service import Ground, Handoffs
    from ff_core.sessions.backend import AgentBackend, Backends, BackendSpec
    from ff_core.sessions.service import Sessions

HANDOFFS = "handoffs"
"""Below the root: what comes and goes. The packing process works there as the user, beside the checkout that it makes."""
RESTORE = "restore"
"""In the private folder: where ``Checkpoints`` keeps a restore that is under way."""
PLACE = "cloud"
"""What this host is called where a workspace is said to have arrived."""
GIVEN_UP = "the move was given up"
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
        self.ownership = Ownership(store, Location.CLOUD)
        self.workspaces = Workspaces(
            store=store,
            journal=self.journal,
            world=world,
            checkout=settings.repository,
            run_as=settings.run_as,
            allow_plain_http=settings.allow_plain_http,
            gate=self.gate,
            ownership=self.ownership,
        )
        self._backends = backends or self._claude
        self._sessions: Sessions | None = None
        self._checkpoints: Checkpoints | None = None
        self._handoffs: Handoffs | None = None
        self._uses_claude = backends is None
        self._access: ModelWay | None = None
        self._later: Later | None = None

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
                store=self._store,
                journal=self.journal,
                world=self._world,
                backends=self._backends,
                gate=self.gate,
                ownership=self.ownership,
            )
        return self._sessions

    @property
    def handoffs(self) -> "Handoffs":
        """How the workspace of this host comes and goes; imported when it does."""
        if self._handoffs is None:
            from ff_core.handoff.service import Handoffs  # noqa: PLC0415  (see ``sessions``)

            self._handoffs = Handoffs(
                store=self._store,
                journal=self.journal,
                world=self._world,
                sessions=lambda: self.sessions,
                ownership=self.ownership,
                folder=self.settings.root / HANDOFFS,
                run_as=self.settings.run_as,
            )
        return self._handoffs

    @property
    def ground(self) -> "Ground":
        """Where the things of this host's workspace are."""
        from ff_core.handoff.service import Ground  # noqa: PLC0415  (see ``sessions``)

        return Ground(self.settings.repository, self.settings.home / ".claude")

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

        Where the workspace lives is the caller's word: a copy that came goes on from then on, one that left ends. Raises
        ``AlreadyBound`` when the host belongs to another workspace, ``WorkspaceMissing`` when it lost this one, ``StaleEpoch``
        when it was moved since, ``CheckpointRunning`` while one is put into it.
        """
        if self._checkpoints is not None and self._checkpoints.restoring:
            from ff_core.checkpoint.errors import CheckpointRunning  # noqa: PLC0415  (see ``sessions``)

            raise CheckpointRunning
        known = self.workspaces.current() is not None
        self.workspaces.bind(
            request.workspace_id, request.name, existing=request.existing, location=request.location, epoch=request.epoch
        )
        await self.workspaces.use_git(request.workspace_id, request.git, self.settings.home)
        first = self._access is None
        self._access = request.model
        if known:
            await self._place(request)
        if first and known:
            await self.sessions.resume_queues()

    async def _place(self, request: Binding) -> None:
        """Make it so that the workspace lives where it is said to."""
        row = self.workspaces.current()
        if row is None or (row.location is request.location and row.epoch == request.epoch and row.moving is None):
            return
        if request.epoch < row.epoch or (request.location is not row.location and request.epoch == row.epoch):
            from ff_core.handoff.errors import StaleEpoch  # noqa: PLC0415  (see ``sessions``)

            raise StaleEpoch(location=row.location, epoch=row.epoch)
        moved_by = request.handoff_id or HandoffId(row.id)  # nobody knows which one it was
        if request.location is not self.ownership.here:
            self.handoffs.depart(row.id, moved_by, Direction.PULL, request.epoch)
        elif request.epoch > row.epoch:
            await self.handoffs.activate(row.id, moved_by, Direction.SEND, epoch=request.epoch, place=PLACE)
        elif row.moving is not None and row.moving == request.handoff_id:
            await self.handoffs.thaw(row.id, row.moving, Direction.PULL, GIVEN_UP)

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

    def moving(self) -> HandoffId | None:
        """The handoff that has frozen the workspace."""
        workspace = self.workspaces.current()
        return None if workspace is None else workspace.moving

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
        """Get ready for an agent that is about to be asked for; not before, see :class:`Later`. May be repeated."""
        if self._uses_claude:
            self._claude_room().expect()

    def _claude_room(self) -> "Later":
        if self._later is None:
            from ff_core.claude.later import Later  # noqa: PLC0415  (see ``sessions``)

            self._later = Later()
        return self._later

    async def _claude(self, spec: "BackendSpec") -> "AgentBackend":
        from ff_core.sessions.errors import ModelKeyMissing  # noqa: PLC0415  (see ``sessions``)

        if self._access is None:
            raise ModelKeyMissing
        await self._claude_room().imported()
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
