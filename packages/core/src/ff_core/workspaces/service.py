"""The one workspace of this host: whose it is, and its checkout."""

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path

from ff_core.contract.base import Channel, ErrorView
from ff_core.contract.daemon import GitAccess, PrepareRepository, Repository
from ff_core.contract.events import ProcessOutput, WorkspaceChanged
from ff_core.contract.workspace import WorkspaceStatus
from ff_core.errors import FFError
from ff_core.git import gateway
from ff_core.git.clone import clone, create_empty
from ff_core.git.remote import Credential, RepoUrl, check_branch, parse_repo_url
from ff_core.git.run import Git
from ff_core.git.status import status
from ff_core.ids import WorkspaceId
from ff_core.process import RunAs
from ff_core.store.engine import Store
from ff_core.store.journal import Journal
from ff_core.workspaces import repository as rows
from ff_core.workspaces.errors import AlreadyBound, RepositoryDiffers, WorkspaceMissing, WorkspaceNotReady
from ff_core.workspaces.gate import Gate
from ff_core.workspaces.output import Output
from ff_core.world import World

SETTLED_ON_A_SOURCE = frozenset({WorkspaceStatus.READY, WorkspaceStatus.PROVISIONING})


@dataclass(frozen=True)
class _Order:
    url: RepoUrl | None
    branch: str | None
    credential: Credential | None
    timeout_s: float


