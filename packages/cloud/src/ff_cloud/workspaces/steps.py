"""The steps of the operations on workspaces. Which operation has which is in :mod:`ff_cloud.workspaces.operations`.

Steps act on the engine and on the daemon and leave rows through ``Effects``; each may run more than once (see
:class:`ff_cloud.operations.model.Step`). What follows the end of an operation is in :mod:`ff_cloud.workspaces.settle`.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Literal
from uuid import UUID

import structlog

from ff_cloud.kit.crypto import Sealer
from ff_cloud.kit.db import Database, SystemTx
from ff_cloud.operations.errors import Fatal, Later
from ff_cloud.operations.model import Effects, Operation, Step
from ff_cloud.operations.repository import SystemOperationRepository
from ff_cloud.users import plans
from ff_cloud.vms.access import Daemons, Target
from ff_cloud.vms.admission import NO_ROOM
from ff_cloud.vms.capacity import admit
from ff_cloud.vms.engine.base import Engine
from ff_cloud.vms.engine.errors import IsolationBroken, VolumeMissing
from ff_cloud.vms.errors import DockerUnreachable
from ff_cloud.vms.footing import CONTAINER, DAEMON, DAEMON_STEP_TIMEOUT_S, Footing
from ff_cloud.vms.model import Desired, Vm
from ff_cloud.vms.repository import SystemVmRepository, limits_columns, made
from ff_cloud.vms.specs import Specs
from ff_cloud.workspaces.kinds import ADMIT, NEW_VM_KINDS, REMOVE, WAITING_KINDS
from ff_cloud.workspaces.repository import SystemWorkspaceRepository, Workspace
from ff_cloud.workspaces.service import target_of, token_context
from ff_core.contract.daemon import PrepareRepository
from ff_core.contract.problem import RemoteProblem
from ff_core.contract.workspace import VmStatus
from ff_core.errors import FFError
from ff_core.ids import UserId, VmId, WorkspaceId
from ff_core.world import World

log = structlog.get_logger(__name__)

CONTAINER_TIMEOUT_S = 120.0
CLONE_TIMEOUT_S = 900.0
WAIT_FOR_ROOM_S = 0.5

SeedFor = Callable[[UserId, str], Awaitable[AsyncIterator[bytes] | None]]
"""What is known already of a repository this user may read, as a stream for the daemon; None: nothing."""
NoteClone = Callable[[UserId, str], None]
"""This user's workspace has cloned a repository: the next one shall find something known of it."""


