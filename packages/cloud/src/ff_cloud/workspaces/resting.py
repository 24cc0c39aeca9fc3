"""The steps by which a VM is put to sleep, wakes up, and changes its container over the same files.

Before a container stops: the daemon takes nothing new (``rest``), its state is stored outside (``save``), its journal is copied
to the end (``journal``). Before it serves again: a VM that lost its files has them restored from what was stored.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from ff_cloud.kit.db import Database, SystemTx
from ff_cloud.kit.metrics import CheckpointReason
from ff_cloud.operations.errors import Fatal, OperationCancelled
from ff_cloud.operations.model import Effects, Operation
from ff_cloud.vms.access import Daemons, Target
from ff_cloud.vms.daemon_client import VmUnreachable
from ff_cloud.vms.engine.base import Engine
from ff_cloud.vms.footing import Footing
from ff_cloud.vms.model import Desired, Vm
from ff_cloud.vms.plan import FAILURES_MAX
from ff_cloud.vms.repository import SystemVmRepository
from ff_cloud.vms.specs import Specs
from ff_cloud.workspaces.kinds import PASSING, UPGRADE
from ff_cloud.workspaces.steps import CONTAINER_TIMEOUT_S, DaemonStep, WorkspaceStep, key
from ff_core.contract.daemon import Rest
from ff_core.contract.problem import RemoteProblem
from ff_core.contract.workspace import VmStatus
from ff_core.ids import WorkspaceId
from ff_core.world import World

log = structlog.get_logger(__name__)

SAVE_TIMEOUT_S = 1800.0
RESTORE_TIMEOUT_S = 1800.0
JOURNAL_TIMEOUT_S = 120.0
UNSAVEABLE = frozenset({"checkpoint_too_large", "checkpoint_disk_full"})
"""Why a state can't be stored, now and later."""

Save = Callable[[Target, CheckpointReason], Awaitable[Any]]
"""Store a workspace's state, for the reason given; may be repeated, and does nothing where nothing changed."""
Forget = Callable[[WorkspaceId], Awaitable[None]]
"""Remove everything that is stored of a workspace; may be repeated."""
Restore = Callable[[Target], Awaitable[Any]]
"""Bring the last stored state of a workspace into its new, empty VM; nothing is returned when nothing was ever stored."""
CopyJournal = Callable[[Target], Awaitable[None]]
"""Copy a workspace's journal to its end."""


class RestDaemon(WorkspaceStep):
    """Have the daemon take nothing new, if nothing goes on. ``force`` in the operation's input does so in any case."""

    name = "rest"

    def __init__(self, db: Database, daemons: Daemons, world: World, *, idle_s: float) -> None:
        super().__init__(db)
        self._daemons = daemons
        self._world = world
        self._idle_s = idle_s

    async def do(self, op: Operation) -> Effects:
        """See :class:`Step`. A VM in use ends the operation; one that does not answer has nothing to be asked."""
        target = await self._target(op)
        wanted = Rest(idle_s=op.input.get("idle_s", self._idle_s), force=bool(op.input.get("force")))
        if target.vm.status is VmStatus.RUNNING:
            # Who asks for the VM from now on waits; who asked before is seen by the daemon.
            async with self._db.system_transaction() as tx:
                await SystemVmRepository(tx).change(target.vm.id, desired=Desired.SUSPENDED)
            try:
                await self._daemons.call(target, lambda daemon: daemon.rest(wanted))
            except RemoteProblem as error:
                if error.problem.code == "vm_in_use":
                    raise Fatal(error.problem.code, error.problem.detail) from error
                raise
        return Effects()

    async def undo(self, op: Operation) -> Effects:
        """It takes work again."""
        _, vm = await self._load(op)
        if vm is None:
            return Effects()
        vm_id = vm.id
        if vm.status is VmStatus.RUNNING:
            try:
                await self._daemons.client(vm).end_rest()
            except VmUnreachable:
                pass  # a daemon that starts anew does not rest
            except RemoteProblem as error:
                if error.problem.code != "not_bound":
                    raise

        async def apply(tx: SystemTx) -> None:
            # It was asked whether it is in use, and it is: it is not asked again at once.
            await SystemVmRepository(tx).change(vm_id, desired=Desired.RUNNING, active_at=self._world.now())

        return Effects(apply=apply)


class SaveState(WorkspaceStep):
    """Store the workspace's state outside of its VM."""

    name = "save"
    timeout_s = SAVE_TIMEOUT_S

    def __init__(self, db: Database, footing: Footing, save: Save, reason: CheckpointReason) -> None:
        super().__init__(db)
        self._footing = footing
        self._save = save
        self._reason = reason

    async def do(self, op: Operation) -> Effects:
        """See :class:`Step`. A container that has ended ends the operation: only when that is over can it be started again."""
        target = await self._target(op)
        if target.vm.status is VmStatus.RUNNING:
            try:
                await self._save(target, op.input.get("reason", self._reason))
            except VmUnreachable as error:
                if await self._footing.stands(target.vm):
                    raise
                raise Fatal("vm_stopped", "The workspace's VM stopped before its state was stored. Try again.") from error
            except RemoteProblem as error:
                # Too much to be stored, or no room to prepare it: trying again does not help, and the volume is still there.
                if error.problem.code not in UNSAVEABLE:
                    raise
                log.warning("save.impossible", workspace_id=str(target.workspace_id), code=error.problem.code)
        return Effects()


