"""The only code that reads and writes ``vms``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Update, and_, delete, func, insert, or_, select, update

from ff_cloud.kit.db import SystemTx, Tx
from ff_cloud.vms.engine.base import Endpoint, Limits
from ff_cloud.vms.model import HOLDING, AnyVm, Desired, Vm
from ff_cloud.vms.tables import vms
from ff_core.contract.workspace import VmStatus
from ff_core.ids import UserId, VmId, WorkspaceId

__all__ = ["AnyVm", "SystemVmRepository", "Vm", "VmRepository"]

FILLED_WITHIN = timedelta(seconds=2.5)
"""After the claim: until then a VM that a desktop's workspace comes into goes before the pool."""
_STOPPED = (VmStatus.SUSPENDED, VmStatus.TERMINATING, VmStatus.GONE, VmStatus.FAILED)


@dataclass(frozen=True, slots=True)
class PoolCounts:
    """The anonymous VMs and what happens around them."""

    warm: int
    warming: int
    leaving: int
    """Warm ones that nobody may claim any more, and that have not gone yet."""
    cold: int
    """Workspaces whose VM is being made because none was warm, or is filled with what a desktop sends; not those that wait for
    room."""
    oldest_warm_at: datetime | None
    claimed_at: datetime | None
    """When a VM was last claimed."""


class VmRepository:
    """The VMs of one user, and the warm ones he may claim."""

    def __init__(self, tx: Tx) -> None:
        self._tx = tx

    async def claim(self, workspace_id: WorkspaceId, *, image: str, runtime: str | None) -> Vm | None:
        """Take the oldest warm VM of this image and runtime for a workspace of this user; None when there is none.

        One statement: of any number of callers each gets another VM, and a row that somebody just takes is passed over.
        """
        rows = await self._tx.fetch(
            """
            update vms set status = 'CLAIMED', user_id = %(user_id)s, workspace_id = %(workspace_id)s,
                claimed_at = clock_timestamp(), active_at = clock_timestamp()
            where status = 'WARM' and id = (
                select id from vms
                where status = 'WARM' and user_id is null and desired = 'RUNNING'
                  and image = %(image)s and runtime is not distinct from %(runtime)s
                order by warm_at limit 1 for update skip locked
            )
            returning *
            """,
            {"user_id": self._tx.user_id, "workspace_id": workspace_id, "image": image, "runtime": runtime},
        )
        return _owned(rows[0]._asdict()) if rows else None

    async def standing(self) -> tuple[int, str | None]:
        """How many of the user's VMs run or are about to, and the code of why nothing new is made now, if so."""
        rows = await self._tx.fetch(
            """
            select (select count(*) from vms where user_id = %(user_id)s and status <> all(%(stopped)s)) as running,
                   (select refusing from fleet) as refusing
            """,
            {"user_id": self._tx.user_id, "stopped": list(_STOPPED)},
        )
        return rows[0].running, rows[0].refusing

    async def of_workspace(self, workspace_id: WorkspaceId) -> Vm | None:
        """The VM of one workspace of this user."""
        rows = await self._tx.fetch(
            "select * from vms where workspace_id = %(id)s and user_id = %(user_id)s",
            {"id": workspace_id, "user_id": self._tx.user_id},
        )
        return _owned(rows[0]._asdict()) if rows else None

    async def insert(self, vm_id: VmId, workspace_id: WorkspaceId, *, image: str, runtime: str | None) -> Vm:
        """A VM that is yet to be created, for a workspace of this user."""
        statement = insert(vms).values(
            id=vm_id,
            user_id=self._tx.user_id,
            workspace_id=workspace_id,
            status=VmStatus.CREATING,
            generation=1,
            image=image,
            runtime=runtime,
            health_failures=0,
            created_at=func.now(),
        )
        return _owned((await self._tx.execute(statement.returning(vms))).mappings().one())

    async def of_workspaces(self, ids: list[WorkspaceId]) -> dict[WorkspaceId, Vm]:
        """The VMs of these workspaces; those without one are left out."""
        rows = await self._tx.execute(select(vms).where(vms.c.workspace_id.in_(ids), vms.c.user_id == self._tx.user_id))
        return {vm.workspace_id: vm for vm in map(_owned, rows.mappings())}

    async def count_running(self) -> int:
        """How many of the user's VMs run, or are about to."""
        mine = (vms.c.user_id == self._tx.user_id) & vms.c.status.not_in(_STOPPED)
        return int(await self._tx.scalar(select(func.count()).select_from(vms).where(mine)) or 0)