class WorkspaceStep(Step):
    """A step that begins by reading its workspace and VM in a transaction of its own."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def _load(self, op: Operation) -> tuple[Workspace, Vm | None]:
        workspace_id = key(op)
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
        return target_of(workspace, vm)


class Admit(WorkspaceStep):
    """Wait until the machine has room for the VM; those who came first go first."""

    name = ADMIT

    def __init__(self, db: Database, specs: Specs, world: World) -> None:
        super().__init__(db)
        self._specs = specs
        self._world = world

    async def do(self, op: Operation) -> Effects:
        """See :class:`Step`. Raises ``Later`` with the place in the queue."""
        workspace, vm = await self._load(op)
        async with self._db.system_transaction() as tx:
            if vm is None:  # the request that ordered it died between giving a dead VM up and finding another
                vm_id = VmId(self._world.new_id())
                await SystemVmRepository(tx).insert_cold(vm_id, workspace.id, workspace.user_id, image=self._specs.image)
            else:
                vm_id = vm.id
            ahead = await SystemOperationRepository(tx).waiting_before(op.created_at, WAITING_KINDS, ADMIT)
            reason = await admit(tx, vm_id, ahead=ahead)
        if reason is not None:
            raise Later(reason, delay_s=WAIT_FOR_ROOM_S, code=NO_ROOM, state={"queue_place": ahead + 1})
        return Effects(state={"queue_place": None})

    async def undo(self, op: Operation) -> Effects:
        """It counts no longer: a VM that sleeps stays as it is, one of a new workspace that was never made is forgotten."""
        _, vm = await self._load(op)
        if vm is None:
            return Effects()
        vm_id = vm.id
        if vm.status is VmStatus.CREATING and op.kind in NEW_VM_KINDS:
            return Effects(apply=lambda tx: SystemVmRepository(tx).delete(vm_id))
        if vm.status is not VmStatus.SUSPENDED:
            return Effects()
        return Effects(apply=lambda tx: SystemVmRepository(tx).change(vm_id, admitted_at=None))


class EnsureContainer(WorkspaceStep):
    """Make the VM's container exist and run; adopts one that does.

    ``volume`` is ``existing`` for a workspace that was READY: an empty volume in place of its files is made only knowingly, and
    then filled by :class:`RestoreState`.
    """

    name = CONTAINER
    timeout_s = CONTAINER_TIMEOUT_S
    volume: Literal["any", "existing"] = "existing"

    def __init__(self, db: Database, engine: Engine, specs: Specs) -> None:
        super().__init__(db)
        self._engine = engine
        self._specs = specs

    async def do(self, op: Operation) -> Effects:
        """See :class:`Step`."""
        vm = (await self._target(op)).vm
        async with self._db.system_transaction() as tx:
            limits = self._specs.limits_of(await plans.of(tx, vm.user_id))
        try:
            endpoint = await self._engine.ensure(self._specs.of(vm, limits, fence=op.fence, volume=self.volume))
        except VolumeMissing:
            endpoint = await self._engine.ensure(self._specs.of(vm, limits, fence=op.fence))

        async def apply(tx: SystemTx) -> None:
            # Nobody is sent to its daemon before that is bound.
            await tx.execute(made(vm.id, endpoint, limits, VmStatus.CREATING))

        return Effects(apply=apply)


class EnsureNewContainer(EnsureContainer):
    """The same for a workspace's first container, which is removed with its volume when the operation turns back."""

    volume: Literal["any", "existing"] = "any"

    async def undo(self, op: Operation) -> Effects:
        """Remove container and volume. While the engine can't be reached the reconciler keeps trying (the VM is TERMINATING)."""
        _, vm = await self._load(op)
        if vm is None:
            return Effects()
        vm_id = vm.id
        try:
            await self._engine.remove(vm_id)
        except DockerUnreachable:
            return Effects(
                apply=lambda tx: SystemVmRepository(tx).change(vm_id, status=VmStatus.TERMINATING, desired=Desired.GONE)
            )
        return Effects(apply=lambda tx: SystemVmRepository(tx).delete(vm_id))


class DaemonStep(WorkspaceStep):
    """A step that talks to the daemon."""

    def __init__(self, db: Database, daemons: Daemons, footing: Footing) -> None:
        super().__init__(db)
        self._daemons = daemons
        self._footing = footing


class AwaitDaemon(DaemonStep):
    """Wait until the daemon answers."""

    name = DAEMON
    timeout_s = DAEMON_STEP_TIMEOUT_S

    async def do(self, op: Operation) -> Effects:
        """See :class:`Step`."""
        await self._footing.healthy((await self._target(op)).vm)
        return Effects()


class BindDaemon(DaemonStep):
    """Tell the daemon whose it is. From now on the VM serves."""

    name = "bind"

    async def do(self, op: Operation) -> Effects:
        """See :class:`Step`."""
        target = await self._target(op)
        async with self._footing.under(target.vm):
            await self._daemons.bind(target)
        vm_id = target.vm.id
        return Effects(apply=lambda tx: SystemVmRepository(tx).bound(vm_id))


