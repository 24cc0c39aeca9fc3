"""Ordering what a workspace's VM needs."""

import pytest
from here import Enter

from ff_cloud.operations import service as operations
from ff_cloud.operations.errors import OperationActive
from ff_cloud.workspaces.orders import Orders


async def test_a_repeated_suspend_is_the_one_under_way_unless_it_asks_for_more(here: Enter) -> None:
    async with here() as it:
        workspace = await it.user.ready()
        user_id = (await it.vm_of(workspace.id)).user_id
        orders = Orders(db=it.db, world=it.cloud.world)
        async with it.db.system_transaction() as tx:  # until it commits no worker takes it
            first = await orders.suspend(tx, workspace.id, user_id, idle_s=0.0)
            assert await orders.suspend(tx, workspace.id, user_id, idle_s=0.0) == first
            with pytest.raises(OperationActive):
                await orders.suspend(tx, workspace.id, user_id, force=True)
            with pytest.raises(OperationActive):
                await orders.wake(tx, workspace.id, user_id)
            await operations.request_cancel(tx, str(workspace.id))
            with pytest.raises(OperationActive):
                await orders.suspend(tx, workspace.id, user_id, idle_s=0.0)
