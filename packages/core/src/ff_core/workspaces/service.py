"""The one workspace of this host: whose it is, and its checkout.

How a checkout is made (:mod:`ff_core.workspaces.preparation`) and what events look like is imported when it is needed: a VM
is given to a workspace, and runs its first command, before that.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from ff_core.contract.places import Location
from ff_core.contract.plain import GitWay, WorkspaceStatus
from ff_core.errors import FFError
from ff_core.git import gateway
from ff_core.ids import WorkspaceId
from ff_core.process import RunAs
from ff_core.store.engine import Store, Tx
from ff_core.store.journal import Journal
from ff_core.workspaces import repository as rows
from ff_core.workspaces.errors import AlreadyBound, RepositoryDiffers, SeedTooLate, WorkspaceMissing, WorkspaceNotReady
from ff_core.workspaces.gate import Gate
from ff_core.workspaces.ownership import Ownership
from ff_core.world import World

if TYPE_CHECKING:
    from ff_core.contract.base import ErrorView
    from ff_core.contract.daemon import PrepareRepository, Repository, Seeded
    from ff_core.contract.events import EventBody
    from ff_core.workspaces.preparation import Order, Seedbed

SETTLED_ON_A_SOURCE = frozenset({WorkspaceStatus.READY, WorkspaceStatus.PROVISIONING})


class Workspaces:
    """Rules over the row and the checkout at ``checkout``, which belongs to ``run_as``.

    Of a workspace that does not live here (yet) nothing is written into the journal: its own comes with it.
    """

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
        ownership: Ownership | None = None,
    ) -> None:
        self._gate = gate or Gate(world)
        self._ownership = ownership or Ownership(store, Location.CLOUD)
        self._store = store
        self._journal = journal
        self._world = world
        self._checkout = checkout
        self._run_as = run_as
        self._allow_plain_http = allow_plain_http
        self._preparing: asyncio.Task[Repository] | None = None
        self._git: GitWay | None = None
        self._seedbed: Seedbed | None = None

    def current(self) -> rows.Workspace | None:
        """The workspace this host belongs to; None before the first :meth:`bind`."""
        return rows.only(self._store)

    def bind(
        self,
        workspace_id: WorkspaceId,
        name: str,
        *,
        existing: bool = False,
        location: Location = Location.CLOUD,
        epoch: int = 1,
    ) -> None:
        """Give this host to a workspace. May be repeated for the same one; ``AlreadyBound`` for another.

        ``existing``: it has been here before, so a host that knows nothing of it raises ``WorkspaceMissing``. ``location`` and
        ``epoch`` are those of one that was not.
        """
        current = self.current()
        if current is None and existing:
            raise WorkspaceMissing
        if current is None:
            with self._store.transaction() as tx:
                rows.insert(tx, workspace_id, name, self._world.now(), location=location, epoch=epoch)
        elif current.id != workspace_id:
            raise AlreadyBound

    async def use_git(self, workspace_id: WorkspaceId, access: GitWay | None, home: Path) -> None:
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

    async def status(self, workspace_id: WorkspaceId) -> "Repository":
        """The checkout as it stands. Raises ``WorkspaceNotReady`` before there is one, or what git says."""
        self.require_ready(workspace_id)
        from ff_core.workspaces.preparation import look  # noqa: PLC0415  (see the module's words)

        return await look(self._checkout, self._run_as)

    async def take_seed(self, stream: AsyncIterator[bytes]) -> "Seeded":
        """Have a seed ready for :meth:`prepare`. Raises ``SeedTooLate``, and what ``ff_core.git.seed.unpack`` does."""
        if self.ready():
            raise SeedTooLate
        return await self._seeds().take(stream)

    async def prepare(self, workspace_id: WorkspaceId, request: "PrepareRepository") -> "Repository":
        """Make the checkout. Goes on when the caller goes away; a repeated call joins it, or finds it done.

        Raises ``InvalidInput`` for an address or branch that can't be one, and ``RepositoryDiffers`` when another source
        was asked for before, unless that failed; both change nothing. Other errors of ``ff_core.git`` make the workspace
        FAILED, and then a further call tries again.
        """
        from ff_core.workspaces.preparation import order_of  # noqa: PLC0415  (see the module's words)

        # Checked before anything is stored: an address may hold a credential, which must not reach the disk.
        order = order_of(request, allow_plain_http=self._allow_plain_http)
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

    async def _prepare(self, workspace_id: WorkspaceId, order: "Order") -> "Repository":
        from ff_core.contract.base import ErrorView  # noqa: PLC0415  (see the module's words)
        from ff_core.workspaces.output import Output  # noqa: PLC0415
        from ff_core.workspaces.preparation import make  # noqa: PLC0415

        output = Output(lambda text: self._say(workspace_id, text), self._world.now)
        try:
            with self._gate.command(begun=True):
                await make(
                    order,
                    self._checkout,
                    seedbed=self._seeds(),
                    access=self._git,
                    run_as=self._run_as,
                    progress=output.line,
                )
        except Exception as exc:
            error = exc if isinstance(exc, FFError) else FFError()
            output.flush()
            self._move(workspace_id, WorkspaceStatus.FAILED, error=ErrorView(code=error.code, message=error.detail))
            raise
        output.flush()
        self._move(workspace_id, WorkspaceStatus.READY)
        return await self.status(workspace_id)

    def _seeds(self) -> "Seedbed":
        if self._seedbed is None:
            from ff_core.workspaces.preparation import Seedbed  # noqa: PLC0415  (see the module's words)

            self._seedbed = Seedbed(self._checkout, self._run_as)
        return self._seedbed

    def _say(self, workspace_id: WorkspaceId, text: str, *, process: str = "clone") -> None:
        from ff_core.contract.base import Channel  # noqa: PLC0415  (see the module's words)
        from ff_core.contract.events import ProcessOutput  # noqa: PLC0415

        with self._store.transaction() as tx:
            self._append(tx, workspace_id, ProcessOutput(process=process, channel=Channel.STDERR, text=text))

    def _append(self, tx: Tx, workspace_id: WorkspaceId, body: "EventBody") -> None:
        row = rows.read(tx, workspace_id)
        if row is not None and row.location is self._ownership.here:
            self._journal.append(tx, workspace_id, body)

    def _move(
        self,
        workspace_id: WorkspaceId,
        to: WorkspaceStatus,
        *,
        source: rows.Source | None = None,
        error: "ErrorView | None" = None,
    ) -> None:
        from ff_core.contract.events import WorkspaceChanged  # noqa: PLC0415  (see the module's words)

        now = self._world.now()
        with self._store.transaction() as tx:
            rows.move(tx, workspace_id, to, error, now)
            if source is not None:
                rows.remember_source(tx, workspace_id, source, now)
            self._append(tx, workspace_id, WorkspaceChanged(status=to, error=error))


def _heard(task: "asyncio.Task[Repository]") -> None:
    """Its failure is in the journal, also when nobody waits for it any more."""
    if not task.cancelled():
        task.exception()
