"""The pool is kept full, not overfull, of what is fit to be given away."""

import asyncio

from here import LIMIT_S, Enter, Here

from ff_cloud.testing.cloud import NEXT_IMAGE, worker_of
from ff_cloud.vms.errors import DockerUnreachable
from ff_core.contract.workspace import VmStatus


async def most_made_at_once(here: Here, *, until_warm: int) -> int:
    """How many VMs are being made at the same time, until so many are warm."""
    most = 0
    async with asyncio.timeout(LIMIT_S):
        while (now := [vm.status for vm in await here.vms()]).count(VmStatus.WARM) < until_warm:
            most = max(most, now.count(VmStatus.CREATING))
            await asyncio.sleep(0.01)
    return most


async def test_it_fills_a_few_at_a_time_and_two_workers_do_not_overfill(here: Enter) -> None:
    async with here(workers=2, pool_size=5, pool_at_once=2) as cloud:
        assert await most_made_at_once(cloud, until_warm=5) == 2
        await cloud.settled()
        assert len(await cloud.vms()) == 5


async def test_what_was_claimed_is_made_up_for(here: Enter) -> None:
    async with here(pool_size=2, pool_at_once=2) as cloud:
        first = await cloud.filled(2)
        workspaces = [await cloud.user.ready() for _ in range(2)]
        assert {workspace.vm.id for workspace in workspaces} == set(first)
        assert not set(await cloud.filled(2)) & set(first)
        demand = await cloud.run("select sum(hits) as hits, sum(misses) as misses from pool_demand")
        assert demand == [(2, 0)]
        await cloud.settled()


async def test_it_follows_demand_within_its_bounds(here: Enter) -> None:
    async with here(pool_size=None, pool_min=1, pool_max=3, pool_at_once=3) as cloud:
        await cloud.filled(1)
        await asyncio.gather(*(cloud.user.ready() for _ in range(4)))
        await cloud.filled(3)
        await cloud.settled()
        assert len(await cloud.vms(VmStatus.WARM)) == 3
        await cloud.run("update pool_demand set minute = minute - interval '1 hour'")
        async with asyncio.timeout(LIMIT_S):
            while len(await cloud.vms(VmStatus.WARM)) > 1:
                await asyncio.sleep(0.05)
        await cloud.settled()
        assert len(await cloud.vms(VmStatus.WARM)) == 1, "as demand grows old it shrinks, and not further"


async def test_a_drained_server_keeps_none_and_takes_them_up_again(here: Enter) -> None:
    async with here(pool_size=2, pool_at_once=2) as cloud:
        await cloud.filled(2)
        await cloud.run("update fleet set draining = true, refusing = 'draining'")
        async with asyncio.timeout(LIMIT_S):
            while await cloud.vms():
                await asyncio.sleep(0.05)
        refused = await cloud.user.refused("POST", "/v1/workspaces", {"name": "late"})
        assert (refused.status, refused.code, refused.problem["reason"]) == (503, "server_full", "draining")
        await cloud.run("update fleet set draining = false, refusing = null")
        await cloud.filled(2)
        await cloud.settled()


async def test_one_that_dies_is_discarded_and_replaced(here: Enter) -> None:
    async with here(pool_size=2, pool_at_once=2) as cloud:
        dead, silent = await cloud.filled(2)
        await cloud.engine.lose(dead)
        await cloud.engine.freeze(silent)
        async with asyncio.timeout(LIMIT_S):
            while {vm.id for vm in await cloud.vms()} & {dead, silent}:
                await asyncio.sleep(0.05)
        await cloud.filled(2)
        await cloud.settled()


async def test_old_ones_and_those_of_another_image_are_replaced(here: Enter) -> None:
    async with here(pool_size=2, pool_at_once=2) as cloud:
        old, foreign = await cloud.filled(2)
        await cloud.run("update vms set warm_at = now() - interval '7 hours' where id = :id", id=old)
        await cloud.run("update vms set image = :image where id = :id", image=NEXT_IMAGE, id=foreign)
        async with asyncio.timeout(LIMIT_S):
            while {vm.id for vm in await cloud.vms()} & {old, foreign}:
                await asyncio.sleep(0.05)
        await cloud.filled(2)
        await cloud.settled()


async def test_a_server_of_the_next_image_fills_its_own_pool(here: Enter) -> None:
    async with here(workers=0, pool_size=2, pool_at_once=2) as cloud:
        async with worker_of(cloud.cloud):
            before = await cloud.filled(2)
        async with worker_of(cloud.cloud, image=NEXT_IMAGE):
            async with asyncio.timeout(LIMIT_S):
                while {vm.id for vm in await cloud.vms(VmStatus.WARM)} & set(before):
                    await asyncio.sleep(0.05)
            await cloud.filled(2)
            assert {vm.image for vm in await cloud.vms(VmStatus.WARM)} == {NEXT_IMAGE}


async def test_an_engine_that_is_away_leaves_nothing_behind(here: Enter) -> None:
    async with here(pool_size=2, pool_at_once=2) as cloud:
        await cloud.filled(2)
        cloud.engine.go_away()
        order = await cloud.user.order()
        assert order.vm.status == "RUNNING", "what is warm needs no engine"
        failing = "select 1 from operations where kind = 'warm' and error_code = :code"
        async with asyncio.timeout(LIMIT_S):
            while not await cloud.run(failing, code=DockerUnreachable.code):
                await asyncio.sleep(0.05)
        cloud.engine.go_away(away=False)
        assert (await cloud.user.settled(order.id)).status == "READY"
        await cloud.filled(2)
        await cloud.settled()
        assert len(await cloud.vms()) == 3


async def test_a_claim_begins_before_the_next_one_is_made(here: Enter) -> None:
    """While somebody waits for his own VM, none is made for the pool."""
    async with here(pool_size=1) as cloud:
        await cloud.filled(1)
        orders = await asyncio.gather(*(cloud.user.order() for _ in range(3)))
        states = []
        async with asyncio.timeout(LIMIT_S):
            while True:
                rows = await cloud.run("select user_id is null as nobodys, status from vms where status = 'CREATING'")
                states.append((sum(row.nobodys for row in rows), sum(not row.nobodys for row in rows)))
                if all([(await cloud.user.workspace(order.id)).status == "READY" for order in orders]):
                    break
        begun = [pool for pool, cold in states if cold]
        assert begun, "it was seen"
        assert begun == sorted(begun, reverse=True), f"one for the pool was begun while somebody waited: {states}"
        await cloud.filled(1)
