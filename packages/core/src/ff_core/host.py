"""The library put together for a desktop: one store, its journal, and the sessions of many workspaces in worktrees.

Its sibling is :mod:`ff_core.engine`, for a VM with one workspace.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid5

from ff_core.claude.later import Later
from ff_core.claude.strays import kill_strays
from ff_core.contract.daemon import ModelAccess, Repository
from ff_core.contract.execution import ExecRequest
from ff_core.contract.local import ImportReport, ImportRequest, NewLocalWorkspace, NewProject, ProjectView
from ff_core.contract.operation import OperationView
from ff_core.contract.places import Location
from ff_core.contract.session import Interrupt, NewMessage, NewSession, SessionView
from ff_core.contract.workspace import WorkspaceView
from ff_core.errors import NotFound
from ff_core.ids import MessageId, OperationId, ProjectId, SessionId, WorkspaceId
from ff_core.projects import views
from ff_core.projects.github import GitHub
from ff_core.projects.repository import Project
from ff_core.projects.service import Projects
from ff_core.projects.workspaces import LocalWorkspaces, Surroundings
from ff_core.ratchet import repository as ratchets
from ff_core.sessions.backend import AgentBackend, Backends, BackendSpec
from ff_core.sessions.errors import MessageExists, SessionExists
from ff_core.sessions.service import Sessions
from ff_core.settings import HostSettings
from ff_core.store.engine import Store
from ff_core.store.following import frames
from ff_core.store.journal import Journal
from ff_core.store.sessions import SessionTable
from ff_core.workspaces.execution import Execution, Place
from ff_core.workspaces.gate import Gate
from ff_core.workspaces.ownership import Ownership
from ff_core.workspaces.repository import Workspace
from ff_core.world import World

if TYPE_CHECKING:
    from ff_core.handoff.service import Ground, Handoffs

HANDOFFS = "handoffs"
"""Below the data folder: what comes and goes."""
STOP_TIMEOUT_S = 25.0
"""For agents to end when we are told to."""
FIRST_SESSION = "Issue"


class Host:
    """Everything of this machine. Made by :meth:`open`. The SDK is not imported before an agent is near."""

    def __init__(self, settings: HostSettings, world: World, store: Store, backends: Backends | None) -> None:
        self.settings, self.world, self.store = settings, world, store
        self.journal = Journal(store, world)
        self.gate = Gate(world)
        self.ownership = Ownership(store, Location.DESKTOP)
        self.sessions = Sessions(
            store=store,
            journal=self.journal,
            world=world,
            backends=backends or self._claude,
            gate=self.gate,
            ownership=self.ownership,
        )
        self.projects = Projects(store, world, settings.environment)
        self.workspaces = LocalWorkspaces(
            store=store,
            journal=self.journal,
            world=world,
            root=settings.worktrees,
            environment=settings.environment,
            projects=self.projects,
            github=GitHub(settings.environment, world),
            surroundings=Surroundings(vacate=self._vacate, begin=self._begin),
        )
        self._executions: dict[WorkspaceId, Execution] = {}
        self._later = Later() if backends is None else None

    @classmethod
    async def open(cls, settings: HostSettings, world: World, *, backends: Backends | None = None) -> "Host":
        """Make the folder, open the store, put in order what a killed process left, and go on with the prompts that wait.

        ``backends`` is for tests; by default agents are the user's own Claude. Raises what ``Store.open`` does.
        """
        settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings.data.chmod(0o700)
        host = cls(settings, world, Store.open(settings.database), backends)
        await host._end_agents_of_the_dead()
        await host.sessions.recover()
        await host.workspaces.recover()
        await host.sessions.resume_queues()
        return host

    @classmethod
    async def of_user(cls, env: Mapping[str, str], *, data: Path, home: Path, world: World) -> "Host":
        """:meth:`open` for the user whose environment this is."""
        return await cls.open(HostSettings.from_env(env, data=data, home=home), world)

    @property
    def busy(self) -> int:
        """How many things would be interrupted now: sessions in the middle of something, and commands."""
        return self.sessions.working() + self.gate.commands

    @cached_property
    def handoffs(self) -> "Handoffs":
        """How workspaces come and go; imported when one does."""
        from ff_core.handoff.service import Handoffs  # noqa: PLC0415  (most days none does)

        return Handoffs(
            store=self.store,
            journal=self.journal,
            world=self.world,
            sessions=lambda: self.sessions,
            ownership=self.ownership,
            folder=self.settings.data / HANDOFFS,
            run_as=None,
        )

    def ground(self, workspace_id: WorkspaceId) -> "Ground":
        """Where the things of a workspace are. Raises what ``LocalWorkspaces.worktree`` does."""
        from ff_core.handoff.service import Ground  # noqa: PLC0415  (see ``handoffs``)

        return Ground(self.workspaces.worktree(workspace_id), self.settings.claude_config)

    async def add_project(self, new: NewProject) -> ProjectView:
        """See ``Projects.add``."""
        return self._project(await self.projects.add(new))

    def list_projects(self) -> list[ProjectView]:
        """All projects, oldest first."""
        return [self._project(project) for project in self.projects.all()]

    def remove_project(self, project_id: ProjectId) -> None:
        """See ``Projects.remove``."""
        self.projects.remove(project_id)

    async def import_from(self, request: ImportRequest) -> ImportReport:
        """See ``Importing.run``."""
        from ff_core.importing.service import Importing  # noqa: PLC0415  (most users import once, or never)

        importing = Importing(
            store=self.store,
            journal=self.journal,
            environment=self.settings.environment,
            has_transcript=self._has_transcript,
        )
        return await importing.run(request)

    async def create(self, workspace_id: WorkspaceId, wanted: NewLocalWorkspace) -> WorkspaceView:
        """See ``LocalWorkspaces.create``."""
        return self._view(await self.workspaces.create(workspace_id, wanted))

    def list_workspaces(self, *, name: str | None = None) -> list[WorkspaceView]:
        """Those that are not archived, newest first; with ``name``, those of exactly that."""
        return [self._view(row) for row in self.workspaces.all() if name in {None, row.name}]

    def workspace(self, workspace_id: WorkspaceId) -> WorkspaceView:
        """A workspace as it stands. Raises ``WorkspaceUnknown``."""
        return self._view(self.workspaces.get(workspace_id))

    async def repository(self, workspace_id: WorkspaceId) -> Repository:
        """The checkout as git sees it; see ``LocalWorkspaces.status``."""
        return await self.workspaces.status(workspace_id)

    async def remove(self, workspace_id: WorkspaceId, *, force: bool, wait_s: float) -> OperationView:
        """See ``LocalWorkspaces.remove``; waits ``wait_s`` for its end."""
        removal = await self.workspaces.remove(workspace_id, force=force)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self.workspaces.settled(workspace_id)
        return views.operation_view(removal)

    def operation(self, operation_id: OperationId) -> OperationView:
        """A removal. Raises ``NotFound`` for one of another process, or long ago."""
        removal = self.workspaces.removal(operation_id)
        if removal is None:
            raise NotFound
        return views.operation_view(removal)

    def list_sessions(self, workspace_id: WorkspaceId) -> list[SessionView]:
        """The conversations of a workspace, oldest first. Raises ``WorkspaceUnknown``."""
        self.workspaces.get(workspace_id)
        return self.sessions.list(workspace_id)

    async def open_session(self, workspace_id: WorkspaceId, new: NewSession) -> SessionView:
        """See ``Sessions.create``; raises also what ``LocalWorkspaces.worktree`` does."""
        self.ownership.require_now(workspace_id)
        self.workspaces.worktree(workspace_id)
        self.expect_agents()
        return await self.sessions.create(workspace_id, new)

    def require_alive(self, session_id: SessionId) -> None:
        """Raise unless prompts make sense there: what ``Sessions.get`` does and ``LocalWorkspaces.worktree``."""
        workspace_id = self.sessions.get(session_id).workspace_id
        self.ownership.require_now(workspace_id)
        self.workspaces.worktree(workspace_id)

    def follow(self, workspace_id: WorkspaceId, after: int) -> AsyncGenerator[bytes, None]:
        """The journal as server-sent events. Raises ``WorkspaceUnknown``, and what ``Journal.follow`` does."""
        self.workspaces.get(workspace_id)
        return frames(self.journal.follow(workspace_id, after), watching=self.gate.follower())

    def execute(self, workspace_id: WorkspaceId, request: ExecRequest) -> AsyncGenerator[bytes, None]:
        """Run a command; see ``Execution.run``. Raises what ``Ownership.require`` and ``LocalWorkspaces.worktree`` do."""
        self.ownership.require_now(workspace_id)
        worktree = self.workspaces.worktree(workspace_id)
        execution = self._executions.get(workspace_id)
        if execution is None or execution.place.checkout != worktree:
            place = Place(worktree, self.settings.home, None, self.settings.environment)
            execution = self._executions[workspace_id] = Execution(place, self.gate, lambda: True)
        return execution.run(request)

    def expect_agents(self) -> None:
        """Get ready for an agent that is about to be asked for. May be repeated."""
        if self._later is not None:
            self._later.expect()

    async def stop(self) -> None:
        """Stop agents, commands and preparations, then end all followers. Reading goes on. May be repeated."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT_S):
                commands = (execution.close() for execution in self._executions.values())
                await asyncio.gather(self.sessions.close(), self.workspaces.close(), *commands)
        self.journal.close()

    async def close(self) -> None:
        """Stop, and give the store back. May be repeated."""
        await self.stop()
        self.store.close()

    async def _end_agents_of_the_dead(self) -> None:
        """Agents outlive a process that was killed, and two of one conversation would overwrite each other."""
        with self.store.transaction() as tx:
            unsettled = [row.id for row in SessionTable(tx).unsettled()]
        await asyncio.gather(*(kill_strays(str(session_id), None) for session_id in unsettled))

    async def _vacate(self, workspace_id: WorkspaceId) -> None:
        for session in self.sessions.list(workspace_id):
            if session.queued and self.ownership.may_work(workspace_id):
                await self.sessions.interrupt(session.id, Interrupt())
        halted: list[Awaitable[None]] = [self.sessions.halt(workspace_id)]
        if workspace_id in self._executions:
            halted.append(self._executions.pop(workspace_id).close())
        await asyncio.gather(*halted)

    async def _begin(self, workspace: Workspace, prompt: str) -> None:
        self.expect_agents()
        session_id = SessionId(uuid5(workspace.id, "first session"))
        number = (workspace.github_issue_url or "").rpartition("/")[2]
        with contextlib.suppress(SessionExists, MessageExists):  # queued before a restart
            await self.sessions.create(workspace.id, NewSession(id=session_id, name=f"{FIRST_SESSION} {number}".strip()))
            await self.sessions.send(session_id, NewMessage(id=MessageId(uuid5(workspace.id, "first prompt")), text=prompt))

    def _has_transcript(self, conversation: str) -> bool:
        from ff_core.claude.transcripts import TranscriptsLinked, find  # noqa: PLC0415  (see ``import_from``)

        try:
            return find(self.settings.claude_config, conversation) is not None
        except TranscriptsLinked:
            return True  # it can't be seen, and to begin anew would lose it

    def _project(self, project: Project) -> ProjectView:
        mine = [row for row in self.workspaces.all() if row.project_id == project.id]
        return views.project_view(project, root=self.settings.worktrees, workspaces=len(mine))

    def _view(self, row: Workspace) -> WorkspaceView:
        with self.store.transaction() as tx:
            pull_request = ratchets.pull_request(tx, row.id)
        pr_url = None if pull_request is None else pull_request.url
        return views.workspace_view(row, last_seq=self.journal.last_seq(row.id), pr_url=pr_url)

    async def _claude(self, spec: BackendSpec) -> AgentBackend:
        assert self._later is not None  # noqa: S101  (otherwise there are other backends)
        cwd = self.workspaces.worktree(spec.workspace_id)
        await self._later.imported()
        from ff_core.claude.backend import open_claude  # noqa: PLC0415  (see ``Later``)
        from ff_core.claude.options import ClaudeSettings  # noqa: PLC0415

        settings = ClaudeSettings(
            executable=self.settings.claude, cwd=cwd, home=self.settings.home, run_as=None, users=self.settings.environment
        )
        return await open_claude(spec, settings=settings, access=ModelAccess(base_url=None, api_key=None))