class SystemVmRepository:
    """The VMs of everybody and of nobody, for operations and loops."""

    def __init__(self, tx: SystemTx) -> None:
        self._tx = tx

    async def insert_warm(self, vm_id: VmId, *, image: str, runtime: str | None, deadline_s: float) -> None:
        """An anonymous VM that is yet to be created. It counts against the machine's capacity from now on."""
        await self._tx.execute(
            insert(vms).values(
                id=vm_id,
                status=VmStatus.CREATING,
                generation=1,
                image=image,
                runtime=runtime,
                health_failures=0,
                created_at=func.now(),
                admitted_at=func.now(),
                deadline_at=_in(deadline_s),
            )
        )

    async def insert_cold(self, vm_id: VmId, workspace_id: WorkspaceId, user_id: UserId, *, image: str) -> None:
        """A VM that is yet to be created, for a workspace that has none."""
        await self._tx.execute(
            insert(vms).values(
                id=vm_id,
                user_id=user_id,
                workspace_id=workspace_id,
                status=VmStatus.CREATING,
                generation=1,
                image=image,
                health_failures=0,
                created_at=func.now(),
            )
        )

    async def claim(self, workspace_id: WorkspaceId, user_id: UserId, *, image: str, runtime: str | None) -> bool:
        """Take the oldest warm VM of this image and runtime for a workspace; false when there is none. See ``VmRepository``."""
        ours = (vms.c.image == image, vms.c.runtime.is_not_distinct_from(runtime), vms.c.desired == Desired.RUNNING)
        warm = select(vms.c.id).where(vms.c.status == VmStatus.WARM, vms.c.user_id.is_(None), *ours)
        oldest = warm.order_by(vms.c.warm_at).limit(1).with_for_update(skip_locked=True).scalar_subquery()
        now = func.clock_timestamp()
        owned = {"status": VmStatus.CLAIMED, "user_id": user_id, "workspace_id": workspace_id}
        taken = update(vms).where(vms.c.id == oldest, vms.c.status == VmStatus.WARM)
        return await self._tx.scalar(taken.values(**owned, claimed_at=now, active_at=now).returning(vms.c.id)) is not None

    async def of_workspace(self, workspace_id: WorkspaceId, *, lock: bool = False) -> Vm | None:
        """The VM of a workspace, if it has one. ``lock`` keeps others from changing it until the transaction ends."""
        statement = select(vms).where(vms.c.workspace_id == workspace_id)
        row = (await self._tx.execute(statement.with_for_update() if lock else statement)).mappings().one_or_none()
        return _owned(row) if row else None

    async def get(self, vm_id: VmId) -> Vm | None:
        """The VM, if it belongs to a workspace."""
        found = await self.find(vm_id)
        return found if isinstance(found, Vm) else None

    async def find(self, vm_id: VmId, *, lock: bool = False) -> AnyVm | None:
        """The VM, whoever's it is."""
        statement = select(vms).where(vms.c.id == vm_id)
        row = (await self._tx.execute(statement.with_for_update() if lock else statement)).mappings().one_or_none()
        return _any(row) if row else None

    async def everything(self) -> list[AnyVm]:
        """All VMs that have a row."""
        rows = await self._tx.execute(select(vms).order_by(vms.c.id))
        return [_any(row) for row in rows.mappings()]

    async def owners(self) -> set[WorkspaceId]:
        """The workspaces that have a VM."""
        owned = await self._tx.execute(select(vms.c.workspace_id).where(vms.c.workspace_id.is_not(None)))
        return {WorkspaceId(found) for found in owned.scalars()}

    async def holders(self) -> set[WorkspaceId]:
        """The workspaces whose VM has, or is about to have, processes."""
        held = select(vms.c.workspace_id).where(vms.c.workspace_id.is_not(None), vms.c.status.in_(HOLDING))
        return {WorkspaceId(found) for found in (await self._tx.execute(held)).scalars()}

    async def awake(self) -> list[AnyVm]:
        """All VMs that run, those too that are about to sleep or to go."""
        awake = vms.c.status.in_([VmStatus.RUNNING, VmStatus.WARM])
        rows = await self._tx.execute(select(vms).where(awake).order_by(vms.c.id))
        return [_any(row) for row in rows.mappings()]

    async def running(self) -> list[Vm]:
        """All VMs that should answer."""
        rows = await self._tx.execute(select(vms).where(vms.c.status == VmStatus.RUNNING).order_by(vms.c.id))
        return [_owned(row) for row in rows.mappings()]

    async def counts(self) -> dict[VmStatus, int]:
        """How many VMs there are in each status; those without any are left out."""
        query = select(vms.c.status, func.count().label("vms")).group_by(vms.c.status).order_by(vms.c.status)
        rows = await self._tx.execute(query)
        return {VmStatus(row["status"]): row["vms"] for row in rows.mappings()}

    async def pool_counts(self, image: str, runtime: str | None) -> PoolCounts:
        """The pool of this image and runtime."""
        nobodys = vms.c.user_id.is_(None)
        ours = and_(vms.c.image == image, vms.c.runtime.is_not_distinct_from(runtime), vms.c.desired == Desired.RUNNING)
        warm = and_(nobodys, ours, vms.c.status == VmStatus.WARM)
        being_made = and_(vms.c.user_id.is_not(None), vms.c.admitted_at.is_not(None), vms.c.status == VmStatus.CREATING)
        # One that is filled with what a desktop sends does not serve for long; a slow upload holds nobody up.
        filled = and_(vms.c.status == VmStatus.CLAIMED, vms.c.claimed_at > func.clock_timestamp() - FILLED_WITHIN)
        row = (
            await self._tx.execute(
                select(
                    func.count().filter(warm).label("warm"),
                    func.count().filter(nobodys, ours, vms.c.status == VmStatus.CREATING).label("warming"),
                    func.count().filter(nobodys, vms.c.desired == Desired.GONE, vms.c.status.in_(HOLDING)).label("leaving"),
                    func.count().filter(or_(being_made, filled)).label("cold"),
                    func.min(vms.c.warm_at).filter(warm).label("oldest_warm_at"),
                    func.max(vms.c.claimed_at).label("claimed_at"),
                )
            )
        ).one()
        return PoolCounts(row.warm, row.warming, row.leaving, row.cold, row.oldest_warm_at, row.claimed_at)

    async def surplus(self, keep: int, image: str, runtime: str | None) -> list[AnyVm]:
        """The warm VMs beyond the ``keep`` youngest ones."""
        warm = (vms.c.status == VmStatus.WARM, vms.c.user_id.is_(None), vms.c.desired == Desired.RUNNING)
        ours = (vms.c.image == image, vms.c.runtime.is_not_distinct_from(runtime))
        rows = await self._tx.execute(select(vms).where(*warm, *ours).order_by(vms.c.warm_at.desc()).offset(keep))
        return [_any(row) for row in rows.mappings()]

    async def count_admitted(self) -> int:
        """How many VMs hold a part of the machine, or are about to: also one that sleeps and was let in."""
        held = vms.c.admitted_at.is_not(None) & vms.c.status.in_((*HOLDING, VmStatus.SUSPENDED))
        return int(await self._tx.scalar(select(func.count()).select_from(vms).where(held)) or 0)

    async def admit(self, vm_id: VmId) -> None:
        """From now on it counts against the machine's capacity. May be repeated."""
        await self.change(vm_id, admitted_at=func.coalesce(vms.c.admitted_at, func.clock_timestamp()))

    async def want_gone(self, vm_id: VmId) -> bool:
        """Nobody may claim it any more; false when somebody has."""
        unclaimed = (vms.c.id == vm_id) & vms.c.user_id.is_(None)
        gone = update(vms).where(unclaimed).values(desired=Desired.GONE).returning(vms.c.id)
        return await self._tx.scalar(gone) is not None

    async def give_up(self, vm: Vm) -> bool:
        """A VM that was claimed and does not answer belongs to nobody again and has to go; false when that is no longer so."""
        claimed = and_(vms.c.id == vm.id, vms.c.workspace_id == vm.workspace_id, vms.c.status == VmStatus.CLAIMED)
        values = {"status": VmStatus.TERMINATING, "desired": Desired.GONE, "user_id": None, "workspace_id": None}
        return await self._tx.scalar(update(vms).where(claimed).values(values).returning(vms.c.id)) is not None

    async def bound(self, vm_id: VmId) -> None:
        """It runs for its workspace, and somebody is about to use it."""
        await self.change(
            vm_id,
            status=VmStatus.RUNNING,
            desired=Desired.RUNNING,
            health_failures=0,
            suspended_at=None,
            active_at=func.clock_timestamp(),
        )

    async def serve(self, vm: Vm) -> None:
        """A claimed VM was bound: it runs for its workspace. Nothing, when that is known or no longer so."""
        claimed = and_(vms.c.id == vm.id, vms.c.workspace_id == vm.workspace_id, vms.c.status == VmStatus.CLAIMED)
        await self._tx.execute(update(vms).where(claimed).values(status=VmStatus.RUNNING, health_failures=0))

    async def record_health(self, vm_id: VmId, *, healthy: bool, active_at: datetime | None = None) -> int:
        """Count failures in a row; returns how many there are now. ``active_at``: when its daemon last saw it in use."""
        values: dict[str, Any] = {
            "health_failures": 0 if healthy else vms.c.health_failures + 1,
            "last_health_check": func.now(),
        }
        if active_at is not None:
            values["active_at"] = func.greatest(vms.c.active_at, active_at)
        statement = update(vms).where(vms.c.id == vm_id).values(values).returning(vms.c.health_failures)
        return int(await self._tx.scalar(statement) or 0)

    async def change(self, vm_id: VmId, **values: Any) -> None:
        """Set columns."""
        await self._tx.execute(update(vms).where(vms.c.id == vm_id).values(values))

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
            update(vms).where(vms.c.id.in_(due)).values(copier=copier, copier_lease_until=_in(lease_s)).returning(vms)
        )
        return [_owned(row) for row in rows.mappings()]

    async def delete(self, vm_id: VmId) -> None:
        """Forget a VM that is gone; may be repeated."""
        await self._tx.execute(delete(vms).where(vms.c.id == vm_id))