class ForgetState(WorkspaceStep):
    """Remove what was stored of a workspace that is deleted."""

    name = "forget"
    timeout_s = SAVE_TIMEOUT_S

    def __init__(self, db: Database, forget: Forget) -> None:
        super().__init__(db)
        self._forget = forget

    async def do(self, op: Operation) -> Effects:
        """See :class:`Step`."""
        await self._forget(key(op))
        return Effects()


class FinishJournal(WorkspaceStep):
    """Copy the journal to its end, so that history reads without the VM."""

    name = "journal"
    timeout_s = JOURNAL_TIMEOUT_S

    def __init__(self, db: Database, copy: CopyJournal) -> None:
        super().__init__(db)
        self._copy = copy

    async def do(self, op: Operation) -> Effects:
        """See :class:`Step`."""
        target = await self._target(op)
        if target.vm.status is VmStatus.RUNNING:
            await self._copy(target)
        return Effects()


class StopContainer(WorkspaceStep):
    """Stop the container; its files stay. From now on the VM sleeps, and counts no longer against the machine."""

    name = "stop"
    timeout_s = CONTAINER_TIMEOUT_S

    def __init__(self, db: Database, engine: Engine, world: World) -> None:
        super().__init__(db)
        self._engine = engine
        self._world = world

    async def do(self, op: Operation) -> Effects:
        """See :class:`Step`. It is the first that can't fail for good: there is no way back from here."""
        _, vm = await self._load(op)
        if vm is None:
            return Effects()
        vm_id = vm.id
        await self._engine.stop(vm_id)

        async def apply(tx: SystemTx) -> None:
            await SystemVmRepository(tx).change(
                vm_id,
                status=VmStatus.SUSPENDED,
                desired=Desired.SUSPENDED,
                suspended_at=self._world.now(),
                admitted_at=None,
                address=None,
                port=None,
            )

        return Effects(apply=apply)


class RenewContainer(WorkspaceStep):
    """Decide what the next container is made from: where the image is no longer the present one, a new generation of the VM.

    Written down before anything is made, so that a container of the old generation is one that has to go.
    """

    name = "renew"

    def __init__(self, db: Database, specs: Specs) -> None:
        super().__init__(db)
        self._specs = specs

    async def do(self, op: Operation) -> Effects:
        """See :class:`Step`. A container that runs and whose daemon is silent is not taken up again either.

        An upgrade that another worker ordered, to an image that is not this one's, ends: its container would stay, and rest.
        """
        vm = (await self._target(op)).vm
        if vm.image not in {None, self._specs.image} and vm.refused_image != self._specs.image:
            return self._to(vm, self._specs.image, state={"image_before": vm.image})
        if vm.health_failures >= FAILURES_MAX:
            return self._to(vm, vm.image, state={})
        if op.kind == UPGRADE and "image_before" not in op.state:
            raise Fatal("up_to_date", "The workspace's VM has the present image already, or one that works where that did not.")
        return Effects()

    async def undo(self, op: Operation) -> Effects:
        """Back to the image that worked, and remember the one that did not."""
        _, vm = await self._load(op)
        before = op.state.get("image_before")
        if vm is None or before is None or vm.image == before:
            return Effects()
        guiltless = op.error_code in {*PASSING, OperationCancelled.code}
        return self._to(vm, before, state={}, **({} if guiltless else {"refused_image": self._specs.image}))

    def _to(self, vm: Vm, image: str | None, *, state: dict[str, Any], **more: Any) -> Effects:
        generation = vm.generation + 1

        async def apply(tx: SystemTx) -> None:
            await SystemVmRepository(tx).change(vm.id, image=image, generation=generation, **more)

        return Effects(state=state, apply=apply)


class RestoreState(DaemonStep):
    """Bring the last stored state into a VM that has lost its files; nothing where they are there."""

    name = "restore"
    timeout_s = RESTORE_TIMEOUT_S

    def __init__(self, db: Database, daemons: Daemons, footing: Footing, restore: Restore) -> None:
        super().__init__(db, daemons, footing)
        self._restore = restore

    async def do(self, op: Operation) -> Effects:
        """See :class:`Step`."""
        target = await self._target(op)
        health = await self._footing.healthy(target.vm)
        if health.workspace_id is not None or not target.existing:
            return Effects()
        async with self._footing.under(target.vm):
            restored = await self._restore(target)
        if restored is None:
            raise Fatal(
                "vm_data_lost",
                "The workspace's files were lost with its VM, and none of its state had been stored yet. Delete it and make a "
                "new one.",
            )
        return Effects(state={"restored": True})
