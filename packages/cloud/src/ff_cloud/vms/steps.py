"""The operations on VMs that belong to nobody: make one and keep it warm, discard one.

Both are locked by the VM's own id. See :class:`ff_cloud.operations.model.Step` for what a step may rely on.
"""

from uuid import UUID

from ff_cloud.kit.db import Database, SystemTx
from ff_cloud.operations.errors import Fatal
from ff_cloud.operations.model import Effects, Kind, Operation, Step
from ff_cloud.operations.service import start
from ff_cloud.users import plans
from ff_cloud.vms.access import Daemons
from ff_cloud.vms.engine.base import Engine
from ff_cloud.vms.footing import CONTAINER, DAEMON, DAEMON_STEP_TIMEOUT_S, Footing
from ff_cloud.vms.model import AnyVm, Vm
from ff_cloud.vms.repository import SystemVmRepository, made
from ff_cloud.vms.specs import Specs
from ff_core.contract.workspace import VmStatus
from ff_core.ids import VmId
from ff_core.world import World

WARM = "warm"
DISCARD = "discard"

CONTAINER_TIMEOUT_S = 120.0
PROBE_TIMEOUT_S = 30.0


class _VmStep(Step):
    """A step that begins by reading its VM in a transaction of its own."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def _load(self, op: Operation) -> AnyVm:
        async with self._db.system_transaction() as tx:
            vm = await SystemVmRepository(tx).find(VmId(UUID(op.key)))
        if vm is None:
            raise Fatal("vm_lost", "The VM is no longer there.")
        return vm


class MakeContainer(_VmStep):
    """Make an anonymous VM's container exist and run, with no more than the smallest plan gives."""

    name = CONTAINER
    timeout_s = CONTAINER_TIMEOUT_S

    def __init__(self, db: Database, engine: Engine, specs: Specs) -> None:
        super().__init__(db)
        self._engine = engine
        self._specs = specs

    async def do(self, op: Operation) -> Effects:
        """See :class:`Step`."""
        vm = await self._load(op)
        async with self._db.system_transaction() as tx:
            limits = self._specs.warm_limits(await plans.everything(tx))
        endpoint = await self._engine.ensure(self._specs.of(vm, limits, fence=op.fence))

        async def apply(tx: SystemTx) -> None:
            await tx.execute(made(vm.id, endpoint, limits, VmStatus.CREATING))

        return Effects(apply=apply)

    async def undo(self, op: Operation) -> Effects:
        """Have it go, once nothing works on it any more: the reconciler discards what nobody can claim."""
        vm_id = VmId(UUID(op.key))

        async def apply(tx: SystemTx) -> None:
            vms = SystemVmRepository(tx)
            if await vms.want_gone(vm_id):
                await vms.change(vm_id, status=VmStatus.TERMINATING)

        return Effects(apply=apply)


class AwaitWarmDaemon(_VmStep):
    """Wait until the daemon answers."""

    name = DAEMON
    timeout_s = DAEMON_STEP_TIMEOUT_S

    def __init__(self, db: Database, footing: Footing) -> None:
        super().__init__(db)
        self._footing = footing

    async def do(self, op: Operation) -> Effects:
        """See :class:`Step`."""
        await self._footing.healthy(await self._load(op))
        return Effects()


class ProbeVm(_VmStep):
    """Try in the VM what an agent needs; only then may somebody claim it."""

    name = "probe"
    timeout_s = PROBE_TIMEOUT_S

    def __init__(self, db: Database, daemons: Daemons, footing: Footing, world: World) -> None:
        super().__init__(db)
        self._daemons = daemons
        self._footing = footing
        self._world = world

    async def do(self, op: Operation) -> Effects:
        """See :class:`Step`."""
        vm = await self._load(op)
        async with self._footing.under(vm):
            await self._daemons.probe(vm)

        async def apply(tx: SystemTx) -> None:
            values = {"status": VmStatus.WARM, "warm_at": self._world.now(), "deadline_at": None}
            await SystemVmRepository(tx).change(vm.id, **values)

        return Effects(apply=apply)


class RemoveForGood(_VmStep):
    """Remove container and volume, and forget the VM."""

    name = "remove"
    timeout_s = CONTAINER_TIMEOUT_S

    def __init__(self, db: Database, engine: Engine) -> None:
        super().__init__(db)
        self._engine = engine

    async def do(self, op: Operation) -> Effects:
        """See :class:`Step`. What belongs to a workspace that is wanted is left alone, whoever ordered this."""
        vm_id = VmId(UUID(op.key))
        async with self._db.system_transaction() as tx:
            vm = await SystemVmRepository(tx).find(vm_id, lock=True)
            if isinstance(vm, Vm) and vm.status not in {VmStatus.TERMINATING, VmStatus.GONE}:
                return Effects()
        await self._engine.remove(vm_id)
        return Effects(apply=lambda tx: SystemVmRepository(tx).delete(vm_id))


async def discard(tx: SystemTx, vm: AnyVm, world: World) -> None:
    """Have a VM go: one of nobody, which nobody can claim from now on (if somebody has, nothing is done), or one that ends.

    Raises ``OperationActive``.
    """
    if isinstance(vm, Vm) or await SystemVmRepository(tx).want_gone(vm.id):
        await start(tx, DISCARD, key=str(vm.id), user_id=None, input={}, world=world, cancellable=False)


def kinds(*, db: Database, engine: Engine, daemons: Daemons, specs: Specs, world: World) -> list[Kind]:
    """The operations on VMs that belong to nobody, for a worker."""
    footing = Footing(engine, daemons)
    probe = ProbeVm(db, daemons, footing, world)
    return [
        # From the probe on somebody may have claimed it.
        Kind(
            name=WARM,
            steps=[MakeContainer(db, engine, specs), AwaitWarmDaemon(db, footing), probe],
            commit_step=probe.name,
        ),
        Kind(name=DISCARD, steps=[RemoveForGood(db, engine)], forward_only=True),
    ]
