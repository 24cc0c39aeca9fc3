"""Emptying a server: what runs is put to sleep, so that the machine can be serviced. For a command."""

from contextlib import suppress

from ff_cloud.kit.db import Database
from ff_cloud.operations.errors import OperationActive
from ff_cloud.vms.model import Desired
from ff_cloud.vms.repository import SystemVmRepository
from ff_cloud.workspaces.orders import Orders
from ff_core.world import World


async def suspend_running(db: Database, world: World) -> int:
    """Order the suspension of every VM that runs for a workspace, whatever goes on in it; how many were ordered.

    Where something else is under way it has to be called again. May be repeated.
    """
    orders, ordered = Orders(db=db, world=world), 0
    async with db.system_transaction() as tx:
        running = [vm for vm in await SystemVmRepository(tx).running() if vm.desired is Desired.RUNNING]
        for vm in running:
            with suppress(OperationActive):
                await orders.suspend(tx, vm.workspace_id, vm.user_id, force=True)
                ordered += 1
    return ordered