class Workspaces:
    """Rules over the row and the checkout at ``checkout``, which belongs to ``run_as``."""

    def __init__(
        self,
        *,
        store: Store,
        journal: Journal,
        world: World,
        checkout: Path,
        run_as: RunAs | None,
        allow_plain_http: bool,
        gate: Gate | None = None,
    ) -> None:
        self._gate = gate or Gate(world)
        self._store = store
        self._journal = journal
        self._world = world
        self._checkout = checkout
        self._run_as = run_as
        self._allow_plain_http = allow_plain_http
        self._preparing: asyncio.Task[Repository] | None = None
        self._git: GitAccess | None = None

    def current(self) -> rows.Workspace | None:
        """The workspace this host belongs to; None before the first :meth:`bind`."""
        return rows.only(self._store)

    def bind(self, workspace_id: WorkspaceId, name: str, *, existing: bool = False) -> None:
        """Give this host to a workspace. May be repeated for the same one; ``AlreadyBound`` for another.

        ``existing``: it has been here before, so a host that knows nothing of it raises ``WorkspaceMissing``.
        """
        current = self.current()
        if current is None and existing:
            raise WorkspaceMissing
        if current is None:
            with self._store.transaction() as tx:
                rows.insert(tx, workspace_id, name, self._world.now())
        elif current.id != workspace_id:
            raise AlreadyBound

    async def use_git(self, workspace_id: WorkspaceId, access: GitAccess | None, home: Path) -> None:
        """Have the git of the user with this HOME, and our clones, go through the gateway. May be repeated with a new token.

        A user who broke his own git configuration is told so in the journal; all else goes on.
        """
        self._git = access
        if access is None and not (home / gateway.PLACE).exists():
            return
        try:
            await gateway.install(access, home=home, run_as=self._run_as)
        except FFError as error:
            self._say(workspace_id, f"{error.detail}\n", process="git")

    def ready(self) -> bool:
        """Whether the checkout is there."""
        current = self.current()
        return current is not None and current.status is WorkspaceStatus.READY

    def require_ready(self, workspace_id: WorkspaceId) -> None:
        """Raise ``WorkspaceNotReady`` unless the checkout is there."""
        if rows.get(self._store, workspace_id).status is not WorkspaceStatus.READY:
            raise WorkspaceNotReady

    async def status(self, workspace_id: WorkspaceId) -> Repository:
        """The checkout as it stands. Raises ``WorkspaceNotReady`` before there is one, or what git says."""
        self.require_ready(workspace_id)
        seen = await status(Git(self._checkout, run_as=self._run_as))
        return Repository(
            branch=seen.branch,
            head=seen.head,
            staged=seen.staged,
            unstaged=seen.unstaged,
            untracked=seen.untracked,
            conflicted=seen.conflicted,
        )

    async def prepare(self, workspace_id: WorkspaceId, request: PrepareRepository) -> Repository:
        """Make the checkout. Goes on when the caller goes away; a repeated call joins it, or finds it done.

        Raises ``InvalidInput`` for an address or branch that can't be one, and ``RepositoryDiffers`` when another source
        was asked for before, unless that failed; both change nothing. Other errors of ``ff_core.git`` make the workspace
        FAILED, and then a further call tries again.
        """
        # Checked before anything is stored: an address may hold a credential, which must not reach the disk.
        order = self._order(request)
        source = rows.Source(None if order.url is None else str(order.url), order.branch)
        current = rows.get(self._store, workspace_id)
        if current.status in SETTLED_ON_A_SOURCE and current.source != source:
            raise RepositoryDiffers
        if current.status is WorkspaceStatus.READY:
            return await self.status(workspace_id)
        if self._preparing is None or self._preparing.done():
            # A daemon that was killed on the way left it PROVISIONING; then there is nothing to say again.
            if current.status is not WorkspaceStatus.PROVISIONING:
                self._move(workspace_id, WorkspaceStatus.PROVISIONING, source=source)
            self._preparing = asyncio.create_task(self._prepare(workspace_id, order))
            self._preparing.add_done_callback(_heard)
        return await asyncio.shield(self._preparing)

    async def close(self) -> None:
        """Stop a preparation; the next one after a restart begins anew."""
        if self._preparing is not None:
            self._preparing.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):  # its caller was told
                await self._preparing

    def _order(self, request: PrepareRepository) -> "_Order":
        return _Order(
            url=None if request.url is None else parse_repo_url(request.url, allow_plain_http=self._allow_plain_http),
            branch=None if request.branch is None else check_branch(request.branch),
            credential=None if request.token is None else Credential(request.token.get_secret_value()),
            timeout_s=request.timeout_s,
        )

    async def _prepare(self, workspace_id: WorkspaceId, order: "_Order") -> Repository:
        output = Output(lambda text: self._say(workspace_id, text), self._world.now)
        try:
            with self._gate.command(begun=True):
                await self._fetch(order, output)
        except Exception as exc:
            error = exc if isinstance(exc, FFError) else FFError()
            output.flush()
            self._move(workspace_id, WorkspaceStatus.FAILED, error=ErrorView(code=error.code, message=error.detail))
            raise
        output.flush()
        self._move(workspace_id, WorkspaceStatus.READY)
        return await self.status(workspace_id)

    async def _fetch(self, order: "_Order", output: Output) -> None:
        if order.url is None:
            await create_empty(self._checkout, branch=order.branch or "main", run_as=self._run_as)
            return
        await clone(
            order.url,
            self._checkout,
            branch=order.branch,
            credential=order.credential,
            progress=output.line,
            timeout_s=order.timeout_s,
            run_as=self._run_as,
            detour=gateway.detour(self._git, order.url),
        )

    def _say(self, workspace_id: WorkspaceId, text: str, *, process: str = "clone") -> None:
        with self._store.transaction() as tx:
            self._journal.append(tx, workspace_id, ProcessOutput(process=process, channel=Channel.STDERR, text=text))

    def _move(
        self,
        workspace_id: WorkspaceId,
        to: WorkspaceStatus,
        *,
        source: rows.Source | None = None,
        error: ErrorView | None = None,
    ) -> None:
        now = self._world.now()
        with self._store.transaction() as tx:
            rows.move(tx, workspace_id, to, error, now)
            if source is not None:
                rows.remember_source(tx, workspace_id, source, now)
            self._journal.append(tx, workspace_id, WorkspaceChanged(status=to, error=error))


def _heard(task: asyncio.Task[Repository]) -> None:
    """Its failure is in the journal, also when nobody waits for it any more."""
    if not task.cancelled():
        task.exception()
