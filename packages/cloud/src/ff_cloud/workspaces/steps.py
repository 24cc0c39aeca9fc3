"""The operations on a workspace, step by step: provision, revive, terminate.

Steps act on Docker and on the daemon and leave rows through ``Effects``; each may run more than once (see
:class:`ff_cloud.operations.model.Step`). What follows the end of an operation is in :mod:`ff_cloud.workspaces.settle`.
"""

from uuid import UUID

from ff_cloud.kit.crypto import Sealer
from ff_cloud.kit.db import Database, SystemTx
from ff_cloud.operations.errors import Fatal
from ff_cloud.operations.model import Effects, Kind, Operation, Step
from ff_cloud.users import plans
from ff_cloud.vms.access import Daemons, Target
from ff_cloud.vms.engine.base import Engine
from ff_cloud.vms.errors import DockerUnreachable
from ff_cloud.vms.repository import SystemVmRepository, Vm, started, terminating
from ff_cloud.vms.specs import Specs
from ff_cloud.workspaces.repository import SystemWorkspaceRepository, Workspace
from ff_cloud.workspaces.service import PROVISION, REVIVE, TERMINATE, token_context
from ff_cloud.workspaces.settle import Settler
from ff_core.contract.daemon import PrepareRepository
from ff_core.contract.problem import RemoteProblem
from ff_core.ids import WorkspaceId

CONTAINER_TIMEOUT_S = 120.0
DAEMON_TIMEOUT_S = 60.0
CLONE_TIMEOUT_S = 900.0


class _WorkspaceStep(Step):
    """A step that begins by reading its workspace and VM in a transaction of its own."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def _load(self, op: Operation) -> tuple[Workspace, Vm | None]:
        workspace_id = _key(op)
        async with self._db.system_transaction() as tx:
            workspace = await SystemWorkspaceRepository(tx).get(workspace_id)
            vm = await SystemVmRepository(tx).of_workspace(workspace_id)
        if workspace is None:
            raise Fatal("not_found", "The workspace is no longer there.")
        return workspace, vm

    async def _target(self, op: Operation) -> Target:
        workspace, vm = await self._load(op)
        if vm is None:
            raise Fatal("vm_lost", "The workspace's VM is no longer there; delete the workspace and make a new one.")
        return Target(workspace.id, workspace.name, vm)


class EnsureContainer(_WorkspaceStep):
    """Make the VM's container exist and run; adopts one that does."""

    name = "container"
    timeout_s = CONTAINER_TIMEOUT_S

    def __init__(self, db: Database, engine: Engine, specs: Specs) -> None:
        super().__init__(db)
        self._engine = engine
        self._specs = specs

    async def do(self, op: Operation) -> Effects:
        """See :class:`Step`."""
        vm = (await self._target(op)).vm
        async with self._db.system_transaction() as tx:
            plan = await plans.of(tx, vm.user_id)
        endpoint = await self._engine.ensure(self._specs.of(vm, plan, fence=op.fence))

        async def apply(tx: SystemTx) -> None:
            await tx.execute(started(vm.id, endpoint.container_id, endpoint.address, endpoint.port))

        return Effects(apply=apply)


class EnsureNewContainer(EnsureContainer):
    """The same for a workspace's first container, which is removed with its volume when the operation turns back."""

    async def undo(self, op: Operation) -> Effects:
        """Remove container and volume. While Docker can't be reached the sweep keeps trying (VM is TERMINATING)."""
        _, vm = await self._load(op)
        if vm is None:
            return Effects()
        vm_id = vm.id
        try:
            await self._engine.remove(vm_id)
        except DockerUnreachable:
            return Effects(apply=lambda tx: _later(tx, vm))
        return Effects(apply=lambda tx: SystemVmRepository(tx).delete(vm_id))


class AwaitDaemon(_WorkspaceStep):
    """Wait until the daemon answers."""

    name = "daemon"
    timeout_s = DAEMON_TIMEOUT_S

    def __init__(self, db: Database, daemons: Daemons) -> None:
        super().__init__(db)
        self._daemons = daemons

    async def do(self, op: Operation) -> Effects:
        """See :class:`Step`."""
        await self._daemons.client((await self._target(op)).vm).wait_healthy(timeout_s=DAEMON_TIMEOUT_S)
        return Effects()


class BindDaemon(_WorkspaceStep):
    """Tell the daemon whose it is."""

    name = "bind"
    timeout_s = DAEMON_TIMEOUT_S

    def __init__(self, db: Database, daemons: Daemons) -> None:
        super().__init__(db)
        self._daemons = daemons

    async def do(self, op: Operation) -> Effects:
        """See :class:`Step`."""
        await self._daemons.bind(await self._target(op))
        return Effects()


class PrepareCheckout(_WorkspaceStep):
    """Have the daemon clone the repository, or make an empty one."""

    name = "repository"
    timeout_s = CLONE_TIMEOUT_S + 60

    def __init__(self, db: Database, daemons: Daemons, sealer: Sealer) -> None:
        super().__init__(db)
        self._daemons = daemons
        self._sealer = sealer

    async def do(self, op: Operation) -> Effects:
        """See :class:`Step`. What the daemon refuses (no such repository, wrong token) can't be helped by trying again."""
        workspace, _ = await self._load(op)
        sealed = workspace.repo_token_sealed
        wanted = PrepareRepository(
            url=workspace.repo_url,
            branch=workspace.branch,
            token=self._sealer.open_sealed(sealed, token_context(workspace.id)) if sealed else None,
            timeout_s=CLONE_TIMEOUT_S,
        )
        target = await self._target(op)
        try:
            await self._daemons.call(target, lambda daemon: daemon.prepare_repository(wanted))
        except RemoteProblem as error:
            raise Fatal(error.problem.code, error.problem.detail) from error
        return Effects()


class RemoveVm(_WorkspaceStep):
    """Remove the VM's container and volume."""

    name = "remove"
    timeout_s = CONTAINER_TIMEOUT_S

    def __init__(self, db: Database, engine: Engine) -> None:
        super().__init__(db)
        self._engine = engine

    async def do(self, op: Operation) -> Effects:
        """See :class:`Step`."""
        _, vm = await self._load(op)
        if vm is None:
            return Effects()
        vm_id = vm.id
        await self._engine.remove(vm_id)
        return Effects(apply=lambda tx: SystemVmRepository(tx).delete(vm_id))


def kinds(*, db: Database, engine: Engine, daemons: Daemons, specs: Specs, sealer: Sealer, settler: Settler) -> list[Kind]:
    """The operations on workspaces, for a worker."""
    awake = [AwaitDaemon(db, daemons), BindDaemon(db, daemons)]
    return [
        Kind(
            name=PROVISION,
            steps=[EnsureNewContainer(db, engine, specs), *awake, PrepareCheckout(db, daemons, sealer)],
            on_settled=settler.provisioned,
        ),
        Kind(name=REVIVE, steps=[EnsureContainer(db, engine, specs), *awake], on_settled=settler.revived),
        Kind(name=TERMINATE, steps=[RemoveVm(db, engine)], forward_only=True, on_settled=settler.terminated),
    ]


async def _later(tx: SystemTx, vm: Vm) -> None:
    await tx.execute(terminating(vm.id))


def _key(op: Operation) -> WorkspaceId:
    return WorkspaceId(UUID(op.key))