class ApplyLimits(WorkspaceStep):
    """Give a VM that was claimed what its owner's plan says: until now it had what the smallest one gives.

    ``serves``: from then on it runs for its workspace.
    """

    name = "limits"
    serves = True

    def __init__(self, db: Database, engine: Engine, footing: Footing, specs: Specs) -> None:
        super().__init__(db)
        self._engine = engine
        self._footing = footing
        self._specs = specs

    async def do(self, op: Operation) -> Effects:
        """See :class:`Step`."""
        vm = (await self._target(op)).vm
        async with self._db.system_transaction() as tx:
            limits = self._specs.limits_of(await plans.of(tx, vm.user_id))
        if limits != vm.limits:
            async with self._footing.under(vm):
                await self._engine.update_limits(vm.id, limits)

        async def apply(tx: SystemTx) -> None:
            vms = SystemVmRepository(tx)
            if self.serves:
                await vms.serve(vm)  # should the request that claimed it not have come to it
            if limits != vm.limits:
                await vms.change(vm.id, **limits_columns(limits))

        return Effects(apply=apply)


class CheckIsolation(WorkspaceStep):
    """Look whether the VM is as alone as it must be, before a repository comes in."""

    name = "isolation"

    def __init__(self, db: Database, engine: Engine, footing: Footing) -> None:
        super().__init__(db)
        self._engine = engine
        self._footing = footing

    async def do(self, op: Operation) -> Effects:
        """See :class:`Step`. Of a VM that does not run nothing can be said."""
        vm = (await self._target(op)).vm
        try:
            async with self._footing.under(vm):
                await self._engine.isolation(vm.id)
        except IsolationBroken as error:
            await self._footing.require(vm)
            raise Fatal(error.code, error.detail) from error
        return Effects()


class PrepareCheckout(DaemonStep):
    """Have the daemon clone the repository, or make an empty one. ``bare``: its commits are all that is wanted of it."""

    name = "repository"
    timeout_s = CLONE_TIMEOUT_S + 60
    bare = False

    def __init__(
        self, db: Database, daemons: Daemons, footing: Footing, sealer: Sealer, seed_for: SeedFor, note_clone: NoteClone
    ) -> None:
        super().__init__(db, daemons, footing)
        self._sealer = sealer
        self._seed_for = seed_for
        self._note_clone = note_clone

    async def do(self, op: Operation) -> Effects:
        """See :class:`Step`. What the daemon refuses (no such repository, wrong token) can't be helped by trying again."""
        workspace, _ = await self._load(op)
        sealed = workspace.repo_token_sealed
        wanted = PrepareRepository(
            url=workspace.repo_url,
            branch=None if self.bare else workspace.branch,
            bare=self.bare,
            token=self._sealer.open_sealed(sealed, token_context(workspace.id)) if sealed else None,
            timeout_s=CLONE_TIMEOUT_S,
        )
        target = await self._target(op)
        # With a token of its own a repository is cloned straight from its server, and nobody else may have it.
        mirrored = workspace.repo_url if sealed is None else None
        if mirrored is not None:
            await self._plant(target, workspace.user_id, mirrored)
        try:
            async with self._footing.under(target.vm):
                await self._daemons.call(target, lambda daemon: daemon.prepare_repository(wanted))
        except RemoteProblem as error:
            if error.problem.code == "vm_resting":
                raise
            raise Fatal(error.problem.code, error.problem.detail) from error
        if mirrored is not None:
            self._note_clone(workspace.user_id, mirrored)
        return Effects()

    async def _plant(self, target: Target, user_id: UserId, url: str) -> None:
        """Spare the clone what a mirror has. Anything wrong with it: the clone brings all."""
        try:
            seed = await self._seed_for(user_id, url)
            if seed is not None:
                await self._daemons.call(target, lambda daemon: daemon.seed(seed))
        except FFError as error:
            log.info("repository.no_seed", workspace_id=str(target.workspace_id), reason=str(error))


class RemoveVm(WorkspaceStep):
    """Remove the VM's container and volume."""

    name = REMOVE
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


def key(op: Operation) -> WorkspaceId:
    """The workspace that an operation works on."""
    return WorkspaceId(UUID(op.key))
