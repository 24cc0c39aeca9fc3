"""The workspaces of this desktop: made in worktrees, set up, looked at, removed, and put in order after a restart."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ff_core.contract.base import Channel, ErrorView
from ff_core.contract.daemon import Repository
from ff_core.contract.events import ProcessOutput, WorkspaceChanged
from ff_core.contract.local import NewLocalWorkspace
from ff_core.contract.places import Location
from ff_core.contract.plain import WorkspaceStatus as Status
from ff_core.errors import FFError, InvalidInput
from ff_core.git.remote import check_branch
from ff_core.ids import OperationId, WorkspaceId
from ff_core.projects import configuration, naming
from ff_core.projects.errors import (
    PreparationInterrupted,
    SetupInterrupted,
    WorkLost,
    WorkspaceUnknown,
    WorktreeMissing,
)
from ff_core.projects.github import GitHub
from ff_core.projects.prompt import first_prompt
from ff_core.projects.repository import Project
from ff_core.projects.service import Projects
from ff_core.projects.setup import TIMEOUT_S, WORKSPACE_PATH, set_up
from ff_core.projects.worktrees import Wanted, Worktrees
from ff_core.store.engine import Store
from ff_core.store.journal import Journal
from ff_core.workspaces import repository as rows
from ff_core.workspaces.errors import WorkspaceMoving, WorkspaceNotReady
from ff_core.workspaces.output import Output
from ff_core.workspaces.preparation import look
from ff_core.workspaces.repository import Workspace
from ff_core.workspaces.strays import kill_marked
from ff_core.world import World

SHOW_EVERY_S = 1.0
REMOVALS_KEPT_MAX = 100
"""How many removals that ended are remembered, for those who ask how they went."""
_PREPARING = frozenset({Status.NEW, Status.PROVISIONING})

_LOG = logging.getLogger(__name__)


@dataclass
class Removal:
    """The removal of a workspace, under way or over."""

    id: OperationId
    workspace_id: WorkspaceId
    begun_at: datetime
    ended_at: datetime | None = None
    error: ErrorView | None = None
    """Why the workspace is still there."""


@dataclass(frozen=True)
class Surroundings:
    """What this room is told of those that come after it in the flow.

    ``vacate`` ends all that runs in a workspace for good, its queued prompts too. ``begin`` queues the first prompt in a first
    session; repeated for the same workspace it does nothing.
    """

    vacate: Callable[[WorkspaceId], Awaitable[None]]
    begin: Callable[[Workspace, str], Awaitable[None]]


class LocalWorkspaces:
    """Rules over their rows, and their worktrees below ``root``; ``environment`` is the user's, as in a terminal of his own.

    Call :meth:`recover` once before anything else, :meth:`close` at the end.
    """

    def __init__(
        self,
        *,
        store: Store,
        journal: Journal,
        world: World,
        root: Path,
        environment: Mapping[str, str],
        projects: Projects,
        github: GitHub,
        surroundings: Surroundings,
        setup_timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._store, self._journal, self._world = store, journal, world
        self._root, self._environment = root, environment
        self._projects, self._github, self._surroundings = projects, github, surroundings
        self._setup_timeout_s = setup_timeout_s
        self._worktrees = Worktrees(environment)
        self._preparing: dict[WorkspaceId, asyncio.Task[None]] = {}
        self._removing: dict[WorkspaceId, asyncio.Task[None]] = {}
        self._removals: dict[OperationId, Removal] = {}

    def all(self) -> list[Workspace]:
        """Those that are not archived, newest first."""
        return [row for row in rows.all_of(self._store) if row.status is not Status.ARCHIVED]

    def get(self, workspace_id: WorkspaceId) -> Workspace:
        """A workspace, archived or not. Raises ``WorkspaceUnknown``."""
        row = rows.find(self._store, workspace_id)
        if row is None:
            raise WorkspaceUnknown
        return row

    def worktree(self, workspace_id: WorkspaceId) -> Path:
        """Where the checkout of a workspace is. Raises ``WorkspaceUnknown``, ``WorkspaceNotReady``, ``WorktreeMissing``."""
        row = self.get(workspace_id)
        if row.status is not Status.READY or row.worktree is None:
            raise WorkspaceNotReady(f"The workspace {row.name} is {row.status}, not READY; see: ff status {row.id}")
        if not row.worktree.is_dir():
            raise WorktreeMissing(
                f"The folder {row.worktree} of this workspace is gone. Remove the workspace with `ff rm`; its branch is still in"
                " the project."
            )
        return row.worktree

    async def status(self, workspace_id: WorkspaceId) -> Repository:
        """The checkout as it stands. Raises what :meth:`worktree` does, or what git says."""
        return await look(self.worktree(workspace_id), None)

    async def create(self, workspace_id: WorkspaceId, wanted: NewLocalWorkspace) -> Workspace:
        """Begin to make a workspace; its events tell how that goes. Repeated with the same id it finds the first one.

        Raises ``InvalidInput`` for a branch that can't be one; what ``Projects.resolve`` does.
        """
        known = rows.find(self._store, workspace_id)
        if known is not None:
            return known
        if wanted.base is not None and wanted.branch is not None:
            raise InvalidInput("Say either which branch to start from (base), or which one to go on with (branch).")
        check_branch(wanted.base or wanted.branch or "any")
        project = await self._projects.resolve(wanted.project, wanted.cwd)
        with self._store.transaction() as tx:
            if rows.read(tx, workspace_id) is None:
                rows.insert(
                    tx,
                    workspace_id,
                    wanted.name,
                    self._world.now(),
                    source=rows.Source(project.repo_url, None),
                    location=Location.DESKTOP,
                    epoch=0,
                    project_id=project.id,
                    github_issue_url=wanted.github_issue_url,
                )
        row = self.get(workspace_id)
        if row.status is Status.NEW and workspace_id not in self._preparing:
            self._move(workspace_id, Status.PROVISIONING)
            row = self.get(workspace_id)
            self._start(self._preparing, workspace_id, self._prepare(row, project, wanted))
        return row

    async def remove(self, workspace_id: WorkspaceId, *, force: bool = False) -> Removal:
        """Begin to remove a workspace with its worktree; its branch stays in the project. A repeated call finds the first one.

        One that lives in the cloud loses what was kept of it here. Raises ``WorkspaceUnknown`` also when it was removed before;
        unless forced, ``WorkLost`` when there is work that is nowhere else; ``WorkspaceMoving``.
        """
        row = self.get(workspace_id)
        if row.status is Status.ARCHIVED:
            raise WorkspaceUnknown
        under_way = next((r for r in self._removals.values() if r.workspace_id == workspace_id and r.ended_at is None), None)
        if under_way is not None:
            return under_way
        if row.moving is not None:
            raise WorkspaceMoving(handoff_id=str(row.moving))
        if not force:
            await self._require_saved(row)
        removal = Removal(OperationId(self._world.new_id()), workspace_id, self._world.now())
        self._remember(removal)
        self._start(self._removing, workspace_id, self._remove(removal, force=force))
        return removal

    def removal(self, operation_id: OperationId) -> Removal | None:
        """A removal that is under way, or ended not long ago."""
        return self._removals.get(operation_id)

    async def settled(self, workspace_id: WorkspaceId) -> None:
        """Return when nothing is made or removed there any more."""
        tasks = [group[workspace_id] for group in (self._preparing, self._removing) if workspace_id in group]
        if tasks:
            await asyncio.wait(tasks)

    async def recover(self) -> None:
        """Put in order what a killed process left: nothing is half made, and what was to be removed goes on to be."""
        for row in rows.all_of(self._store):
            if row.status is Status.ARCHIVING:
                removal = Removal(OperationId(self._world.new_id()), row.id, self._world.now())
                self._remember(removal)
                self._start(self._removing, row.id, self._remove(removal, force=True))
            elif row.status in _PREPARING and row.location is Location.DESKTOP:
                await self._settle(row)

    async def close(self) -> None:
        """Stop what is being made or removed; :meth:`recover` settles it."""
        tasks = [*self._preparing.values(), *self._removing.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _settle(self, row: Workspace) -> None:
        place = self._place(row)
        if place is not None:
            await kill_marked(WORKSPACE_PATH, str(place), None)  # git and the set-up script outlived us
        if row.worktree is not None and row.worktree.is_dir():
            await self._finish(row, None, SetupInterrupted())
            return
        with contextlib.suppress(FFError):
            await self._clear(row)
        self._fail(row, PreparationInterrupted())

    async def _prepare(self, row: Workspace, project: Project, wanted: NewLocalWorkspace) -> None:
        issue = asyncio.create_task(self._first_prompt(row))
        try:
            place = naming.worktree(self._root, project.slug, row.id)
            words = Wanted(
                name=row.name,
                prefix=await self._prefix(project) if wanted.branch is None else "",
                fallback=row.id.hex[-6:],
                base=wanted.base,
                branch=wanted.branch,
            )
            branch = await self._worktrees.make(project, place, words, lambda text: self._say(row.id, "worktree", f"{text}\n"))
            with self._store.transaction() as tx:
                rows.remember_worktree(tx, row.id, place, branch, self._world.now())
            warning = None if wanted.no_setup else await self._set_up(row.id, place)
            await self._finish(row, await issue, warning)
        except Exception as error:  # noqa: BLE001  (it must be known that it failed)
            if not isinstance(error, FFError):
                _LOG.exception("workspace %s could not be made", row.id)
            self._fail(self.get(row.id), error if isinstance(error, FFError) else FFError())
        finally:
            issue.cancel()
            await asyncio.wait([issue])

    async def _prefix(self, project: Project) -> str:
        login = await self._github.login()
        if login is not None:
            return naming.slug(login)
        return naming.slug(await self._worktrees.user_name(project) or "") or "ff"

    async def _first_prompt(self, row: Workspace) -> str | None:
        url = row.github_issue_url
        return None if url is None else first_prompt(url, await self._github.issue(url))

    async def _set_up(self, workspace_id: WorkspaceId, place: Path) -> FFError | None:
        """Run the set-up script, if there is one; what went wrong with that."""
        output = Output(lambda text: self._say(workspace_id, "setup", text), self._world.now)
        showing = asyncio.create_task(self._show(output))
        try:
            command = (await asyncio.to_thread(configuration.read, place)).setup
            if command is not None:
                await set_up(command, place, environment=self._environment, line=output.line, timeout_s=self._setup_timeout_s)
        except FFError as error:
            return error
        finally:
            showing.cancel()
            output.flush()
        return None

    async def _show(self, output: Output) -> None:
        """Hand on what was written before a silence: somebody may be watching."""
        while True:
            await self._world.sleep(SHOW_EVERY_S)
            output.flush()

    async def _finish(self, row: Workspace, prompt: str | None, warning: FFError | None) -> None:
        """READY. The first prompt is queued before, so that a restart in between asks for it once and not never."""
        prompt = prompt or await self._first_prompt(row)
        if prompt is not None:
            try:
                await self._surroundings.begin(row, prompt)
            except FFError as error:
                warning = warning or error
        self._move(row.id, Status.READY, None if warning is None else _view(warning))

    async def _require_saved(self, row: Workspace) -> None:
        if row.worktree is None or not await asyncio.to_thread(row.worktree.is_dir):
            return
        lost = (await self._worktrees.unsaved(row.worktree)).words()
        if lost:
            raise WorkLost(
                f"{row.name} has work that is nowhere else: {lost} in {row.worktree}. Commit it, or pass --force to lose it."
            )

    async def _remove(self, removal: Removal, *, force: bool) -> None:
        """All of it, after it was decided. What can't be removed leaves the workspace as it was."""
        workspace_id = removal.workspace_id
        preparing = self._preparing.get(workspace_id)
        if preparing is not None:
            preparing.cancel()
            await asyncio.wait([preparing])
        row = self.get(workspace_id)
        if row.status in _PREPARING:
            self._fail(row, PreparationInterrupted())
        before = self.get(workspace_id).status
        try:
            if before is not Status.ARCHIVING:
                self._move(workspace_id, Status.ARCHIVING)
            await self._surroundings.vacate(workspace_id)
            if not force:
                await self._require_saved(row)  # agents worked until now
            await self._clear(row)
            self._move(workspace_id, Status.ARCHIVED)
        except Exception as error:  # noqa: BLE001  (it must be known that it is still there)
            if not isinstance(error, FFError):
                _LOG.exception("workspace %s could not be removed", workspace_id)
            removal.error = _view(error if isinstance(error, FFError) else FFError())
            self._move(workspace_id, Status.FAILED if before is Status.FAILED else Status.READY, removal.error)
        removal.ended_at = self._world.now()

    async def _clear(self, row: Workspace) -> None:
        """Remove the worktree of a workspace, also one that was not whole yet."""
        place = self._place(row)
        if place is not None:
            await self._worktrees.remove(self._project(row), place)

    def _project(self, row: Workspace) -> Project | None:
        return None if row.project_id is None else self._projects.get(row.project_id)

    def _place(self, row: Workspace) -> Path | None:
        """Where its worktree is, or was about to be."""
        project = self._project(row)
        return row.worktree or (None if project is None else naming.worktree(self._root, project.slug, row.id))

    def _start(
        self, group: dict[WorkspaceId, asyncio.Task[None]], workspace_id: WorkspaceId, work: Coroutine[None, None, None]
    ) -> None:
        task = asyncio.create_task(work, name=f"workspace-{workspace_id}")
        group[workspace_id] = task
        task.add_done_callback(lambda _: group.pop(workspace_id, None))

    def _remember(self, removal: Removal) -> None:
        self._removals[removal.id] = removal
        ended = [each.id for each in self._removals.values() if each.ended_at is not None]
        for old in ended[: max(0, len(ended) - REMOVALS_KEPT_MAX)]:
            del self._removals[old]

    def _fail(self, row: Workspace, error: FFError) -> None:
        if row.status is Status.NEW:
            self._move(row.id, Status.PROVISIONING)
        self._move(row.id, Status.FAILED, _view(error))

    def _move(self, workspace_id: WorkspaceId, to: Status, error: ErrorView | None = None) -> None:
        with self._store.transaction() as tx:
            rows.move(tx, workspace_id, to, error, self._world.now())
            self._journal.append(tx, workspace_id, WorkspaceChanged(status=to, error=error))

    def _say(self, workspace_id: WorkspaceId, process: str, text: str) -> None:
        with self._store.transaction() as tx:
            self._journal.append(tx, workspace_id, ProcessOutput(process=process, channel=Channel.STDERR, text=text))


def _view(error: FFError) -> ErrorView:
    return ErrorView(code=error.code, message=error.detail)