def made(vm_id: VmId, endpoint: Endpoint, limits: Limits, status: VmStatus) -> Update:
    """The VM's container runs: where to reach it, and what it may use."""
    return (
        update(vms)
        .where(vms.c.id == vm_id)
        .values(
            container_id=endpoint.container_id,
            address=endpoint.address,
            port=endpoint.port,
            status=status,
            health_failures=0,
            suspended_at=None,
            **limits_columns(limits),
        )
    )


def limits_columns(limits: Limits) -> dict[str, Any]:
    """Limits as columns."""
    return {
        "memory_bytes": limits.memory_bytes,
        "cpus": limits.cpus,
        "pids": limits.pids,
        "disk_bytes": limits.disk_bytes,
    }


def _any(row: Mapping[Any, Any]) -> AnyVm:
    return AnyVm(**_facts(row)) if row["workspace_id"] is None else _owned(row)


def _owned(row: Mapping[Any, Any]) -> Vm:
    return Vm(**_facts(row), user_id=UserId(row["user_id"]), workspace_id=WorkspaceId(row["workspace_id"]))


_PLAIN: Sequence[str] = (
    "generation",
    "image",
    "runtime",
    "address",
    "port",
    "health_failures",
    "created_at",
    "admitted_at",
    "warm_at",
    "active_at",
    "suspended_at",
    "refused_image",
    "deadline_at",
)


def _facts(row: Mapping[Any, Any]) -> dict[str, Any]:
    limits = None
    if row["memory_bytes"] is not None:
        limits = Limits(row["memory_bytes"], row["cpus"], row["pids"], row["disk_bytes"])
    return {
        "id": VmId(row["id"]),
        "status": VmStatus(row["status"]),
        "desired": Desired(row["desired"]),
        "limits": limits,
        **{name: row[name] for name in _PLAIN},
    }


def _in(seconds: float) -> Any:
    return func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, seconds)
