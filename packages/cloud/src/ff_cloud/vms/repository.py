"""The only code that reads and writes ``vms``."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping, Update, and_, delete, func, insert, or_, select, update

from ff_cloud.kit.db import SystemTx, Tx
from ff_cloud.vms.tables import vms
from ff_core.contract.workspace import VmStatus, VmView
from ff_core.ids import UserId, VmId, WorkspaceId

_STOPPED = (VmStatus.SUSPENDED, VmStatus.TERMINATING, VmStatus.GONE, VmStatus.FAILED)


@dataclass(frozen=True, slots=True)
class Vm:
    """A VM that belongs to a workspace. ``address`` is unknown until its container runs."""

    id: VmId
    user_id: UserId
    workspace_id: WorkspaceId
    status: VmStatus
    generation: int
    address: str | None
    port: int | None
    health_failures: int
    created_at: datetime

    def view(self) -> VmView:
        """What the API shows of it."""
        return VmView(id=self.id, status=self.status, generation=self.generation, created_at=self.created_at)


class VmRepository:
    """The VMs of one user."""

    def __init__(self, tx: Tx) -> None:
        self._tx = tx

    async def insert(self, vm_id: VmId, workspace_id: WorkspaceId) -> None:
        """A VM that is yet to be created, for a workspace of this user."""
        await self._tx.execute(
            insert(vms).values(
                id=vm_id,
                user_id=self._tx.user_id,
                workspace_id=workspace_id,
                status=VmStatus.CREATING,
                generation=1,
                health_failures=0,
                created_at=func.now(),
            )
        )

    async def of_workspaces(self, ids: list[WorkspaceId]) -> dict[WorkspaceId, Vm]:
        """The VMs of these workspaces; those without one are left out."""
        rows = await self._tx.execute(select(vms).where(vms.c.workspace_id.in_(ids), vms.c.user_id == self._tx.user_id))
        return {vm.workspace_id: vm for vm in map(_vm, rows.mappings())}

    async def count_running(self) -> int:
        """How many of the user's VMs run, or are about to."""
        mine = (vms.c.user_id == self._tx.user_id) & vms.c.status.not_in(_STOPPED)
        return int(await self._tx.scalar(select(func.count()).select_from(vms).where(mine)) or 0)


class SystemVmRepository:
    """The VMs of everybody, for operations and loops."""

    def __init__(self, tx: SystemTx) -> None:
        self._tx = tx

    async def of_workspace(self, workspace_id: WorkspaceId) -> Vm | None:
        """The VM of a workspace, if it has one."""
        rows = await self._tx.execute(select(vms).where(vms.c.workspace_id == workspace_id))
        row = rows.mappings().one_or_none()
        return _vm(row) if row else None

    async def get(self, vm_id: VmId) -> Vm | None:
        """The VM, if it belongs to a workspace."""
        rows = await self._tx.execute(select(vms).where(vms.c.id == vm_id, vms.c.workspace_id.is_not(None)))
        row = rows.mappings().one_or_none()
        return _vm(row) if row else None

    async def running(self) -> list[Vm]:
        """All VMs that should answer."""
        rows = await self._tx.execute(select(vms).where(vms.c.status == VmStatus.RUNNING).order_by(vms.c.id))
        return [_vm(row) for row in rows.mappings()]

    async def counts(self) -> dict[VmStatus, int]:
        """How many VMs there are in each status; those without any are left out."""
        query = select(vms.c.status, func.count().label("vms")).group_by(vms.c.status).order_by(vms.c.status)
        rows = await self._tx.execute(query)
        return {VmStatus(row["status"]): row["vms"] for row in rows.mappings()}

    async def terminating(self) -> list[Vm]:
        """All VMs whose removal could not be finished when it was due."""
        rows = await self._tx.execute(select(vms).where(vms.c.status == VmStatus.TERMINATING).order_by(vms.c.id))
        return [_vm(row) for row in rows.mappings()]

    async def known_ids(self) -> set[VmId]:
        """Every VM that has a row, whatever its state."""
        return set((await self._tx.execute(select(vms.c.id))).scalars())

    async def record_health(self, vm_id: VmId, *, healthy: bool) -> int:
        """Count failures in a row; returns how many there are now."""
        failures: Any = 0 if healthy else vms.c.health_failures + 1
        statement = (
            update(vms)
            .where(vms.c.id == vm_id)
            .values(health_failures=failures, last_health_check=func.now())
            .returning(vms.c.health_failures)
        )
        return int(await self._tx.scalar(statement) or 0)

    async def claim_copies(self, copier: str, lease_s: float, copies_max: int) -> list[Vm]:
        """Take, or keep, the job of copying the journals of running VMs that nobody else copies just now."""
        free = or_(vms.c.copier_lease_until.is_(None), vms.c.copier_lease_until < func.clock_timestamp(), vms.c.copier == copier)
        due = (
            select(vms.c.id)
            .where(and_(vms.c.status == VmStatus.RUNNING, free))
            .order_by(vms.c.id)
            .limit(copies_max)
            .with_for_update(skip_locked=True)
        )
        rows = await self._tx.execute(
            update(vms)
            .where(vms.c.id.in_(due))
            .values(copier=copier, copier_lease_until=func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, lease_s))
            .returning(vms)
        )
        return [_vm(row) for row in rows.mappings()]

    async def delete(self, vm_id: VmId) -> None:
        """Forget a VM that is gone; may be repeated."""
        await self._tx.execute(delete(vms).where(vms.c.id == vm_id))


def started(vm_id: VmId, container_id: str, address: str, port: int) -> Update:
    """The VM's container runs; where to reach it."""
    return (
        update(vms)
        .where(vms.c.id == vm_id)
        .values(
            container_id=container_id,
            address=address,
            port=port,
            status=VmStatus.RUNNING,
            health_failures=0,
            claimed_at=func.coalesce(vms.c.claimed_at, func.now()),
        )
    )


def terminating(vm_id: VmId) -> Update:
    """The VM is to be removed as soon as its engine can be reached."""
    return update(vms).where(vms.c.id == vm_id).values(status=VmStatus.TERMINATING)


def _vm(row: RowMapping) -> Vm:
    return Vm(
        id=VmId(row["id"]),
        user_id=UserId(row["user_id"]),
        workspace_id=WorkspaceId(row["workspace_id"]),
        status=VmStatus(row["status"]),
        generation=row["generation"],
        address=row["address"],
        port=row["port"],
        health_failures=row["health_failures"],
        created_at=row["created_at"],
    )
