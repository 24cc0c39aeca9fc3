"""What the fixture ``here`` gives: a whole control plane in this process, over VMs that are processes, and a user of it."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from api_user import User
from sqlalchemy import text

from ff_cloud.fleet import rules_of
from ff_cloud.kit.crypto import Sealer
from ff_cloud.kit.db import Database
from ff_cloud.testing.cloud import IMAGE, Cloud
from ff_cloud.testing.processes import ProcessEngine
from ff_cloud.testing.settled import until_settled
from ff_cloud.vms.engine.base import Engine
from ff_cloud.vms.model import AnyVm, Vm
from ff_cloud.vms.plan import PlanRules
from ff_cloud.vms.reconcile import Reconciler
from ff_cloud.vms.repository import SystemVmRepository
from ff_cloud.workspaces.orders import Orders
from ff_cloud.workspaces.service import WorkspaceService
from ff_core.contract.workspace import VmStatus
from ff_core.ids import VmId, WorkspaceId

LIMIT_S = 30.0


@dataclass
class Here:
    """See the module. The user has the largest plan."""

    cloud: Cloud
    engine: ProcessEngine
    url: str
    user: User

    @property
    def db(self) -> Database:
        return self.cloud.db

    @property
    def workspaces(self) -> WorkspaceService:
        """The rules alone, as a request has them."""
        cloud = self.cloud
        return WorkspaceService(
            rules=rules_of(cloud.settings, IMAGE), sealer=Sealer(cloud.secrets.sealing_key), world=cloud.world
        )

    def reconciler(self, engine: Engine | None = None) -> Reconciler:
        """One that looks when it is told to; it lets nothing fall asleep. ``engine``: what it sees, when that is not what is."""
        orders = Orders(db=self.db, world=self.cloud.world)
        return Reconciler(
            db=self.db,
            engine=engine or self.engine,
            wanted=orders.wanted,
            orders=orders.by_act(),
            rules=PlanRules(idle_max=None, warm_age_max=timedelta(hours=1)),
            image=IMAGE,
            world=self.cloud.world,
            every_s=60.0,
        )

    async def vms(self, *statuses: VmStatus) -> list[AnyVm]:
        """All, or those of these statuses."""
        async with self.db.system_transaction() as tx:
            return [vm for vm in await SystemVmRepository(tx).everything() if not statuses or vm.status in statuses]

    async def vm(self, vm_id: VmId) -> AnyVm | None:
        async with self.db.system_transaction() as tx:
            return await SystemVmRepository(tx).find(vm_id)

    async def vm_of(self, workspace_id: WorkspaceId) -> Vm:
        async with self.db.system_transaction() as tx:
            vm = await SystemVmRepository(tx).of_workspace(workspace_id)
        assert vm is not None
        return vm

    async def asleep(self, workspace_id: WorkspaceId, *, limit_s: float = LIMIT_S) -> Vm:
        """Its VM, once it sleeps."""
        return await self.status(workspace_id, VmStatus.SUSPENDED, limit_s=limit_s)

    async def status(self, workspace_id: WorkspaceId, status: VmStatus, *, limit_s: float = LIMIT_S) -> Vm:
        """Its VM, once it is in this status."""
        vm = await self.vm_of(workspace_id)
        async with asyncio.timeout(limit_s):
            while vm.status is not status:
                await asyncio.sleep(0.02)
                vm = await self.vm_of(workspace_id)
        return vm

    async def filled(self, size: int) -> list[VmId]:
        """The warm VMs, oldest first, once there are so many."""
        async with asyncio.timeout(LIMIT_S):
            while len(warm := await self.vms(VmStatus.WARM)) < size:
                await asyncio.sleep(0.02)
        return [vm.id for vm in sorted(warm, key=lambda vm: vm.warm_at or vm.created_at)]

    async def run(self, statement: str, **values: Any) -> list[Any]:
        """One statement, as the system."""
        async with self.db.system_transaction() as tx:
            result = await tx.execute(text(statement), values)
            return list(result.all()) if result.returns_rows else []

    async def suspended(self, workspace_id: WorkspaceId, *, force: bool = False) -> Vm:
        """Put it to sleep, and wait for that."""
        await self.user.call("POST", f"/v1/workspaces/{workspace_id}/suspend" + ("?force=true" if force else ""))
        return await self.asleep(workspace_id)

    async def operation(self, kind: str) -> Any:
        """The newest operation of a kind, once it has ended."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                rows = await self.run("select * from operations where kind = :kind order by created_at desc limit 1", kind=kind)
                if rows and rows[0].finished_at is not None:
                    return rows[0]
                await asyncio.sleep(0.02)

    async def settled(self, timeout_s: float = LIMIT_S) -> None:
        """Everything is in order."""
        await until_settled(self.db, self.engine, self.cloud.daemons, timeout_s=timeout_s)


Enter = Callable[..., AbstractAsyncContextManager[Here]]
